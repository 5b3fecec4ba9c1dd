/**
 * The one call that rolls back, and what is done when its answer is lost: nothing on the array tells whether it was
 * done, or when it will have been.
 */
import { TnblockError, withContext } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn, hasDependents, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import type * as zvols from "../truenas/zvols.ts";
import { isFence, isNeeded, lowerFences, raiseFence } from "./rollback_fence.ts";
import type { RollbackView } from "./rollback_possible.ts";
import type { Storage } from "./storage.ts";

/** How often a rollback whose answer was lost is asked for again. */
const TRIES = 3;

/** What a failed rollback leaves (`snapshot_rollback` in PVE/AbstractConfig.pm). */
const LOCKED = "Proxmox VE keeps it locked until qm unlock or pct unlock";

/** What is known of the calls of a rollback. */
export interface Told {
  /** Whether the array may be at one of them after the last was answered. */
  isLost: boolean;
  /** Whether such calls find a fence. */
  isKeptOut: boolean;
}

/**
 * Rolls back so that it stays at that: a call whose answer was lost may come much later, under the guest that was
 * started since. So a snapshot is put on top, and earlier calls can do nothing any more.
 *
 * @returns the failure when it is not known whether it was done, or may be done once more.
 */
export async function rollBackForGood(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  view: RollbackView,
  refuseUse: () => Promise<void>,
  told: Told,
): Promise<Error | undefined> {
  const { zvol } = view.volume;
  const fence = async () => {
    if (!told.isLost) return undefined;
    try {
      await raiseFence(storage, await storage.array(), volume, zvol);
      told.isKeptOut = true;
      return undefined;
    } catch (error) {
      const failure = mayComeAgain(zvol, error);
      storage.log.warning(failure.message);
      return failure;
    }
  };
  let doubt: Error | undefined;
  try {
    told.isLost ||= view.fences.some((one) => isNeeded(one, storage.host.now()));
    await lowerFences(storage, array, zvol.name, view.fences);
    try {
      doubt = await rollBackOnArray(storage, array, view, refuseUse, told);
    } catch (error) {
      // Another node's recovery may have put one there since the look.
      const newer = hasDependents(error)
        ? await snapshots.newerThan(array, zvol.name, view.snapshot.createTxg)
        : [];
      const above = newer.filter(({ createTxg }) => createTxg > view.snapshot.createTxg);
      if (above.length === 0 || !above.every(isFence)) throw error;
      told.isLost = true;
      await refuseUse();
      await lowerFences(storage, array, zvol.name, above);
      doubt = await rollBackOnArray(storage, array, view, refuseUse, told);
    }
  } catch (error) {
    await fence();
    throw error;
  }
  return await fence() ?? doubt;
}

/**
 * The one write, never forced: what is newer by now makes the array refuse. After a lost answer it is
 * repeated while that destroys nothing which the first one would not have: PVE waits for us and keeps the
 * guest locked, nobody uses the disk, and the snapshot is the one that was looked at. Once the caller has
 * gone the guest may have been started, on any node.
 *
 * @param refuseUse throws while anybody is known to use the disk.
 * @returns the failure when it is not known whether it was done.
 */
async function rollBackOnArray(
  storage: Storage,
  array: Caller,
  { volume, snapshot }: RollbackView,
  refuseUse: () => Promise<void>,
  told: Told,
): Promise<Error | undefined> {
  const path = volume.zvol.name;
  for (let attempt = 1;; attempt++) {
    try {
      await snapshots.rollback(array, path, snapshot.name);
      return undefined;
    } catch (error) {
      if (isUnknownOutcome(error)) told.isLost = true;
      const isAgain = attempt > 1 && error instanceof Error;
      // The first one may have been done before whatever refuses this one.
      if (hasDependents(error) || !isLost(error)) {
        if (isAgain) return inDoubt(volume.zvol, error);
        throw error;
      }
      if (attempt >= TRIES || storage.deadline.leftMs() === 0) return inDoubt(volume.zvol, error);
      const now = await mayRepeat(array, path, snapshot.name, refuseUse);
      if (now?.createTxg !== snapshot.createTxg) return inDoubt(volume.zvol, error);
      if (storage.deadline.leftMs() === 0) return inDoubt(volume.zvol, error);
      storage.log.info(`the array's answer was lost; rolling "${path}" back once more`);
    }
  }
}

/** The snapshot as it is now; undefined when it is gone, or somebody uses the disk by now. */
async function mayRepeat(
  array: Caller,
  path: string,
  name: string,
  refuseUse: () => Promise<void>,
): Promise<snapshots.Snapshot | undefined> {
  try {
    await refuseUse();
    return await snapshots.read(array, path, name);
  } catch {
    return undefined;
  }
}

/** Nothing on the array tells whether it was rolled back; asking again does no harm before the guest runs. */
function inDoubt(zvol: zvols.Zvol, cause: unknown): TnblockError {
  const inner = withContext(cause, `Cannot tell whether "${zvol.name}" was rolled back`);
  return new TnblockError(inner.code, inner.message, {
    cause,
    hint: `Roll back once more before the guest is started; ${LOCKED}`,
  });
}

/** Nothing keeps an earlier call from being done under a guest that is started now. */
function mayComeAgain(zvol: zvols.Zvol, cause: unknown): TnblockError {
  const inner = withContext(
    cause,
    `Cannot keep the array from rolling "${zvol.name}" back once more`,
  );
  return new TnblockError(inner.code, inner.message, {
    cause,
    hint: `Leave the guest stopped for five minutes, then roll back once more; ${LOCKED}`,
  });
}

function isLost(error: unknown): boolean {
  return isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
}
