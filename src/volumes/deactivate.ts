/** Letting a node forget a volume. The array is not needed for it. */
import type { VolumeRef } from "../common/volume.ts";
import { linkPath, removeLink } from "../host/links.ts";
import {
  detachVolume,
  isMeant,
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
    if (known === undefined) {
      await removeLink(storage.host, linkPath(storage.settings.id, volume.zvol));
      return null;
    }
    await refuseUsers(storage, volume, known.identity);
    await detachVolume(storage, volume, known.identity);
    return null;
  });
}
