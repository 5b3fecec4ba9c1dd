/**
 * Making a volume a block device on this node: find the disk by its identity, verify it live, link
 * it, and verify what the link reaches. Idempotent: what is right already is left as it is, what has
 * the wrong size or lost its link is repaired.
 */
import { type ErrorCode, TnblockError, withContext } from "../common/error.ts";
import { sameTag, type VolumeRef } from "../common/volume.ts";
import { Deadline } from "../common/deadline.ts";
import { ensureLink, readLinkTarget } from "../host/links.ts";
import { type AttachedDisk, tagOf } from "../transport/transport.ts";
import type { WantedSize } from "../transport/wanted_size.ts";
import type { Caller } from "../truenas/caller.ts";
import {
  type Attachable,
  attachName,
  forgetOtherNames,
  inWords,
  isMeant,
  isSameDisk,
  letGoOfKnown,
  linkedIdentity,
  linkOf,
  withDiskLock,
  withVolumeLock,
} from "./attachment.ts";
import { refuseRunningElsewhere } from "./guests.ts";
import { type KnownDisk, readKnownDisk, writeKnownDisk } from "./known_disks.ts";
import { requireKind, type ResolvedVolume, resolveVolume } from "./resolve.ts";
import { isResyncBegun, resyncSize } from "./resync_size.ts";
import { isRenameStopped, takeBackStopped } from "./stopped_rename.ts";
import type { Storage } from "./storage.ts";
import { keepVerified } from "./verified_disks.ts";
import { diskWithoutArray, isNoAnswer } from "./without_array.ts";

/** What says that the array could not be asked, not that it said no. */
const API_AWAY: readonly ErrorCode[] = ["unreachable", "rate-limited", "timeout"];

/** Activates a volume. */
export async function activate(storage: Storage, volume: VolumeRef): Promise<null> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const before = await readKnownDisk(storage, volume.zvol);
    const known = before !== undefined && isMeant(volume, before) ? before : undefined;
    // A name without number or uuid says nothing about which disk it means: only the array does.
    // And a former name of a reassigned volume may still have its link here: the daemon knows better, as a rule.
    const isTold = known !== undefined && volume.tag !== undefined &&
      storage.memory?.has(volume) !== false;
    if (isTold && await isActive(storage, volume, known)) {
      await keepWanted(storage, volume, known);
      return null;
    }
    const linked = await linkedIdentity(storage, volume);
    // Connecting and asking the array do not need each other.
    const isHeld = known !== undefined && linked !== undefined &&
      isSameDisk(linked, known.identity);
    const [{ disk, size, told }] = await Promise.all([
      currentDisk(storage, volume, isHeld ? known : undefined),
      storage.transport.connect(storage.deadline),
    ]);
    // What was held under the name and is another disk goes; so does the disk itself at a former number.
    const isOlder = before !== undefined &&
      !(isSameDisk(before.identity, disk.identity) && sameTag(before.tag, disk.tag));
    const { deadline } = storage;
    if (isOlder) await letGoOfKnown(storage, volume, before, deadline, told === undefined);
    if (linked !== undefined && !isSameDisk(linked, disk.identity)) {
      const other = { tag: tagOf(linked), identity: linked };
      await letGoOfKnown(storage, volume, other, deadline, told === undefined);
    }
    if (told !== undefined) await forgetOtherNames(storage, volume, disk.identity);
    if (told === undefined) await attachAsKnown(storage, volume, disk, size);
    else await attachDisk(storage, volume, disk, deadline, size);
    // Once it was found to be as the array says.
    if (told !== undefined) await keepVerified(storage, volume.zvol, told);
    return null;
  });
}

/**
 * Finds, verifies and links a disk as the array has just told it, and keeps what it told.
 *
 * @param size what the disk must have: what the array told, unless given.
 */
export async function attachDisk(
  storage: Storage,
  volume: Attachable,
  disk: KnownDisk,
  deadline: Deadline,
  size: WantedSize = disk.size,
): Promise<void> {
  // Before the paths: whoever cleans up after a failure must know what may be attached; and from now on
  // nobody who knew the disk by a former name takes it away.
  await withDiskLock(
    storage,
    disk.identity,
    deadline,
    () => writeKnownDisk(storage, attachName(volume), disk),
  );
  const attached = await attachAndLink(storage, volume, disk, size, deadline);
  storage.upkeep?.wanted(attachName(volume));
  storage.log.info(
    `"${attachName(volume)}" is ${attached.device}, ${attached.paths} path${
      attached.paths === 1 ? "" : "s"
    }, ` +
      `found at attempt ${attached.attempts} after ${attached.ms} ms`,
  );
}

/** Has what is active already stay so: without the daemon's ear by the age of what is kept of it. */
async function keepWanted(storage: Storage, volume: VolumeRef, known: KnownDisk): Promise<void> {
  if (storage.upkeep !== undefined) storage.upkeep.wanted(attachName(volume));
  else await writeKnownDisk(storage, attachName(volume), known);
}

/** Whether link, disk, live identity and size are all as they were last verified: no array call then. */
async function isActive(storage: Storage, volume: VolumeRef, known: KnownDisk): Promise<boolean> {
  const target = await readLinkTarget(storage.host, linkOf(storage, volume));
  if (target === undefined) return false;
  const disk = await storage.transport.attached(known.identity, known.size, true, storage.deadline);
  return disk !== undefined && disk.link === target;
}

/** What is to be attached. */
interface CurrentDisk {
  readonly disk: KnownDisk;
  readonly size: WantedSize;
  /** What the array has said just now; undefined when it was not asked. */
  readonly told: ResolvedVolume | undefined;
}

