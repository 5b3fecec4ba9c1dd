/**
 * A volume on this node, or a snapshot of one that is read here: its link below /dev/tnblock, and the
 * disk that the link must lead to.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError, withContext } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { sameTag } from "../common/volume.ts";
import { attempt } from "../host/failure.ts";
import { LockError } from "../host/host.ts";
import { ensureLink, LINK_FOLDER, linkPath, readLinkTarget, removeLink } from "../host/links.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import { forgetKnownDisk, type KnownDisk, knownNames, readKnownDisk } from "./known_disks.ts";
import type { Storage } from "./storage.ts";
import { forgetVerified } from "./verified_disks.ts";

/** What has a link of its own on a node. */
export interface Attachable extends VolumeRef {
  /** The volume's snapshot; absent for the volume itself. */
  readonly snapshot?: string;
}

/** What a link, its lock and its known disk are called: `vm-100-disk-0`, or `vm-100-disk-0@before`. */
export function attachName({ zvol, snapshot }: Attachable): string {
  return snapshot === undefined ? zvol : `${zvol}@${snapshot}`;
}

/** What messages call it. */
export function inWords({ zvol, snapshot }: Attachable): string {
  return snapshot === undefined
    ? `the volume "${zvol}"`
    : `the snapshot "${snapshot}" of the volume "${zvol}"`;
}

/** Where its link is. */
export function linkOf(storage: Storage, { zvol, snapshot }: Attachable): string {
  return linkPath(storage.settings.id, zvol, snapshot);
}

/** How long two operations on one volume of one node wait for each other. */
const VOLUME_LOCK_MS = 60_000;

/**
 * Runs one operation on a volume at a time, over all processes of the node.
 *
 * @param name as {@link attachName} says.
 */
export async function withVolumeLock<T>(
  storage: Storage,
  name: string,
  work: () => Promise<T>,
): Promise<T> {
  const release = await lockVolume(storage, name);
  try {
    return await work();
  } finally {
    release();
  }
}

async function lockVolume(storage: Storage, name: string): Promise<() => void> {
  const { host, deadline } = storage;
  return await attempt(
    `Cannot work on the volume "${name}" beside another operation on it`,
    () => host.lock(volumeLock(storage, name), deadline.bounds(VOLUME_LOCK_MS)),
  );
}

/**
 * Runs work on a volume as {@link withVolumeLock}, unless another operation on it is under way.
 *
 * @returns undefined when one is, and nothing was done.
 */
export async function ifVolumeIsFree<T>(
  storage: Storage,
  name: string,
  work: () => Promise<T>,
): Promise<T | undefined> {
  let release: () => void;
  try {
    release = await storage.host.lock(volumeLock(storage, name), { deadlineMs: 0 });
  } catch (error) {
    if (error instanceof LockError) return undefined;
    throw withContext(error, `Cannot work on the volume "${name}"`);
  }
  try {
    return await work();
  } finally {
    release();
  }
}

function volumeLock({ settings }: Storage, name: string): string {
  return `volume-${settings.id}-${name}`;
}

/** What a node held under a name. */
export type Held = Pick<KnownDisk, "tag" | "identity">;

/** Whether what this node knows is the volume that the name means. */
export function isMeant(volume: VolumeRef, known: Pick<KnownDisk, "tag">): boolean {
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
  volume: Attachable,
): Promise<DiskIdentity | undefined> {
  const identity = await identityAt(storage, linkOf(storage, volume));
  return identity?.kind === "iscsi" && volume.tag?.kind === "lun"
    ? { ...identity, lun: volume.tag.lun }
    : identity;
}

/** The identity that a link names. */
export async function identityAt(
  storage: Storage,
  link: string,
): Promise<DiskIdentity | undefined> {
  const target = await readLinkTarget(storage.host, link);
  const naa = /(?:mpath-3|wwn-0x)([0-9a-f]{32})$/.exec(target ?? "")?.[1];
  const uuid = /nvme-uuid\.([0-9a-f-]{36})$/.exec(target ?? "")?.[1];
  if (naa !== undefined && storage.transport.kind === "iscsi") {
    return { kind: "iscsi", naa, lun: NO_NUMBER };
  }
  if (uuid !== undefined && storage.transport.kind === "nvme-tcp") {
    return { kind: "nvme-tcp", uuid, nsid: NO_NUMBER };
  }
  return undefined;
}

/** A number that no LUN and no namespace has: letting go works by naa and uuid alone. */
const NO_NUMBER = -1;

/** Whether two identities are those of one disk: a number is not what tells disks apart. */
export function isSameDisk(one: DiskIdentity, other: DiskIdentity): boolean {
  return one.kind === "iscsi"
    ? other.kind === "iscsi" && one.naa === other.naa
    : other.kind === "nvme-tcp" && one.uuid === other.uuid;
}

/** The other names of this storage whose link on this node leads to the disk. */
export async function otherLinks(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
): Promise<string[]> {
  const folder = `${LINK_FOLDER}/${storage.settings.id}`;
  const names = (await storage.host.files.list(folder) ?? [])
    .filter((name) => name !== attachName(volume));
  const linked = await Promise.all(names.map((name) => identityAt(storage, `${folder}/${name}`)));
  return names.filter((_, index) => {
    const one = linked[index];
    return one !== undefined && isSameDisk(one, identity);
  });
}

/** The other names of this storage under which this node knows the disk. */
export async function otherKnownNames(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
): Promise<string[]> {
  const names = (await knownNames(storage)).filter((name) => name !== attachName(volume));
  const known = await Promise.all(names.map((name) => readKnownDisk(storage, name)));
  return names.filter((_, index) => {
    const one = known[index]?.identity;
    return one !== undefined && isSameDisk(one, identity);
  });
}

