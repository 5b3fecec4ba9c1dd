/** A volume on this node: its link below /dev/tnblock, and the disk that the link must lead to. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { sameTag } from "../common/volume.ts";
import { linkPath, removeLink } from "../host/links.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import { forgetKnownDisk, type KnownDisk } from "./known_disks.ts";
import type { Storage } from "./storage.ts";

/** How long two operations on one volume of one node wait for each other. */
const VOLUME_LOCK_MS = 60_000;

/** Runs one operation on a volume at a time, over all processes of the node. */
export async function withVolumeLock<T>(
  storage: Storage,
  zvol: string,
  work: () => Promise<T>,
): Promise<T> {
  const release = await storage.host.lock(
    `volume-${storage.settings.id}-${zvol}`,
    storage.deadline.bounds(VOLUME_LOCK_MS),
  );
  try {
    return await work();
  } finally {
    release();
  }
}

/** Whether what this node knows is the volume that the name means. */
export function isMeant(volume: VolumeRef, known: KnownDisk): boolean {
  return volume.tag === undefined || sameTag(known.tag, volume.tag);
}

/** For a name that is older than the disk that this node knows under it. */
export function otherDiskActive(volume: VolumeRef): TnblockError {
  return new TnblockError(
    "volume-replaced",
    `Cannot use the volume "${volume.zvol}": another disk of that name is active on this node`,
    {
      hint:
        "The configuration is older than the disk: look which guest owns it before changing anything",
    },
  );
}

/** Refuses while anybody on this node uses the disk. */
export async function refuseUsers(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity,
): Promise<void> {
  const users = await storage.transport.users(identity);
  if (users.length === 0) return;
  throw new TnblockError(
    "in-use",
    `Cannot let go of the volume "${volume.zvol}": it is used on this node by ${users.join(", ")}`,
    {
      hint: "Stop the guest or unmount the volume, then try again",
    },
  );
}

/** Removes link, map and paths of a disk that nobody uses, and forgets it. */
export async function detachVolume(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity,
): Promise<void> {
  await removeLink(storage.host, linkPath(storage.settings.id, volume.zvol));
  await storage.transport.detach(identity, storage.deadline);
  await forgetKnownDisk(storage, volume.zvol);
}
