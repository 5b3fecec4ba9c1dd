/**
 * Deleting a snapshot: never with what hangs on it, and never "later". This node's own clone for reading
 * it goes first: after the backup of a container no other sign comes that it is done with.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { hasDependents, isAbsent, isBusy, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { attachName, inWords } from "./attachment.ts";
import { refuseBase } from "./base.ts";
import { BASE_SNAPSHOT } from "./create_base.ts";
import { DestroyCalls } from "./destroy_calls.ts";
import { doomedName } from "./doomed_names.ts";
import { journaledAlone, refuseStoppedRename } from "./journaled.ts";
import { look } from "./look.ts";
import { ownReading } from "./own_reading.ts";
import { describeClones, readingName } from "./reading.ts";
import { letGoOfReading } from "./remove_reading.ts";
import { requireKind, requireOurs, requireTag, resolveVolume } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** Least time that is kept for another try, in ms. */
const LAST_TRY_MS = 1000;

/** How often a deletion whose answer was lost is looked at and asked for again. */
const TRIES = 3;

/** The snapshot as a message names it. */
interface Wanted extends VolumeRef {
  readonly snapshot: string;
}

/**
 * Deletes a snapshot of a volume. One that is not there, be it for lack of the whole zvol, is a success:
 * PVE deletes half-made ones too, and a guest whose disk is gone must be able to forget its snapshots.
 *
 * @param isMeant whether the snapshot of that name is the one that is to go.
 * @throws TnblockError `has-dependents` that names clones, holds, and nodes that read it; `in-use` while
 *   this node reads it; `unsupported` for what makes a base of a base; `volume-replaced`, `not-ours`, `busy`.
 */
export async function deleteSnapshot(
  storage: Storage,
  volume: VolumeRef,
  name: string,
  isMeant: (snapshot: snapshots.Snapshot) => boolean = () => true,
): Promise<null> {
  requireKind(storage, volume);
  const wanted = { zvol: volume.zvol, tag: volume.tag, snapshot: name };
  return await journaledAlone(storage, attachName(wanted), async (storage, entry) => {
    const { deadline } = storage;
    const array = await storage.array();
    const ownPath = zvolPath(storage, readingName(storage, volume.zvol, name));
    const [{ zvol, found }, atName, own] = await Promise.all([
      look(storage, array, volume.zvol, deadline),
      snapshots.read(array, zvolPath(storage, volume.zvol), name, deadline.bounds()),
      zvols.read(array, ownPath, deadline.bounds()),
    ]);
    // Its path is another one when a rename of it stopped half-way.
    const path = zvol?.name ?? zvolPath(storage, volume.zvol);
    const snapshot = path === zvolPath(storage, volume.zvol)
      ? atName
      : await snapshots.read(array, path, name, deadline.bounds());
    if (zvol !== undefined) {
      requireOurs(storage, zvol);
      if (found.kind === "ours") requireTag(volume, found.export);
      // Says why nothing shows what the name means.
      else await resolveVolume(storage, array, volume);
    }
    if (zvol === undefined) {
      await refuseStoppedRename(storage, volume.zvol, "delete a snapshot of");
    }
    if (zvol === undefined || snapshot === undefined || !isMeant(snapshot)) {
      storage.log.info(`${inWords(wanted)} is gone already`);
      return null;
    }
    if (name === BASE_SNAPSHOT) refuseBase(volume, `delete the snapshot "${name}" of`);
    const of = `${path}@${name}`;
    const reading = own?.origin === of &&
        ownReading(storage, array, own, { ...wanted, of }) !== undefined
      ? own
      : undefined;
    await refuseDependents(array, path, wanted, snapshot, reading, deadline);
    deadline.check();
    await entry.begin(volume.zvol, {
      op: "delete_snapshot",
      tag: volume.tag,
      path,
      name,
      guid: snapshot.guid ?? null,
      createTxg: snapshot.createTxg,
    });
    if (reading !== undefined) {
      await letGoOfReading(storage, array, wanted, reading, storage.undoDeadline());
    }
    deadline.goesOn(
      `the array was told to delete ${inWords(wanted)}`,
      "Delete it once more to be sure: one that is gone is a success",
    );
    await remove(storage, array, path, wanted, snapshot.guid);
    return null;
  });
}

