/**
 * Taking a snapshot: one round of reads and one write, because the guest may stand still meanwhile.
 * PVE deletes no snapshot of which it was told that it failed, so one that nobody heard of is taken back.
 */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { isAbsent, isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import { refuseBase } from "./base.ts";
import { DestroyCalls } from "./destroy_calls.ts";
import { doomedName, refuseDoomed } from "./doomed_names.ts";
import { journaled } from "./journaled.ts";
import { isOfOperation } from "./ownership.ts";
import { refuseLongSnapshot } from "./path_length.ts";
import { resolveVolume } from "./resolve.ts";
import { type Storage, undoing } from "./storage.ts";

/** A snapshot that was taken, so that it can be told from a later one of its name. */
export interface TakenSnapshot {
  /** Full path: not that of the volume's name while its rename has stopped half-way. */
  readonly path: string;
  readonly zvol: string;
  readonly name: string;
  /** What it carries as `tnblock:op`. */
  readonly operation: string;
}

/** How often it is asked for while answers are lost. */
const TRIES = 3;

/**
 * Takes a snapshot of a volume.
 *
 * @throws TnblockError `exists` when there is one of that name, whoever made it; `unsupported` for a base.
 */
export async function takeSnapshot(
  storage: Storage,
  volume: VolumeRef,
  name: string,
): Promise<TakenSnapshot> {
  const array = await storage.array();
  const { zvol } = await resolveVolume(storage, array, volume);
  refuseBase(volume, "take a snapshot of");
  refuseLongSnapshot(zvol.name, name);
  await refuseDoomed(storage, doomedName(zvol.name, name), "take the snapshot");
  storage.deadline.check();
  const operation = storage.host.randomUuid();
  const taken = { path: zvol.name, zvol: volume.zvol, name, operation };
  return await journaled(storage, async (storage, entry) => {
    await entry.begin(volume.zvol, { op: "snapshot", operation, path: zvol.name, name });
    return await undoing(storage, async (onFailure) => {
      onFailure(
        `snapshot "${zvol.name}@${name}"`,
        () => takeBackSnapshot(storage, taken),
      );
      await create(storage, array, taken);
      // Nobody waits for the answer any more: the snapshot would only bar the way back to older ones.
      storage.deadline.check();
      return taken;
    });
  });
}

/** Removes a snapshot that nobody was told of; false when it is not there, or another one is. */
export async function takeBackSnapshot(storage: Storage, taken: TakenSnapshot): Promise<boolean> {
  const array = await storage.array();
  const { path } = taken;
  const found = await snapshots.read(array, path, taken.name);
  if (found === undefined || !isOfOperation(found, taken.operation)) return false;
  const calls = new DestroyCalls(storage, doomedName(path, taken.name));
  try {
    await calls.send(() => snapshots.remove(array, path, taken.name));
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
  return true;
}

/**
 * Creates it. After a lost answer the request is repeated: the array takes one snapshot of a name, and
 * the token on it says whether this operation did.
 */
async function create(storage: Storage, array: Caller, taken: TakenSnapshot): Promise<void> {
  const { path, name, operation } = taken;
  for (let attempt = 1;; attempt++) {
    try {
      return await snapshots.create(array, path, name, { "tnblock:op": operation });
    } catch (error) {
      const isLost = isUnknownOutcome(error);
      if (!isLost && !isExists(error)) throw error;
      const found = isLost || attempt > 1 ? await snapshots.read(array, path, name) : undefined;
      if (found !== undefined && isOfOperation(found, operation)) {
        storage.log.info(`the array's answer was lost, but "${path}@${name}" was taken`);
        return;
      }
      if (isExists(error) || found !== undefined) throw exists(taken, error);
      if (attempt >= TRIES || storage.deadline.leftMs() === 0) throw error;
    }
  }
}

function exists({ zvol, name }: TakenSnapshot, cause: unknown): TnblockError {
  return new TnblockError(
    "exists",
    `Cannot take the snapshot "${name}" of the volume "${zvol}": there is one of that name`,
    { cause, hint: "Choose another name, or delete that snapshot first" },
  );
}
