/** Which interface of the node leads to an address, and how fast it is, by the kernel's main routing table. */
import { canonicalAddress } from "../common/portal.ts";
import type { HostFiles } from "./host.ts";
import { attribute, textOrUndefined } from "./scan/attributes.ts";

/** An interface. */
export interface Outgoing {
  /** e.g. `ens19`, `bond0`. */
  readonly name: string;
  /** Bytes a second that it is up to; undefined where it does not say (virtual ones, or without a cable). */
  readonly bytesPerSecond: number | undefined;
}

/** A route of either family. */
interface Route {
  readonly name: string;
  readonly prefix: bigint;
  readonly length: number;
  /** Bits of an address: 32 or 128. */
  readonly bits: number;
  readonly metric: number;
}

/** RTF_UP and RTF_REJECT of `include/uapi/linux/route.h`. */
const UP = 0x1;
const REJECT = 0x200;

/** The interface that each address is reached through; undefined when there is no route. Rules and marks are not looked at. */
export async function outgoing(
  files: HostFiles,
  addresses: readonly string[],
): Promise<(Outgoing | undefined)[]> {
  if (addresses.length === 0) return [];
  const [four, six] = await Promise.all([
    textOrUndefined(files, "/proc/net/route"),
    textOrUndefined(files, "/proc/net/ipv6_route"),
  ]);
  const routes = [...parseRoutes(four ?? ""), ...parseRoutes6(six ?? "")];
  const names = addresses.map((address) => chooseInterface(routes, address));
  return await Promise.all(names.map(async (name) => {
    if (name === undefined) return undefined;
    // Megabits a second; -1 or no answer at all where there is no such thing.
    const megabits = Number(await attribute(files, `/sys/class/net/${name}/speed`));
    return { name, bytesPerSecond: megabits > 0 ? megabits * 125_000 : undefined };
  }));
}

/**
 * Routes of `/proc/net/route`, whose addresses are in the machine's byte order (little-endian):
 * `ens19	0014000A	00000000	0001	0	0	0	00FFFFFF	0	0	0`
 */
export function parseRoutes(text: string): Route[] {
  const hex =
    /^(\S+)\t([0-9A-F]{8})\t[0-9A-F]{8}\t([0-9A-F]{4})\t\d+\t\d+\t(\d+)\t([0-9A-F]{8})\t/gm;
  return [...text.matchAll(hex)].flatMap(([, name, to, flags, metric, mask]) =>
    name !== undefined && isUsable(flags)
      ? [{
        name,
        prefix: BigInt(`0x${swapped(to ?? "")}`),
        length: ones(BigInt(`0x${swapped(mask ?? "")}`)),
        bits: 32,
        metric: Number(metric),
      }]
      : []
  );
}

/**
 * Routes of `/proc/net/ipv6_route`:
 * `fd000000000000000000000000000000 40 <source> 00 <next hop> 00000100 00000001 00000000 00000001    ens19`
 */
export function parseRoutes6(text: string): Route[] {
  const line =
    /^([0-9a-f]{32}) ([0-9a-f]{2}) [0-9a-f]{32} [0-9a-f]{2} [0-9a-f]{32} ([0-9a-f]{8}) [0-9a-f]{8} [0-9a-f]{8} ([0-9a-f]{8})\s+(\S+)$/gm;
  return [...text.matchAll(line)].flatMap(([, to, length, metric, flags, name]) =>
    name !== undefined && isUsable(flags)
      ? [{
        name,
        prefix: BigInt(`0x${to}`),
        length: parseInt(length ?? "0", 16),
        bits: 128,
        metric: parseInt(metric ?? "0", 16),
      }]
      : []
  );
}

/** The longest prefix wins, then the lowest metric. */
export function chooseInterface(routes: readonly Route[], address: string): string | undefined {
  const { value, bits } = numberOf(address);
  // Its table is another one.
  if (bits === 32 && value >> 24n === 127n) return "lo";
  const fitting = routes.filter((route) => {
    const shift = BigInt(route.bits - route.length);
    return route.bits === bits && route.prefix >> shift === value >> shift;
  });
  return fitting.sort((a, b) => b.length - a.length || a.metric - b.metric)[0]?.name;
}

function isUsable(flags: string | undefined): boolean {
  const bits = parseInt(flags ?? "0", 16);
  return (bits & UP) !== 0 && (bits & REJECT) === 0;
}

/** `0014000A` is 10.0.20.0. */
function swapped(hex: string): string {
  return (hex.match(/../g) ?? []).reverse().join("");
}

function ones(mask: bigint): number {
  return mask.toString(2).replaceAll("0", "").length;
}

function numberOf(address: string): { readonly value: bigint; readonly bits: number } {
  if (!address.includes(":")) {
    const parts = address.split(".").map(Number);
    return { value: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n), bits: 32 };
  }
  const groups = canonicalAddress(address).split(":");
  return {
    value: BigInt(`0x${groups.map((group) => group.padStart(4, "0")).join("")}`),
    bits: 128,
  };
}
