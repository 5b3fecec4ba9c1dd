/**
 * A rename that was stopped from outside, seen by who wants to use the volume under the name that PVE's
 * configuration still has: it is taken back, so that the old name is whole again. Whoever renames holds the
 * lock of that name on the guest's node, so that none that is under way is met here.
 */
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { moveBack } from "./move.ts";
import { isRenameBegun } from "./ownership.ts";
import type { ResolvedVolume } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** Whether the volume is not wholly under its name, or switched off, because a rename of it was stopped. */
export function isRenameStopped(storage: Storage, found: ResolvedVolume, name: string): boolean {
  if (found.zvol.name !== zvolPath(storage, name)) return true;
  // Over iSCSI a rename switches nothing off: then the administrator did.
  const { kind } = storage.transport;
  return kind === "nvme-tcp" && !found.export.enabled && isRenameBegun(found.zvol);
}

/**
 * Takes it back: the zvol to the path that its export has, the export on again, and the marks of the rename
 * off, so that an administrator who switches it off later is not overruled. Each step is what a repeat
 * goes on from.
 *
 * @returns the volume as it is now.
 */
export async function takeBackStopped(
  storage: Storage,
  array: Caller,
  found: ResolvedVolume,
  name: string,
): Promise<ResolvedVolume> {
  const { transport, deadline, log } = storage;
  const path = zvolPath(storage, name);
  deadline.check();
  const on = { ...found.export, enabled: true };
  if (found.zvol.name !== path) {
    // With the export on, and loaded again after a reload that met the zvol at its new path.
    await moveBack(storage, array, found);
    log.info(`"${found.zvol.name}" is "${path}" again: its rename had stopped half-way`);
  } else if (!found.export.enabled) {
    await transport.repoint(array, on, path, deadline);
    log.info(`the export of "${path}" is on again: a rename that stopped had switched it off`);
  }
  const none = { "tnblock:rename-to": undefined, "tnblock:rename-id": undefined };
  await zvols.setUserProperties(array, path, none);
  return { zvol: { ...found.zvol, name: path }, export: on };
}
