/**
 * Making a snapshot a block device of this node: a hidden clone is found or made, exported and attached.
 * The array is needed each time: only it can tell that the name still means that snapshot.
 *
 * The device can be written to, and what is written goes with the clone. It is not made read-only:
 * creating an extent sets the zvol's `readonly` anew (`middlewared/plugins/iscsi_/extents.py`), and nvmet
 * refuses to open a zvol that has it.
 */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { tagOf, type VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { attachDisk } from "./activate.ts";
import {
  attachName,
  detachVolume,
  inWords,
  isSameDisk,
  letGoOfKnown,
  refuseUsers,
  withVolumeLock,
} from "./attachment.ts";
import { refuseDoomed } from "./doomed_names.ts";
import { readKnownDisk } from "./known_disks.ts";
import { makeExported } from "./make_exported.ts";
import { MarkedClone } from "./marked_clone.ts";
import { journaled, supersede } from "./journaled.ts";
import { ownReading } from "./own_reading.ts";
import { readingMarks, readingName, readingOf } from "./reading.ts";
import { removeReading } from "./remove_reading.ts";
import { resolveVolume } from "./resolve.ts";
import { type Storage, undoing, zvolPath } from "./storage.ts";
import { asArrayTold } from "./try_names.ts";

/** A snapshot of a volume. */
type SnapshotRef = VolumeRef & { readonly snapshot: string };

/**
 * Activates a snapshot for reading.
 *
 * @throws TnblockError `not-found` when there is no such snapshot, `denied` on 25.04 without a full
 *   administrator's key.
 */
export async function activateReading(
  storage: Storage,
  volume: VolumeRef,
  snapshot: string,
): Promise<null> {
  const wanted = { zvol: volume.zvol, tag: volume.tag, snapshot };
  return await withVolumeLock(storage, attachName(wanted), async () => {
    const { deadline, transport } = storage;
    const array = await storage.array();
    const clone = zvolPath(storage, readingName(storage, volume.zvol, snapshot));
    const path = zvolPath(storage, volume.zvol);
    const [{ zvol, export: source }, atName, existing, exported] = await Promise.all([
      resolveVolume(storage, array, volume),
      snapshots.read(array, path, snapshot, deadline.bounds()),
      zvols.read(array, clone, deadline.bounds()),
      transport.lookUp(array, clone, deadline),
      transport.connect(deadline),
    ]);
    // Its path is another one when a rename of it stopped half-way.
    const found = zvol.name === path
      ? atName
      : await snapshots.read(array, zvol.name, snapshot, deadline.bounds());
    const of = `${zvol.name}@${snapshot}`;
    if (found === undefined) {
      throw new TnblockError("not-found", `Cannot read ${inWords(wanted)}: there is none`);
    }
    const reusable = existing !== undefined &&
      await isReusable(storage, array, wanted, of, existing);
    await journaled(storage, (storage) =>
      undoing(storage, async (onFailure) => {
        const made = reusable && exported.kind === "ours" && exported.export.enabled
          ? exported.export
          : await makeClone(storage, array, wanted, of, reusable, source.sectorSize);
        if (!reusable) onFailure(`the clone "${clone}"`, () => takeBack(storage, wanted, made));
        await attach(storage, array, wanted, made);
        // Nobody waits for the answer any more: then nobody will let go of it either.
        deadline.check();
      }));
    if (reusable) {
      await supersede(storage, readingName(storage, volume.zvol, snapshot), ["reading"]);
    }
    return null;
  });
}

/**
 * Whether the clone that is there is this node's clone of this very snapshot: while it hangs there that
 * snapshot cannot be destroyed and made anew, so its origin's name is enough. One of another is removed;
 * one that has no marks yet gets them.
 *
 * @param of full path of the snapshot.
 */
async function isReusable(
  storage: Storage,
  array: Caller,
  wanted: SnapshotRef,
  of: string,
  existing: zvols.Zvol,
): Promise<boolean> {
  const reading = readingOf(existing);
  if (ownReading(storage, array, existing, { ...wanted, of }) === undefined) {
    throw new TnblockError(
      "not-ours",
      `Cannot read ${
        inWords(wanted)
      }: "${existing.name}" is on the array, but was not made for that`,
      { hint: "Rename or delete it in TrueNAS if nobody needs it; tnblock leaves it alone" },
    );
  }
  const isOfIt = existing.origin === of;
  if (isOfIt && reading === undefined) {
    storage.deadline.check();
    storage.log.info(`"${existing.name}" was made for this, but not marked: going on with that`);
    const { zvol, snapshot } = wanted;
    const marks = readingMarks(storage, zvol, snapshot, storage.host.randomUuid());
    await zvols.setUserProperties(array, existing.name, marks);
    return true;
  }
  if (isOfIt && reading?.of === `${zvolPath(storage, wanted.zvol)}@${wanted.snapshot}`) return true;
  storage.log.warning(
    `"${existing.name}" is a clone of "${
      existing.origin ?? "nothing"
    }", not of "${of}": making it anew`,
  );
  await letGoOfOlder(storage, wanted);
  await removeReading(storage, array, existing, storage.undoDeadline());
  return false;
}

/**
 * Makes and exports the clone; with `isMade` only the export.
 *
 * @param sectorSize bytes: that of the volume, in which what is on it counts.
 */
async function makeClone(
  storage: Storage,
  array: Caller,
  wanted: SnapshotRef,
  of: string,
  isMade: boolean,
  sectorSize: number,
): Promise<VolumeExport> {
  const { transport, deadline, log } = storage;
  const name = readingName(storage, wanted.zvol, wanted.snapshot);
  await refuseDoomed(storage, name, "read the snapshot by the clone");
  const groundwork = { ...await transport.survey(array, deadline), sectorSize };
  groundwork.warnings.forEach((text) => log.warning(text));
  if (groundwork.full !== undefined) throw groundwork.full;
  deadline.check();
  if (isMade) {
    const path = zvolPath(storage, name);
    const isNew = () => Promise.resolve(false);
    return await transport.createExport(array, path, groundwork, isNew, deadline);
  }
  const operation = storage.host.randomUuid();
  const clone = new MarkedClone(storage, {
    snapshot: of,
    path: zvolPath(storage, name),
    operation,
    marks: { userProperties: readingMarks(storage, wanted.zvol, wanted.snapshot, operation) },
  });
  return await makeExported(storage, array, {
    zvol: name,
    operation,
    groundwork,
    details: {
      op: "reading",
      operation,
      origin: of,
      of: { zvol: wanted.zvol, snapshot: wanted.snapshot },
    },
    make: () => clone.make(array),
    isUnmarked: (found) => clone.isUnmarked(found),
  }).catch(asArrayTold);
}

async function attach(
  storage: Storage,
  array: Caller,
  wanted: SnapshotRef,
  made: VolumeExport,
): Promise<void> {
  const { identity } = made;
  const before = await readKnownDisk(storage, attachName(wanted));
  if (before !== undefined && !isSameDisk(before.identity, identity)) {
    await letGoOfOlder(storage, wanted);
  }
  const zvol = await zvols.read(array, made.zvol, storage.deadline.bounds());
  if (zvol === undefined) {
    throw new TnblockError(
      "array-fault",
      `Cannot read ${inWords(wanted)}: its clone "${made.zvol}" is gone again`,
    );
  }
  const disk = { tag: tagOf(identity), identity, size: zvol.volsize };
  await attachDisk(storage, wanted, disk, storage.deadline);
}

/** Lets go of the disk that this node knew under the snapshot's name; refuses while it is used. */
async function letGoOfOlder(storage: Storage, wanted: SnapshotRef): Promise<void> {
  const known = await readKnownDisk(storage, attachName(wanted));
  if (known === undefined) return;
  await letGoOfKnown(storage, { ...wanted, tag: undefined }, known);
}

async function takeBack(
  storage: Storage,
  wanted: SnapshotRef,
  made: VolumeExport,
): Promise<boolean> {
  const deadline = storage.undoDeadline();
  await refuseUsers(storage, wanted, made.identity);
  await detachVolume(storage, wanted, made.identity, deadline);
  const array = await storage.array();
  const zvol = await zvols.read(array, made.zvol, deadline.bounds());
  if (zvol === undefined || readingOf(zvol)?.node !== storage.node) return false;
  await removeReading(storage, array, zvol, deadline);
  return true;
}
