/** Letting a node forget a volume. The array is not needed for it. */
import type { VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import {
  isMeant,
  letGoOfKnown,
  linkedIdentity,
  otherDiskActive,
  withVolumeLock,
} from "./attachment.ts";
import { readKnownDisk } from "./known_disks.ts";
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
    if (held !== undefined) await letGoOfKnown(storage, volume, held);
    return null;
  });
}
