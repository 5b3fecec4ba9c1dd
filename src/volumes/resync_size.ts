/**
 * Making the array's services notice that a zvol has another size. TrueNAS tells them itself only when it
 * grows a volume (`middlewared/plugins/pool_/dataset.py`), not when a rollback changes the size.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError, withContext } from "../common/error.ts";
import type { Caller } from "../truenas/caller.ts";
import { isUnknownOutcome } from "../truenas/errors.ts";
import * as extents from "../truenas/extents.ts";
import { setExtentEnabled } from "../truenas/extent_switch.ts";
import * as zvols from "../truenas/zvols.ts";
import type { ResolvedVolume } from "./resolve.ts";
import type { Storage } from "./storage.ts";

/** How often a switch whose answer was lost is looked at and tried again. */
const TRIES = 3;

/** On a zvol whose extent is off for a moment: its path, so that no other zvol inherits it. */
const RESYNC_PROPERTY = "tnblock:resync";

/** Whether its extent may still show an older size, or be off, because nobody saw {@link resyncSize} through. */
export function isResyncBegun(zvol: Pick<zvols.Zvol, "name" | "userProperties">): boolean {
  return zvol.userProperties[RESYNC_PROPERTY] === zvol.name;
}

/**
 * Marks the zvol before its size may change under the array's services; a rollback does not take the mark
 * back. To be followed by {@link resyncSize}, or by {@link cancelResync} when nothing changed.
 */
export async function beginResync(array: Caller, volume: ResolvedVolume): Promise<ResolvedVolume> {
  const { zvol } = volume;
  const mark = { [RESYNC_PROPERTY]: zvol.name };
  await zvols.setUserProperties(array, zvol.name, mark);
  return { ...volume, zvol: { ...zvol, userProperties: { ...zvol.userProperties, ...mark } } };
}

/** Takes the mark of {@link beginResync} away. */
export async function cancelResync(array: Caller, { zvol }: ResolvedVolume): Promise<void> {
  await zvols.setUserProperties(array, zvol.name, { [RESYNC_PROPERTY]: undefined });
}

/** Whether the array's services go on showing the size that the zvol had before. */
export function needsResync({ export: found }: ResolvedVolume): boolean {
  return found.rows.some((row) => row.kind === "extent");
}

/**
 * Makes the export show the zvol's present size; nobody may use the disk.
 *
 * iSCSI: SCST reads a device's size when it is attached and when told to (`scst_vdisk.c`, `vdisk_attach`,
 * `resync_size`), so the extent is switched off and on again; LUN and naa stay. NVMe/TCP: nvmet reads it at
 * each Identify, which a rescan of the node sends. What is killed in between is seen by a mark on the zvol,
 * and ended by a repeat: that an extent is off is the administrator's wish only without the mark.
 */
export async function resyncSize(
  storage: Storage,
  array: Caller,
  volume: ResolvedVolume,
  deadline: Deadline,
): Promise<void> {
  const { zvol, export: found } = volume;
  const extent = found.rows.find((row) => row.kind === "extent");
  if (extent === undefined || !found.enabled && !isResyncBegun(zvol)) return;
  if (!isResyncBegun(zvol)) await beginResync(array, volume);
  try {
    await switchTo(array, extent.id, false, deadline);
  } finally {
    // Also after a failure, which does not say that it is still on.
    try {
      await switchTo(array, extent.id, true, deadline);
    } catch (error) {
      const inner = withContext(error, `Cannot switch the extent of "${zvol.name}" on again`);
      // deno-lint-ignore no-unsafe-finally
      throw new TnblockError(inner.code, inner.message, {
        cause: error,
        hint:
          "Activate the volume, or switch it on in TrueNAS: Shares > Block (iSCSI) Shares Targets > Extents",
      });
    }
  }
  try {
    await cancelResync(await storage.array(), volume);
  } catch (error) {
    // Then it is done once more the next time, when nobody uses the disk.
    storage.log.warning(error instanceof Error ? error.message : String(error));
  }
  storage.log.info(`the extent of "${zvol.name}" was switched off and on, to show its new size`);
}

async function switchTo(
  array: Caller,
  id: number,
  enabled: boolean,
  deadline: Deadline,
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await setExtentEnabled(array, id, enabled);
    } catch (error) {
      if (!isUnknownOutcome(error) || attempt >= TRIES) throw error;
      const [now] = await extents.byIds(array, [id], deadline.bounds());
      if (now?.enabled === enabled) return;
    }
  }
}
