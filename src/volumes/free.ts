/**
 * Freeing a volume, in two steps as PVE runs them: under the storage lock everything is checked and
 * the node lets go of the disk; after the lock the array's objects are removed, in writes that cannot
 * reach the target or subsystem. What is gone already is fine, at every step.
 */
import { Buffer } from "node:buffer";
import * as v from "valibot";
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { DiskIdentity, ExportLookup, ExportRow } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import type * as zvols from "../truenas/zvols.ts";
import { detachVolume, refuseUsers, withVolumeLock } from "./attachment.ts";
import { destroyZvol, refuseDependents } from "./destroy.ts";
import { readKnownDisk } from "./known_disks.ts";
import { look } from "./look.ts";
import { requireKind, requireOurs, requireTag } from "./resolve.ts";
import type { Storage } from "./storage.ts";
import { readUnfinished, type Unfinished, writeUnfinished } from "./unfinished_frees.ts";

/** What the first step verified, so that the second removes that and nothing else. */
const tokenSchema = v.object({
  v: v.literal(1),
  storage: v.string(),
  zvol: v.string(),
  /** Null when the zvol was gone and only rows are left. */
  made: v.nullable(v.object({ guid: v.nullable(v.string()), createdMs: v.number() })),
  /** Rows of the export that was seen; empty when there was none. */
  rows: v.array(
    v.object({ kind: v.picklist(["extent", "mapping", "namespace"]), id: v.number() }),
  ),
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
  requireKind(storage, volume);
  return await withVolumeLock(storage, volume.zvol, async () => {
    const array = await storage.array();
    const { zvol, found } = await look(storage, array, volume.zvol, storage.deadline);
    if (zvol !== undefined) requireOurs(storage, zvol);
    const rows = await rowsToRemove(storage, volume, zvol, found);
    if (zvol === undefined && rows.length === 0) {
      await letGo(storage, volume, undefined);
      await writeUnfinished(storage, volume, undefined);
      return undefined;
    }
    if (zvol !== undefined) await refuseSnapshots(array, zvol.name, storage.deadline);
    await letGo(storage, volume, found.kind === "ours" ? found.export.identity : undefined);
    const token: FreeToken = {
      v: 1,
      storage: storage.settings.id,
      zvol: volume.zvol,
      made: zvol === undefined ? null : { guid: zvol.guid ?? null, createdMs: zvol.createdMs },
      rows: [...rows],
    };
    await writeUnfinished(storage, volume, token.made);
    return Buffer.from(JSON.stringify(token)).toString("base64url");
  });
}

/**
 * Removes what the token names: export first, then the zvol. Once the first write is sent the caller's
 * deadline ends nothing any more; a lost answer is looked up. Repeating it goes on where it stopped.
 */
export async function finishFree(storage: Storage, token: string): Promise<null> {
  const plan = readToken(storage, token);
  return await withVolumeLock(storage, plan.zvol, async () => {
    const array = await storage.array();
    const { zvol, found } = await look(storage, array, plan.zvol, storage.deadline);
    // Made anew since: today's disk of that name is none of ours to free.
    if (zvol !== undefined && !isSame(plan.made, zvol)) return null;
    if (found.kind === "foreign") throw foreignExport(plan.zvol, found.what);
    const rows = exportRows(found).filter((row) => zvol !== undefined || isPlanned(plan, row));
    if (zvol !== undefined) {
      requireOurs(storage, zvol);
      await refuseSnapshots(array, zvol.name, storage.deadline);
      // It may have been attached again since the first step.
      const identity = found.kind === "ours" ? found.export.identity : undefined;
      await letGo(storage, { zvol: plan.zvol, tag: undefined }, identity);
    }
    storage.deadline.check();
    const deadline = storage.undoDeadline();
    if (rows.length > 0) await removeExport(storage, plan.zvol, rows, deadline);
    if (zvol !== undefined) {
      await destroyZvol(storage, await storage.array(), zvol.name, deadline);
    }
    await writeUnfinished(storage, plan, undefined);
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
  throw new TnblockError(
    "invalid",
    "Cannot finish freeing: the token is none of this storage",
    { field: "args.token" },
  );
}

function exportRows(found: ExportLookup): readonly ExportRow[] {
  if (found.kind === "ours") return found.export.rows;
  return found.kind === "half" ? found.rows : [];
}

function isPlanned(plan: FreeToken, row: ExportRow): boolean {
  return plan.rows.some((planned) => planned.kind === row.kind && planned.id === row.id);
}

/**
 * The export's rows, when the name means this volume. A zvol whose export is gone has nothing that
 * could be compared with the name: it is freed only when this node began to free it under that name.
 */
async function rowsToRemove(
  storage: Storage,
  volume: VolumeRef,
  zvol: zvols.Zvol | undefined,
  found: ExportLookup,
): Promise<readonly ExportRow[]> {
  if (found.kind === "foreign") throw foreignExport(volume.zvol, found.what);
  if (found.kind === "ours") requireTag(volume, found.export);
  else if (zvol !== undefined && volume.tag !== undefined) {
    const begun = await readUnfinished(storage, volume);
    if (begun === undefined || !isSame(begun, zvol)) {
      throw new TnblockError(
        "volume-replaced",
        `Cannot free the volume "${volume.zvol}": "${zvol.name}" is on the array, but nothing exports it, so that nothing shows whether the name means it`,
        { hint: "Look at it in TrueNAS, then run tnblock cleanup-orphans" },
      );
    }
  }
  return exportRows(found);
}

function foreignExport(zvol: string, what: string): TnblockError {
  return new TnblockError(
    "in-use",
    `Cannot free the volume "${zvol}": it is also exported as ${what}`,
    { hint: "Remove that export in TrueNAS first; tnblock leaves it alone" },
  );
}

async function refuseSnapshots(array: Caller, path: string, deadline: Deadline): Promise<void> {
  const names = await snapshots.names(array, path, deadline.bounds());
  await refuseDependents(array, path, names, deadline);
}

/** How often a removal whose answer was lost is looked at and gone on with. */
const REMOVAL_TRIES = 3;

/** Removes the export; what became of a lost answer is looked up, and what is left is removed. */
async function removeExport(
  storage: Storage,
  zvol: string,
  rows: readonly ExportRow[],
  deadline: Deadline,
): Promise<void> {
  let left = rows;
  for (let attempt = 1; left.length > 0; attempt++) {
    try {
      await storage.transport.removeExport(await storage.array(), left);
      return;
    } catch (error) {
      const isLost = isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
      if (!isLost || attempt >= REMOVAL_TRIES) throw error;
      const { found } = await look(storage, await storage.array(), zvol, deadline);
      const planned = left;
      left = exportRows(found).filter((row) =>
        planned.some((one) => one.kind === row.kind && one.id === row.id)
      );
    }
  }
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

function isSame(made: Unfinished | null, zvol: zvols.Zvol): boolean {
  return made !== null && made.guid === (zvol.guid ?? null) && made.createdMs === zvol.createdMs;
}