/**
 * The volume's disk as the array has it now; with the API away, as the array described it before.
 *
 * @param held what is attached here by the volume's link, which a reboot takes away: no less sure than a minute ago.
 */
async function currentDisk(
  storage: Storage,
  volume: VolumeRef,
  held: KnownDisk | undefined,
): Promise<CurrentDisk> {
  try {
    const away = await storage.arrayAway?.();
    if (away !== undefined) throw away;
    const told = await findUsable(storage, await storage.array(), volume);
    const { identity } = told.export;
    const size = told.zvol.volsize;
    return { disk: { tag: tagOf(identity), identity, size }, size, told };
  } catch (error) {
    const left = storage.deadline.leftMs() > 0;
    const isAway = error instanceof TnblockError && API_AWAY.includes(error.code);
    if (held !== undefined && isAway && left) {
      storage.log.warning(
        `the API does not answer (${error.message}); using the identity of "${volume.zvol}" that was last verified here`,
      );
      return withoutArray(held);
    }
    if (!isNoAnswer(error) || !left) throw error;
    requireKind(storage, volume);
    const { tag, identity, size } = await diskWithoutArray(storage, volume, error, "attach");
    return withoutArray({ tag, identity, size });
  }
}

/**
 * A disk that is not as it was known, or no more, does not come by waiting: the array that would export it is away.
 * The reason is told, in time for the caller.
 */
const WITHOUT_ARRAY_MS = 15_000;

async function attachAsKnown(
  storage: Storage,
  volume: VolumeRef,
  disk: KnownDisk,
  size: WantedSize,
): Promise<void> {
  const { host, deadline } = storage;
  const ms = Math.min(WITHOUT_ARRAY_MS, deadline.leftMs() * 0.75);
  try {
    await attachDisk(storage, volume, disk, new Deadline(host, ms), size);
  } catch (error) {
    throw withContext(
      error,
      `Cannot attach the volume "${volume.zvol}" as this node last knew it, while the API is away`,
    );
  }
}

/** Another node may have grown it since. */
function withoutArray(disk: KnownDisk): CurrentDisk {
  return { disk, size: { atLeast: disk.size }, told: undefined };
}

/** The volume with its export on: what an operation of ours that was stopped left off is set right. */
async function findUsable(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
): Promise<ResolvedVolume> {
  let found = await resolveVolume(storage, array, volume);
  if (isRenameStopped(storage, found, volume.zvol)) {
    found = await takeBackStopped(storage, array, found, volume.zvol);
  }
  if (isResyncBegun(found.zvol) && await isIdle(storage, volume, found)) {
    storage.deadline.check();
    await resyncSize(storage, array, found, storage.undoDeadline());
    return { ...found, export: { ...found.export, enabled: true } };
  }
  if (found.export.enabled) return found;
  throw new TnblockError(
    "config",
    `Cannot attach the volume "${volume.zvol}": its export is switched off on the array`,
    { hint: "Switch the extent or namespace on again in TrueNAS" },
  );
}

/** Whether the export can go off for a moment: nobody is known to use the disk, here or elsewhere. */
async function isIdle(
  storage: Storage,
  volume: VolumeRef,
  { export: found }: ResolvedVolume,
): Promise<boolean> {
  if (!found.enabled) return true;
  if ((await storage.transport.users(found.identity)).length > 0) return false;
  try {
    await refuseRunningElsewhere(storage, volume, "show the new size of");
    return true;
  } catch (error) {
    // The guest moves here: it has the size that it was started with.
    if (error instanceof TnblockError && error.code === "in-use") return false;
    throw error;
  }
}

/** An export that the array had off for a moment goes and comes here once more, and hardly ever twice. */
const ATTACH_TRIES = 3;

/**
 * Attaches the disk and links it; begins anew when it has gone or become another device meanwhile: what the
 * node saw first may have been the disk as it was before a rename, whose end it had not heard of yet.
 */
async function attachAndLink(
  storage: Storage,
  volume: Attachable,
  disk: KnownDisk,
  size: WantedSize,
  deadline: Deadline,
): Promise<AttachedDisk> {
  for (let attempt = 1;; attempt++) {
    const attached = await storage.transport.attach(disk.identity, size, deadline);
    const now = await linkDisk(storage, volume, disk, size, attached, deadline);
    if (now === true) return attached;
    const changed = `the disk changed from ${attached.device} to ${now} while it was being linked`;
    if (attempt === ATTACH_TRIES) {
      throw withContext(
        new TnblockError("host-fault", changed),
        `Cannot attach ${inWords(volume)}`,
      );
    }
    storage.log.info(`${inWords(volume)}: ${changed}, so it is attached anew`);
  }
}

/** Links the disk, then looks once more at what the link reaches: true, or what is there instead. */
async function linkDisk(
  storage: Storage,
  volume: Attachable,
  disk: KnownDisk,
  size: WantedSize,
  attached: AttachedDisk,
  deadline: Deadline,
): Promise<true | string> {
  const link = linkOf(storage, volume);
  await ensureLink(storage.host, link, attached.link);
  const { files } = storage.host;
  const [again, reached, expected] = await Promise.all([
    storage.transport.attached(disk.identity, size, false, deadline),
    files.status(link),
    files.status(attached.device),
  ]);
  // The link leads through a view of /dev of its own: compare what is reached, not how.
  const same = reached?.kind === "block" && reached.device === expected?.device &&
    reached.inode === expected?.inode;
  return same && again?.device === attached.device ? true : again?.device ?? "none";
}
