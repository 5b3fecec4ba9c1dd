/** Portals and numeric addresses: reading what an administrator wrote, and comparing what the kernel says. */
import { TnblockError } from "./error.ts";
import type { Portal } from "./storage_settings.ts";

/** Whether the text is a numeric IPv4 address. Leading zeros are refused: some programs read them as octal. */
export function isIpv4(text: string): boolean {
  const parts = text.split(".");
  return parts.length === 4 &&
    parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255);
}

/** The eight groups of a numeric IPv6 address, or undefined when it is none. No zone, no embedded IPv4. */
function ipv6Groups(text: string): number[] | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = (half: string) => half === "" ? [] : half.split(":");
  const head = groups(halves[0] ?? "");
  const tail = groups(halves[1] ?? "");
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const all = [...head, ...Array<string>(Math.max(0, missing)).fill("0"), ...tail];
  if (!all.every((group) => /^[0-9A-Fa-f]{1,4}$/.test(group))) return undefined;
  return all.map((group) => parseInt(group, 16));
}

/** Whether the text is a numeric IPv6 address, without brackets and zone. */
export function isIpv6(text: string): boolean {
  return text.includes(":") && ipv6Groups(text) !== undefined;
}

/** One spelling for each address, so that two spellings of one IPv6 address compare equal. */
export function canonicalAddress(text: string): string {
  const groups = text.includes(":") ? ipv6Groups(text) : undefined;
  return groups === undefined ? text : groups.map((group) => group.toString(16)).join(":");
}

/** Whether two portals are the same. */
export function samePortal(a: Portal, b: Portal): boolean {
  return a.port === b.port && canonicalAddress(a.address) === canonicalAddress(b.address);
}

/** `ADDR:PORT`, IPv6 in brackets. */
export function formatPortal(portal: Portal): string {
  const address = portal.address.includes(":") ? `[${portal.address}]` : portal.address;
  return `${address}:${portal.port}`;
}

/**
 * Reads `ADDR[:PORT]`, IPv6 in brackets.
 *
 * @throws TnblockError `config` that names the option and the text.
 */
export function parsePortal(text: string, defaultPort: number, option: string): Portal {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::([0-9]{1,5}))?$/.exec(text.trim());
  const address = match?.[1] ?? match?.[2] ?? "";
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  const numeric = match?.[1] === undefined ? isIpv4(address) : isIpv6(address);
  if (match === null || !numeric || port < 1 || port > 65535) {
    throw new TnblockError(
      "config",
      `Cannot use "${text}" as a portal in ${option}: it is not ADDR[:PORT]`,
      {
        hint:
          "Give a numeric address, an IPv6 one in brackets, e.g. 10.0.0.5:3260 or [fd00::5]:4420",
        field: option,
      },
    );
  }
  return { address, port };
}

/** Reads a list of portals separated by commas or blanks; a portal that is named twice counts once. */
export function parsePortals(
  texts: readonly string[],
  defaultPort: number,
  option: string,
): Portal[] {
  const portals: Portal[] = [];
  for (const text of texts.flatMap((list) => list.split(/[\s,;]+/)).filter((part) => part !== "")) {
    const portal = parsePortal(text, defaultPort, option);
    if (!portals.some((known) => samePortal(known, portal))) portals.push(portal);
  }
  return portals;
}
