/**
 * Freeing a volume, in two steps as PVE runs them: under the storage lock everything is checked and
 * the node lets go of the disk; after the lock the array's objects are removed, in writes that cannot
 * reach the target or subsystem. What is gone already is fine, at every step.
 */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import type { DiskIdentity, ExportLookup } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { isBusy, isNotFound } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { detachVolume, refuseUsers, withVolumeLock } from "./attachment.ts";
import { readKnownDisk } from "./known_disks.ts";
import { requireOurs, requireTag } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** What the first step verified, so that the second removes that and nothing else. */
const tokenSchema = v.object({
  v: v.literal(1),
  storage: v.string(),
  zvol: v.string(),
  /** Undefined when the zvol was gone and only rows are left. */
  made: v.nullable(v.object({ guid: v.nullable(v.string()), createdMs: v.number() })),
  /** Rows of the export that was seen; empty when there was none. */
  rows: v.array(v.number()),
});

type FreeToken = v.InferOutput<typeof tokenSchema>;

/**
 * Checks that the volume may go, and lets this node go of it.
 *
 * @returns the token for {@link finishFree}, or undefined when there is nothing left to free.
 * @throws TnblockError `in-use`, `has-dependents`, `volume-replaced`, `not-ours`: nothing was touched.
 */
export async function prepareFree(
  storage: Storage,
  volume: VolumeRef,
): Promise<string | undefined> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const array = await storage.array();
    const { zvol, found } = await lookAgain(storage, array, volume.zvol);
    if (zvol !== undefined) requireOurs(storage, zvol);
    const rows = rowsToRemove(volume, found);
    if (zvol === undefined && rows.length === 0) {
      await letGo(storage, volume, undefined);
      return undefined;
    }
    if (zvol !== undefined) await refuseDependents(storage, array, zvol);
    await letGo(storage, volume, found.kind === "ours" ? found.export.identity : undefined);
    const token: FreeToken = {
      v: 1,
      storage: storage.settings.id,
      zvol: volume.zvol,
      made: zvol === undefined ? null : { guid: zvol.guid ?? null, createdMs: zvol.createdMs },
      rows: [...rows],
    };
    return Buffer.from(JSON.stringify(token)).toString("base64url");
  });
}

/** Removes what the token names: export first, then the zvol. Repeating it goes on where it stopped. */
export async function finishFree(storage: Storage, token: string): Promise<null> {
  const plan = readToken(storage, token);
  return await withVolumeLock(storage, plan.zvol, async () => {
    const array = await storage.array();
    const { zvol, found } = await lookAgain(storage, array, plan.zvol);
    // Made anew since: today's disk of that name is none of ours to free.
    if (zvol !== undefined && !isSame(plan, zvol)) return null;
    if (found.kind === "ours" && zvol !== undefined) {
      await refuseUsers(storage, { zvol: plan.zvol, tag: undefined }, found.export.identity);
    }
    storage.deadline.check();
    if (found.kind === "ours" || found.kind === "half") {
      const rows = found.kind === "ours" ? found.export.rows : found.rows;
      if (zvol !== undefined || rows.some((row) => plan.rows.includes(row))) {
        await storage.transport.removeExport(array, rows);
      }
    } else if (found.kind === "foreign") {
      throw foreignExport(plan.zvol, found.what);
    }
    if (zvol !== undefined) await destroyZvol(storage, array, zvol);
    return null;
  });
}

function readToken(storage: Storage, token: string): FreeToken {
  try {
    const text = Buffer.from(token, "base64url").toString();
    const parsed = v.safeParse(tokenSchema, JSON.parse(text));
    if (parsed.success && parsed.output.storage === storage.settings.id) return parsed.output;
  } catch {
    // Told below, like every other token that is not ours.
  }
  throw new TnblockError("invalid", "Cannot finish freeing: the token is none of this storage", {
    field: "args.token",
  });
}

