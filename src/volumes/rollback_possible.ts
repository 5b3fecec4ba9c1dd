/** Whether a volume can be rolled back to a snapshot: only to its newest, whoever took the newer ones. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { rightsHint } from "../truenas/needed_roles.ts";
import { mayCall, readPrivileges } from "../truenas/privileges.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { inWords } from "./attachment.ts";
import { refuseBase } from "./base.ts";
import { describeClones } from "./reading.ts";
import { type ResolvedVolume, resolveVolume } from "./resolve.ts";
import { isFence } from "./rollback_fence.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** What a rollback would start from. */
export interface RollbackView {
  readonly volume: ResolvedVolume;
  readonly snapshot: snapshots.Snapshot;
  /** All snapshots that are newer, oldest first, but for {@link fences}. */
  readonly newer: readonly snapshots.Snapshot[];
  /** Those that an earlier rollback left, see `rollback_fence.ts`: they bar no other one. */
  readonly fences: readonly snapshots.Snapshot[];
}

/**
 * Reads volume, snapshot and what is newer, afresh.
 *
 * @throws TnblockError `not-found` when there is no such snapshot, `unsupported` for a base.
 */
export async function viewRollback(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  name: string,
): Promise<RollbackView> {
  const path = zvolPath(storage, volume.zvol);
  const wait = storage.deadline.bounds();
  const [resolved, snapshot] = await Promise.all([
    resolveVolume(storage, array, volume),
    snapshots.read(array, path, name, wait),
  ]);
  refuseBase(volume, "roll back");
  if (snapshot === undefined) {
    const wanted = inWords({ ...volume, snapshot: name });
    throw new TnblockError("not-found", `Cannot roll back to ${wanted}: there is none`);
  }
  // By transaction group: times have whole seconds only.
  const above = (await snapshots.newerThan(array, path, snapshot.createTxg, wait))
    .filter((other) => other.createTxg > snapshot.createTxg);
  return {
    volume: resolved,
    snapshot,
    newer: above.filter((other) => !isFence(other)),
    fences: above.filter(isFence),
  };
}

/** The answer to PVE's question before a rollback. */
export interface RollbackAnswer {
  readonly possible: boolean;
  /** Names of the newer snapshots, oldest first. */
  readonly blockers: readonly string[];
  /** Absent when it is possible: the blockers, with the clones that hang on them. */
  readonly reason?: string;
}

/** Tells whether the volume can be rolled back to that snapshot, and what is in the way. */
export async function rollbackPossible(
  storage: Storage,
  volume: VolumeRef,
  name: string,
): Promise<RollbackAnswer> {
  const array = await storage.array();
  const view = await viewRollback(storage, array, volume, name);
  if (view.newer.length === 0) {
    await requireRight(storage, array, name);
    return { possible: true, blockers: [] };
  }
  return {
    possible: false,
    blockers: view.newer.map((snapshot) => snapshot.name),
    reason: await blockersInWords(storage, array, view),
  };
}

/**
 * On 25.04 only a full administrator may roll back: PVE is told before it stops and locks the guest.
 *
 * @throws TnblockError `denied`.
 */
async function requireRight(storage: Storage, array: Caller, name: string): Promise<void> {
  if (array.release.can.snapshots !== "zfs.snapshot") return;
  const method = "zfs.snapshot.rollback";
  const rights = await readPrivileges(array, storage.deadline.bounds()).catch(() => undefined);
  // A way that does not tell (REST) leaves it to the array to refuse.
  if (rights === undefined || mayCall(rights, method)) return;
  const hint = rightsHint(method);
  throw new TnblockError(
    "denied",
    `Cannot roll back to snapshot "${name}": the API key may not`,
    hint === undefined ? {} : { hint },
  );
}

/** The newer snapshots in words, each with its clones: those must go before it can. */
export async function blockersInWords(
  storage: Storage,
  array: Caller,
  { volume, newer }: RollbackView,
): Promise<string> {
  const path = volume.zvol.name;
  const all = newer.some((snapshot) => snapshot.clones === undefined)
    ? await zvols.clones(array, path, storage.deadline.bounds())
    : undefined;
  const shown = newer.slice(0, 10);
  const words = await Promise.all(shown.map(async (snapshot) => {
    const clones = all === undefined
      ? snapshot.clones ?? []
      : all.filter((one) => one.origin === `${path}@${snapshot.name}`).map((one) => one.name);
    const on = await describeClones(array, clones, storage.deadline);
    return on.length === 0 ? snapshot.name : `${snapshot.name} (on it: ${on.join(", ")})`;
  }));
  const more = newer.length - shown.length;
  return `newer snapshots exist: ${words.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
