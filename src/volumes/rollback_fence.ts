/**
 * What keeps a rollback whose answer was lost from being done later. The array goes on with such a call, and has
 * nothing that tells when it is over: on 25.x it runs in one of five processes, from 26 on in a thread, it is no job,
 * takes no lock and is in no list (`middlewared/plugins/zfs_/snapshot_actions.py`, `plugins/zfs/snapshot_rollback_impl.py`).
 * But ZFS rolls back to the newest snapshot only, which it checks in the very step that rolls back: a snapshot on
 * top makes every earlier call fail. It stays until those are over, and is then removed by recovery, or
 * by the next rollback.
 */
import type { VolumeRef } from "../common/volume.ts";
import { type Caller, LONGEST_WRITE_MS } from "../truenas/caller.ts";
import { arrayErrorIn, isAbsent, isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import type * as zvols from "../truenas/zvols.ts";
import { SKEW_MS } from "./doomed_names.ts";
import { dropPromise, keepPromise, madeOf } from "./journaled.ts";
import { isOfOperation } from "./ownership.ts";
import type { Storage } from "./storage.ts";

const PREFIX = "tnblock-rolled-back-";

/** User property: until when it is needed, in milliseconds since the epoch by the clock of the node that made it. */
const UNTIL = "tnblock:fence-until";

/** How often it is asked for while answers are lost. */
const TRIES = 3;

/** Whether a snapshot is such a fence: none of anybody's data depends on it. */
export function isFence(
  { name, userProperties }: Pick<snapshots.Snapshot, "name" | "userProperties">,
): boolean {
  return name.startsWith(PREFIX) && userProperties[UNTIL] !== undefined;
}

/** Whether the array may still be at a call that the fence keeps out. */
export function isNeeded(
  { userProperties }: Pick<snapshots.Snapshot, "userProperties">,
  nowMs: number,
): boolean {
  const left = Number(userProperties[UNTIL]) - nowMs;
  // By the clock of another node, as a rule; one that was set back by more than that must not count.
  return left > -SKEW_MS && left <= LONGEST_WRITE_MS + SKEW_MS;
}

/** Whether it is the one that an operation put there. */
export function isFenceOf(snapshot: snapshots.Snapshot, operation: string): boolean {
  return isFence(snapshot) && isOfOperation(snapshot, operation);
}

/**
 * Puts a fence on a volume: from its return on no rollback that was asked for before comes any more. Its removal,
 * which recovery begins when all earlier calls are over, is in the journal before it is there: this process may be
 * killed.
 *
 * @throws ArrayError when it is not known to be there.
 */
export async function raiseFence(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  zvol: zvols.Zvol,
): Promise<void> {
  const { host, log } = storage;
  const operation = host.randomUuid();
  const path = zvol.name;
  const name = `${PREFIX}${operation.slice(0, 8)}`;
  const properties = {
    "tnblock:op": operation,
    [UNTIL]: String(host.now() + LONGEST_WRITE_MS),
  };
  const leaveToRecovery = () =>
    keepPromise(storage, operation, volume.zvol, {
      op: "delete_snapshot",
      tag: volume.tag,
      path,
      name,
      guid: null,
      createTxg: 0,
      of: madeOf(zvol),
    });
  await leaveToRecovery();
  for (let attempt = 1;; attempt++) {
    try {
      await snapshots.create(array, path, name, properties);
      break;
    } catch (error) {
      // Nobody else takes one of that name.
      if (attempt > 1 && isExists(error)) break;
      const isLost = isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
      if (!isLost && attempt === 1) await dropPromise(storage, operation);
      if (!isLost || attempt >= TRIES) throw error;
    }
    // The one before may have been closed meanwhile: it took long.
    await leaveToRecovery();
  }
  log.info(
    `snapshot "${path}@${name}" keeps the array from rolling back once more; it goes in some minutes`,
  );
}

/** Whether a fence is there that is needed for some time yet. */
export async function hasFence(
  { host, deadline }: Storage,
  array: Caller,
  path: string,
): Promise<boolean> {
  const names = await snapshots.names(array, path, deadline.bounds());
  for (const name of names.filter((name) => name.startsWith(PREFIX))) {
    const found = await snapshots.read(array, path, name, deadline.bounds());
    if (found !== undefined && isFence(found) && isNeeded(found, host.now())) return true;
  }
  return false;
}

/** Takes a zvol's fences away for another rollback; while one of them {@link isNeeded} a new one must follow. */
export async function lowerFences(
  storage: Storage,
  array: Caller,
  path: string,
  fences: readonly snapshots.Snapshot[],
): Promise<void> {
  for (const { name, userProperties } of fences) {
    try {
      await snapshots.remove(array, path, name);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    const operation = userProperties["tnblock:op"];
    // That of another node is not here, and finds nothing to do there.
    if (operation !== undefined) await dropPromise(storage, operation);
  }
}