/** Zvol and export, fresh and side by side: memory never decides destruction. */
async function lookAgain(
  storage: Storage,
  array: Caller,
  zvol: string,
): Promise<{ zvol: zvols.Zvol | undefined; found: ExportLookup }> {
  const path = zvolPath(storage, zvol);
  const [read, found] = await Promise.all([
    zvols.read(array, path, storage.deadline.bounds()),
    storage.transport.lookUp(array, path, storage.deadline),
  ]);
  return { zvol: read, found };
}

function rowsToRemove(volume: VolumeRef, found: ExportLookup): readonly number[] {
  if (found.kind === "none") return [];
  if (found.kind === "foreign") throw foreignExport(volume.zvol, found.what);
  if (found.kind === "half") return found.rows;
  requireTag(volume, found.export);
  return found.export.rows;
}

function foreignExport(zvol: string, what: string): TnblockError {
  return new TnblockError(
    "in-use",
    `Cannot free the volume "${zvol}": it is also exported as ${what}`,
    {
      hint: "Remove that export in TrueNAS first; tnblock leaves it alone",
    },
  );
}

/** Refuses while clones hang on the zvol's snapshots: the array would fail half-way, after the export is gone. */
async function refuseDependents(storage: Storage, array: Caller, zvol: zvols.Zvol): Promise<void> {
  const wait = storage.deadline.bounds();
  const names = await snapshots.names(array, zvol.name, wait);
  if (names.length === 0) return;
  const clones = await zvols.clones(array, zvol.name, wait);
  if (clones.length === 0) return;
  const list = clones.slice(0, 10).map((clone) => clone.name).join(", ");
  throw new TnblockError(
    "has-dependents",
    `Cannot free "${zvol.name}": ${clones.length} clone${
      clones.length === 1 ? " hangs" : "s hang"
    } on it: ${list}`,
    {
      hint: "Free the clones first",
    },
  );
}

/** Makes this node forget the disk, and what it knew under the name before; refuses while either is used. */
async function letGo(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity | undefined,
): Promise<void> {
  const known = (await readKnownDisk(storage, volume.zvol))?.identity;
  const disks = [identity, known].filter((disk) => disk !== undefined);
  for (const disk of disks) await refuseUsers(storage, volume, disk);
  for (const disk of disks) await detachVolume(storage, volume, disk);
}

function isSame(plan: FreeToken, zvol: zvols.Zvol): boolean {
  if (plan.made === null) return false;
  return plan.made.guid === (zvol.guid ?? null) && plan.made.createdMs === zvol.createdMs;
}

/** Destroys the zvol with its snapshots; "busy" is tried again until the worker's time is over. */
async function destroyZvol(storage: Storage, array: Caller, zvol: zvols.Zvol): Promise<void> {
  const names = await snapshots.names(array, zvol.name, storage.deadline.bounds());
  if (names.length > 0) {
    await refuseDependents(storage, array, zvol);
    if (array.release.can.recursiveDestroysClones) {
      await deleteSnapshots(array, zvol.name, names);
    }
  }
  for (let attempt = 1;; attempt++) {
    try {
      return await zvols.destroy(array, zvol.name, { withSnapshots: names.length > 0 });
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isBusy(error) || storage.deadline.leftMs() < 1000) throw error;
      const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length - 1)] ?? 250;
      await storage.host.wait(pause * 4, storage.deadline.signal);
    }
  }
}

/** Snapshots in one call: a request has at most 64 KiB, and a name up to 256 bytes. */
const SNAPSHOTS_A_CALL = 150;

/** On 26 the snapshots go first: a recursive destroy there takes clones and holds with it. */
async function deleteSnapshots(
  array: Caller,
  zvol: string,
  names: readonly string[],
): Promise<void> {
  for (let at = 0; at < names.length; at += SNAPSHOTS_A_CALL) {
    const [left] = await snapshots.removeSome(array, zvol, names.slice(at, at + SNAPSHOTS_A_CALL));
    if (left === undefined) continue;
    throw new TnblockError(
      "has-dependents",
      `Cannot free "${zvol}": snapshot "${left.name}" stays: ${left.error}`,
      { hint: "Release its holds and free its clones, then try again" },
    );
  }
}
