/** Letting a node forget a volume. The array is not needed for it. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import {
  type Held,
  isMeant,
  letGoOfKnown,
  linkedIdentity,
  otherDiskActive,
  withVolumeLock,
} from "./attachment.ts";
import { readKnownDisk } from "./known_disks.ts";
import { onceUnused } from "./once_unused.ts";
import type { Storage } from "./storage.ts";

/**
 * Removes the volume's link and, over iSCSI, its map and paths. What is not active is fine; of a disk that
 * has another name by now, and is here by that one, only the old link goes.
 *
 * @throws TnblockError `in-use` while a process or a mount of this node uses it.
 */
export async function deactivate(storage: Storage, volume: VolumeRef): Promise<null> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const known = await readKnownDisk(storage, volume.zvol);
    if (known !== undefined && !isMeant(volume, known)) throw otherDiskActive(volume);
    const linked = await linkedIdentity(storage, volume);
    const held = known ?? (linked && { tag: volume.tag ?? tagOf(linked), identity: linked });
    if (held !== undefined) await letGo(storage, volume, held);
    return null;
  });
}

/** How long what waited for a disk that is gone may take to fail and close it, in ms. */
const GIVE_UP_MS = 5_000;

/**
 * Lets go of the disk; once more when all that is in the way is somebody who waits for a disk that was freed
 * elsewhere: a `vgs` of this node would hang on it for ever.
 */
async function letGo(
  storage: Storage,
  volume: VolumeRef,
  held: Held,
): Promise<void> {
  try {
    await forNow(storage, volume, held);
  } catch (error) {
    if (!(error instanceof TnblockError) || error.code !== "in-use") throw error;
    if (!await storage.transport.failWaiting(held.identity, storage.deadline)) throw error;
    storage.log.warning(
      `the array has the disk of "${volume.zvol}" no longer: what waits for it fails`,
    );
    await onceUnused(storage, GIVE_UP_MS, () => forNow(storage, volume, held));
  }
}

/** What is known of it stays: its guest may be started here again while the API is away. */
async function forNow(storage: Storage, volume: VolumeRef, held: Held): Promise<void> {
  await letGoOfKnown(storage, volume, held, storage.deadline, true);
}
