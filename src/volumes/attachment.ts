/** A volume on this node: its link below /dev/tnblock, and the disk that the link must lead to. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { sameTag } from "../common/volume.ts";
import { attempt } from "../host/failure.ts";
import { linkPath, readLinkTarget, removeLink } from "../host/links.ts";
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
  const release = await lockVolume(storage, zvol);
  try {
    return await work();
  } finally {
    release();
  }
}

async function lockVolume(storage: Storage, zvol: string): Promise<() => void> {
  const { host, settings, deadline } = storage;
  return await attempt(
    `Cannot work on the volume "${zvol}" beside another operation on it`,
    () => host.lock(`volume-${settings.id}-${zvol}`, deadline.bounds(VOLUME_LOCK_MS)),
  );
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

/**
 * The identity that the volume's link names, for when nothing else on this node knows it; undefined
 * without a link. The link is ours, and named after the disk.
 */
export async function linkedIdentity(
  storage: Storage,
  volume: VolumeRef,
): Promise<DiskIdentity | undefined> {
  const target = await readLinkTarget(storage.host, linkPath(storage.settings.id, volume.zvol));
  const naa = /(?:mpath-3|wwn-0x)([0-9a-f]{32})$/.exec(target ?? "")?.[1];
  const uuid = /nvme-uuid\.([0-9a-f-]{36})$/.exec(target ?? "")?.[1];
  if (naa !== undefined && storage.transport.kind === "iscsi") {
    return { kind: "iscsi", naa, lun: volume.tag?.kind === "lun" ? volume.tag.lun : NO_NUMBER };
  }
  if (uuid !== undefined && storage.transport.kind === "nvme-tcp") {
    return { kind: "nvme-tcp", uuid, nsid: NO_NUMBER };
  }
  return undefined;
}

/** A number that no LUN and no namespace has: letting go works by naa and uuid alone. */
const NO_NUMBER = -1;

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
