/** What several checks conclude from the array's rows in the same way. */
import { canonicalAddress, samePortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import { EVERY_ADDRESS } from "../transport/check_portals.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import * as initiators from "../truenas/initiators.ts";
import { mayCall } from "../truenas/privileges.ts";
import type { ArrayContext } from "./array_context.ts";
import type { StorageContext } from "./storage_context.ts";

/** Whether the storage's volumes come over iSCSI. */
export function isIscsi({ storage }: ArrayContext): boolean {
  return storage.settings.transport.kind === "iscsi";
}

/** What exports the storage's volumes, in words. */
export function whatOf({ storage }: ArrayContext): string {
  const { transport } = storage.settings;
  return transport.kind === "iscsi"
    ? `target "${transport.targetIqn}"`
    : `subsystem "${transport.subsystemNqn}"`;
}

/** Whether the target or subsystem is offered at a portal; true also when it is not there at all. */
export async function offersPortal(array: ArrayContext, portal: Portal): Promise<boolean> {
  if (array.storage.settings.transport.kind === "iscsi") {
    const { target, portals, config } = await array.iscsi();
    if (target === undefined) return true;
    const addresses = portals
      .filter(({ id }) => target.groups.some((group) => group.portal === id))
      .flatMap((one) => one.addresses);
    return portal.port === config.port && (
      addresses.some((address) => EVERY_ADDRESS.includes(address)) ||
      addresses.map(canonicalAddress).includes(canonicalAddress(portal.address))
    );
  }
  const { subsystem, ports } = await array.nvme();
  if (subsystem === undefined) return true;
  return ports.some((one) =>
    one.transport === "TCP" && one.enabled &&
    (samePortal(one, portal) ||
      (EVERY_ADDRESS.includes(one.address) && one.port === portal.port))
  );
}

/** Who may connect to the target or subsystem. */
export type Admission =
  /** Everybody who reaches it. */
  | { readonly kind: "everybody" }
  /** These names: host NQNs, or initiator names. */
  | { readonly kind: "named"; readonly names: readonly string[] }
  /** It is not there, or may not be read. */
  | { readonly kind: "unknown" };

/** Reads who may connect. */
export async function admission(array: ArrayContext): Promise<Admission> {
  if (array.storage.settings.transport.kind === "nvme-tcp") {
    const { subsystem, hosts } = await array.nvme();
    if (subsystem === undefined) return { kind: "unknown" };
    return subsystem.allowAnyHost ? { kind: "everybody" } : { kind: "named", names: hosts };
  }
  const { target } = await array.iscsi();
  if (target === undefined || target.groups.length === 0) return { kind: "unknown" };
  const ids = target.groups.map(({ initiator }) => initiator);
  if (ids.includes(null)) return { kind: "everybody" };
  // The role for it is none that storing needs.
  const privileges = await ifKnown(() => array.privileges());
  const may = privileges === undefined || mayCall(privileges, "iscsi.initiator.query");
  const groups = may ? await ifKnown(() => initiators.all(array.caller)) : undefined;
  if (groups === undefined) return { kind: "unknown" };
  const named = groups.filter(({ id }) => ids.includes(id));
  return named.some(({ names }) => names.length === 0)
    ? { kind: "everybody" }
    : { kind: "named", names: named.flatMap(({ names }) => names) };
}

/** Whether the array lets a node in that calls itself so; true when it is not known. */
export function admits(who: Admission, name: string | undefined): boolean {
  return who.kind !== "named" || name === undefined ||
    who.names.some((one) => one.toLowerCase() === name.toLowerCase());
}

/** What this node calls itself to the storage's array; undefined where that is no name at all. */
export async function ownName(array: ArrayContext): Promise<string | undefined> {
  const { node, settings } = array.storage;
  const { hostNqn, initiator } = await node.identity();
  if (settings.transport.kind === "iscsi") return initiator;
  const name = settings.transport.hostNqn ?? hostNqn;
  return name?.startsWith("nqn.") === true ? name : undefined;
}

/**
 * What on the array keeps every portal from being connected, as the reason to skip a check: another one tells it.
 * Undefined when nothing does, or it cannot be asked.
 */
export async function obstacle(storage: StorageContext): Promise<string | undefined> {
  const array = await storage.array();
  if (array instanceof Error) return undefined;
  if ((await ifKnown(() => array.service()))?.running === false) {
    return "the array's service does not run: see service";
  }
  const isThere = await ifKnown(async () =>
    storage.settings.transport.kind === "iscsi"
      ? (await array.iscsi()).target !== undefined
      : array.release.can.nvmet && (await array.nvme()).subsystem !== undefined
  );
  return isThere === false ? "what is to be connected is not on the array: see target" : undefined;
}

/** What `read` gives; undefined when the key may not, or the array does not answer. */
export async function ifKnown<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (arrayErrorIn(error) !== undefined) return undefined;
    throw error;
  }
}
