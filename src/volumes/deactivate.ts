/** Letting a node forget a volume. The array is not needed for it. */
import type { VolumeRef } from "../common/volume.ts";
import {
  detachVolume,
  isMeant,
  linkedIdentity,
  otherDiskActive,
  refuseUsers,
  withVolumeLock,
} from "./attachment.ts";
import { readKnownDisk } from "./known_disks.ts";
import type { Storage } from "./storage.ts";

/**
 * Removes the volume's link and, over iSCSI, its map and paths. What is not active is fine.
 *
 * @throws TnblockError `in-use` while a process or a mount of this node uses it.
 */
export async function deactivate(storage: Storage, volume: VolumeRef): Promise<null> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const known = await readKnownDisk(storage, volume.zvol);
    if (known !== undefined && !isMeant(volume, known)) throw otherDiskActive(volume);
    const identity = known?.identity ?? await linkedIdentity(storage, volume);
    if (identity === undefined) return null;
    await refuseUsers(storage, volume, identity);
    await detachVolume(storage, volume, identity);
    return null;
  });
}