/**
 * Refuses for what is known to hang on the snapshot. Clones are known on 25.x; 26 tells them only by a walk
 * through the pool, which is taken when something would be removed before the array can refuse by itself.
 */
async function refuseDependents(
  array: Caller,
  path: string,
  wanted: Wanted,
  snapshot: snapshots.Snapshot,
  reading: zvols.Zvol | undefined,
  deadline: Deadline,
): Promise<void> {
  const clones = snapshot.clones ??
    (reading === undefined ? [] : await clonesOf(array, path, wanted.snapshot, deadline));
  const others = clones.filter((clone) => clone !== reading?.name);
  const what = [
    ...await describeClones(array, others, deadline),
    ...snapshot.holds.map((tag) => `the hold "${tag}"`),
  ];
  if (what.length > 0) throw dependents(wanted, what);
}

async function clonesOf(
  array: Caller,
  path: string,
  name: string,
  deadline: Deadline,
): Promise<string[]> {
  const all = await zvols.clones(array, path, deadline.bounds());
  return all.filter((clone) => clone.origin === `${path}@${name}`).map((clone) => clone.name);
}

function dependents(wanted: Wanted, what: readonly string[], cause?: unknown): TnblockError {
  const list = what.slice(0, 10).join(", ") +
    (what.length > 10 ? ` and ${what.length - 10} more` : "");
  return new TnblockError(
    "has-dependents",
    `Cannot delete ${inWords(wanted)}: in its way: ${list}`,
    {
      ...(cause === undefined ? {} : { cause }),
      hint:
        "Free the clones, release the holds in TrueNAS, and wait until the named nodes have read to the end",
    },
  );
}

/**
 * Deletes it, and sees that it is gone. "Busy" says that nothing was done: it is tried again until the
 * caller's deadline. After a lost answer the deletion is finished, whoever still waits; while such a call may
 * come yet nobody takes a snapshot of that name (`doomed_names.ts`).
 */
async function remove(
  storage: Storage,
  array: Caller,
  path: string,
  wanted: Wanted,
  guid: string | undefined,
): Promise<void> {
  const { deadline, host } = storage;
  const calls = new DestroyCalls(storage, doomedName(path, wanted.snapshot));
  const isGone = async () => {
    const left = await snapshots.read(array, path, wanted.snapshot);
    if (left === undefined) await calls.seenDone();
    // Another of that name was taken since: it is none of ours to delete.
    return left === undefined || left.guid !== guid;
  };
  let lost = 0;
  for (let attempt = 1;; attempt++) {
    let failure: unknown;
    try {
      await calls.send(() => snapshots.remove(array, path, wanted.snapshot));
      // 26 has been seen to answer true without having done it.
      if (!array.release.can.recursiveDestroysClones) return;
    } catch (error) {
      if (isAbsent(error)) return;
      if (hasDependents(error)) throw await asDependents(array, path, wanted, error, deadline);
      failure = error;
      if (isUnknownOutcome(error) && ++lost >= TRIES) throw error;
      if (!isUnknownOutcome(error) && !isBusy(error)) throw error;
      if (await calls.isSeenDone(storage.undoDeadline(), isGone)) return;
    }
    if (await isGone()) return;
    if (failure === undefined || isBusy(failure)) {
      if (deadline.leftMs() < LAST_TRY_MS) {
        throw new TnblockError(
          "busy",
          `Cannot delete ${inWords(wanted)}: the array holds it, and did so until the deadline`,
          {
            cause: failure,
            hint: "Look what uses it in TrueNAS (replication, a clone), and try again",
          },
        );
      }
      const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length - 1)] ?? 250;
      await host.wait(pause * 4, deadline.signal);
    }
  }
}

/** The array's refusal in our words: it names clones and holds, but not who they are. */
async function asDependents(
  array: Caller,
  path: string,
  wanted: Wanted,
  refusal: unknown,
  deadline: Deadline,
): Promise<unknown> {
  const [clones, snapshot] = await Promise.all([
    clonesOf(array, path, wanted.snapshot, deadline),
    snapshots.read(array, path, wanted.snapshot, deadline.bounds()),
  ]);
  const what = [
    ...await describeClones(array, clones, deadline),
    ...snapshot?.holds.map((tag) => `the hold "${tag}"`) ?? [],
  ];
  return what.length === 0 ? refusal : dependents(wanted, what, refusal);
}