/**
 * Runs one operation on a disk at a time, over all processes of the node and whatever name they know it
 * by: none takes the disk away while another begins to attach it. Always within a volume's lock.
 */
export async function withDiskLock<T>(
  storage: Storage,
  identity: DiskIdentity,
  deadline: Deadline,
  work: () => Promise<T>,
): Promise<T> {
  const id = identity.kind === "iscsi" ? identity.naa : identity.uuid;
  const { host, settings } = storage;
  const release = await attempt(
    `Cannot work on the disk ${id} beside another operation on it`,
    () => host.lock(`disk-${settings.id}-${id}`, deadline.bounds(VOLUME_LOCK_MS)),
  );
  try {
    return await work();
  } finally {
    release();
  }
}

/**
 * Refuses while anybody on this node uses what it knew under a name; not when the disk is another name's
 * by now, whose users they are then.
 *
 * @throws TnblockError `in-use`, or `volume-replaced` when the name does not mean that disk.
 */
export async function refuseKnownUsers(
  storage: Storage,
  volume: Attachable,
  known: Held,
): Promise<void> {
  if (await hasOtherName(storage, volume, known.identity)) return;
  if (isMeant(volume, known)) return await refuseUsers(storage, volume, known.identity);
  const users = await storage.transport.users(known.identity);
  if (users.length > 0) throw otherDiskActive(volume);
}

/**
 * Lets go of what this node knew under a name, which is not always what the name means today: a node
 * that crashed knows a disk that was reassigned since, and may use it by its new name. Of such a disk
 * only link and file go; any other is detached. A disk that the array has under the name today is none
 * for this: {@link detachVolume}.
 *
 * @param known what {@link readKnownDisk} returned for the name, or its link named.
 * @param mayReturn whether only this node is done with it, for now: then what was verified of it is kept for when
 *   it is wanted again without the API.
 * @throws TnblockError as {@link refuseKnownUsers}: nothing was touched.
 */
export async function letGoOfKnown(
  storage: Storage,
  volume: Attachable,
  known: Held,
  deadline: Deadline = storage.deadline,
  mayReturn = false,
): Promise<void> {
  const { identity } = known;
  await withDiskLock(storage, identity, deadline, async () => {
    if (await hasOtherName(storage, volume, identity)) {
      await forget(storage, volume);
    } else {
      await refuseKnownUsers(storage, volume, known);
      await detachVolume(storage, volume, identity, deadline, mayReturn);
    }
  });
}

/**
 * Forgets the disk by any other name, after the array has told which one it has today: a link that stayed
 * would lead a former name's guest to the disk of its present one.
 *
 * @throws TnblockError `in-use` while a former name is attached here and the disk is used: nothing was touched.
 */
export async function forgetOtherNames(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
): Promise<void> {
  const linked = await otherLinks(storage, volume, identity);
  if (linked.length > 0) {
    const users = await storage.transport.users(identity);
    if (users.length > 0) {
      throw new TnblockError(
        "in-use",
        `Cannot attach ${inWords(volume)}: its disk is used on this node under its former name "${
          linked[0]
        }", by ${users.join(", ")}`,
        { hint: "Stop the guest that has the former name in its configuration" },
      );
    }
  }
  const known = await otherKnownNames(storage, volume, identity);
  for (const name of new Set([...linked, ...known])) {
    storage.log.info(`"${name}" is "${attachName(volume)}" by now: forgetting the former name`);
    await forgetVerified(storage, name);
    await removeLink(storage.host, `${LINK_FOLDER}/${storage.settings.id}/${name}`);
    await forgetKnownDisk(storage, name);
  }
}

async function hasOtherName(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
): Promise<boolean> {
  return (await otherKnownNames(storage, volume, identity)).length > 0 ||
    (await otherLinks(storage, volume, identity)).length > 0;
}

/** Removes a volume's link and all that is known of it; the disk stays as it is. */
async function forget(storage: Storage, volume: Attachable): Promise<void> {
  await forgetVerified(storage, attachName(volume));
  await removeLink(storage.host, linkOf(storage, volume));
  await forgetKnownDisk(storage, attachName(volume));
}

/** Refuses while anybody on this node uses the disk. */
export async function refuseUsers(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
): Promise<void> {
  const users = await storage.transport.users(identity);
  if (users.length === 0) return;
  throw new TnblockError(
    "in-use",
    `Cannot let go of ${inWords(volume)}: it is used on this node by ${users.join(", ")}`,
    {
      hint: "Stop the guest or unmount the volume, then try again",
    },
  );
}

/**
 * Removes link, map and paths of a disk that nobody uses, and forgets it.
 *
 * @param mayReturn as {@link letGoOfKnown} has it.
 */
export async function detachVolume(
  storage: Storage,
  volume: Attachable,
  identity: DiskIdentity,
  deadline: Deadline = storage.deadline,
  mayReturn = false,
): Promise<void> {
  // First: whatever becomes of the rest, what is freed or renamed next is not looked for any more.
  if (!mayReturn) await forgetVerified(storage, attachName(volume));
  const link = linkOf(storage, volume);
  const target = await readLinkTarget(storage.host, link);
  await removeLink(storage.host, link);
  try {
    await storage.transport.detach(identity, deadline);
  } catch (error) {
    // Somebody uses it after all: it is there for them as it was.
    if (target !== undefined) await putBack(storage, link, target);
    throw withContext(error, `Cannot let go of ${inWords(volume)}`);
  }
  await forgetKnownDisk(storage, attachName(volume));
}

async function putBack(storage: Storage, link: string, target: string): Promise<void> {
  try {
    await ensureLink(storage.host, link, target);
  } catch (error) {
    storage.log.warning(error instanceof Error ? error.message : String(error));
  }
}
