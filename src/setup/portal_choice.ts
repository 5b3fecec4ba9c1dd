/** The addresses of the array that the data path may take, each tried from this node. */
import { canonicalAddress, formatPortal, samePortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import { PORTAL_PROBE_MS } from "../common/timing.ts";
import { HostError } from "../host/host.ts";
import { outgoing } from "../host/outgoing.ts";
import { EVERY_ADDRESS } from "../transport/check_portals.ts";
import type { ArrayFacts } from "./array_facts.ts";
import type { SetupWorld } from "./world.ts";

/** NVMe/TCP's own port (IANA). */
export const NVME_PORT = 4420;

/** One address. */
export interface PortalChoice {
  readonly portal: Portal;
  /** Whether the array listens there already; else it is made. */
  readonly isThere: boolean;
  /** Why it does not answer; undefined for one that does, or is not there yet. */
  readonly failure: string | undefined;
  /** The interface of this node that leads there. */
  readonly via: string | undefined;
  /** Bytes a second of that interface. */
  readonly bytesPerSecond: number | undefined;
}

/** Where the array listens for a transport, and where it might. */
export function possiblePortals(
  array: ArrayFacts,
  transport: "iscsi" | "nvme-tcp",
): { readonly portal: Portal; readonly isThere: boolean }[] {
  const { iscsi, nvme } = array;
  const listening = transport === "iscsi"
    ? (iscsi?.portals ?? []).flatMap(({ addresses }) =>
      addresses.map((address) => ({ address, port: iscsi?.port ?? 0 }))
    )
    : (nvme?.ports ?? []).filter(({ transport, enabled }) => transport === "TCP" && enabled)
      .map(({ address, port }) => ({ address, port }));
  const own = (transport === "iscsi" ? iscsi?.addresses : nvme?.addresses) ?? [];
  const there = listening.flatMap((portal) =>
    EVERY_ADDRESS.includes(portal.address)
      ? own.filter((address) => address.includes(":") === portal.address.includes(":"))
        .map((address) => ({ address, port: portal.port }))
      : [portal]
  );
  const port = transport === "iscsi" ? iscsi?.port ?? 3260 : NVME_PORT;
  const missing = own
    .filter((address) =>
      !there.some((one) => canonicalAddress(one.address) === canonicalAddress(address))
    )
    .map((address) => ({ address, port }));
  const unique = there.filter((portal, index) =>
    there.findIndex((other) => samePortal(other, portal)) === index
  );
  return [
    ...unique.map((portal) => ({ portal, isThere: true })),
    ...missing.map((portal) => ({ portal, isThere: false })),
  ];
}

/** The same, each tried, with the interface that leads there. */
export async function tryPortals(
  { host }: SetupWorld,
  portals: readonly { readonly portal: Portal; readonly isThere: boolean }[],
): Promise<PortalChoice[]> {
  const ways = await outgoing(host.files, portals.map(({ portal }) => portal.address));
  return await Promise.all(portals.map(async ({ portal, isThere }, index) => ({
    ...{ portal, isThere },
    failure: isThere ? await tryOne(host, portal) : undefined,
    via: ways[index]?.name,
    bytesPerSecond: ways[index]?.bytesPerSecond,
  })));
}

async function tryOne(
  host: SetupWorld["host"],
  { address, port }: Portal,
): Promise<string | undefined> {
  try {
    await host.exchangeTcp(address, port, new Uint8Array(), 0, { deadlineMs: PORTAL_PROBE_MS });
    return undefined;
  } catch (error) {
    return error instanceof HostError && error.code === "ETIMEDOUT"
      ? "no answer"
      : error instanceof HostError
      ? error.code
      : String(error);
  }
}

/** What a person sees of it. */
export function describePortal(
  { portal, isThere, failure, via, bytesPerSecond }: PortalChoice,
): string {
  const speed = bytesPerSecond === undefined ? "" : ` (${speedOf(bytesPerSecond)})`;
  const state = failure !== undefined
    ? `not reached from here: ${failure}`
    : isThere
    ? "answers"
    : "no port there yet: it is made";
  const way = via === undefined ? "no route known" : `by ${via}${speed}`;
  return `${formatPortal(portal)}  ${state}, ${way}`;
}

function speedOf(bytesPerSecond: number): string {
  const megabits = bytesPerSecond / 125_000;
  return megabits >= 1000 ? `${megabits / 1000} Gb/s` : `${megabits} Mb/s`;
}

/** Portals as an option holds them. */
export function portalTexts(portals: readonly Portal[]): string {
  return portals.map(formatPortal).join(",");
}

/** Whether listening on the one address is listening on the other too. */
export function isEvery(address: string, other: string): boolean {
  return address === (other.includes(":") ? "::" : "0.0.0.0");
}
