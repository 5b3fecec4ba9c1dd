/**
 * Freeing a volume, in two steps as PVE runs them: under the storage lock everything is checked and
 * the node lets go of the disk; after the lock the array's objects are removed, in writes that cannot
 * reach the target or subsystem. What is gone already is fine, at every step, and a free that stopped is
 * gone on with by any node.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import * as v from "valibot";
import { asTnblockError, type ErrorCode, TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import {
  type DiskIdentity,
  type ExportLookup,
  type ExportRow,
  tagOf,
} from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import type * as zvols from "../truenas/zvols.ts";
import {
  detachVolume,
  isSameDisk,
  letGoOfKnown,
  refuseKnownUsers,
  refuseUsers,
  withVolumeLock,
} from "./attachment.ts";
import { refuseProtected } from "./attributes.ts";
import { refuseDependents } from "./dependents.ts";
import { doom } from "./doomed_names.ts";
import { destroyZvol, refuseExports } from "./destroy.ts";
import { exportRows, removeRows } from "./export_rows.ts";
import { refuseRunningElsewhere } from "./guests.ts";
import { readKnownDisk } from "./known_disks.ts";
import { dropPromise, journaledAlone, keepPromise, refuseStoppedRename } from "./journaled.ts";
import { look } from "./look.ts";
import { letGoOfReadings } from "./remove_reading.ts";
import { requireKind, requireOurs, requireTag } from "./resolve.ts";
import type { Storage } from "./storage.ts";
import {
  isFreedElsewhere,
  isWithdrawn,
  readUnfinished,
  rowsSchema,
  type Unfinished,
  writeUnfinished,
} from "./unfinished_frees.ts";
import { isWeight } from "./weight.ts";

/** What the first step verified, so that the second removes that and nothing else. */
const tokenSchema = v.object({
  v: v.literal(1),
  storage: v.string(),
  zvol: v.string(),
  /** Null when the zvol was gone and only rows are left. */
  made: v.nullable(v.object({ guid: v.nullable(v.string()), createdMs: v.number() })),
  /** Rows of the export that was seen; empty when there was none. */
  rows: rowsSchema,
  /** Whether the free was noted for the cluster: a note that is gone then was withdrawn. */
  noted: v.optional(v.boolean(), false),
});

/** What was verified. */
export type FreeToken = v.InferOutput<typeof tokenSchema>;

/**
 * Checks that the volume may go, and lets this node go of it.
 *
 * @param isPromise whether another process is to finish it: the journal has it until then, for that process may
 *   never come, and nobody else would know of the volume.
 * @returns the token for {@link finishFree}, or undefined when there is nothing left to free.
 * @throws TnblockError `in-use`, `has-dependents`, `denied` (protected), `volume-replaced`, `not-ours`: nothing
 *   was touched.
 */
export async function prepareFree(
  storage: Storage,
  volume: VolumeRef,
  isPromise = false,
): Promise<string | undefined> {
  requireKind(storage, volume);
  return await withVolumeLock(storage, volume.zvol, async () => {
    const array = await storage.array();
    const { zvol, found } = await look(storage, array, volume.zvol, storage.deadline);
    if (zvol !== undefined) requireOurs(storage, zvol);
    const rows = await rowsToRemove(storage, array, volume, zvol, found);
    if (zvol === undefined && rows.length === 0) {
      await refuseStoppedRename(storage, volume.zvol, "free");
      await letGo(storage, volume, undefined);
      await writeUnfinished(storage, volume, undefined);
      return undefined;
    }
    const isRead = await refuse(storage, array, volume, zvol, rows);
    const identity = found.kind === "ours" ? found.export.identity : undefined;
    if (zvol !== undefined && isRead) {
      await letGoOfReadersFirst(storage, array, volume, zvol, identity);
    }
    await letGo(storage, volume, identity);
    const made = zvol === undefined ? null : { guid: zvol.guid ?? null, createdMs: zvol.createdMs };
    const begun = made === null ? undefined : { ...made, rows };
    // The array may be at that node's destruction still, when this one's is long done.
    if (made !== null && await isFreedElsewhere(storage, volume.zvol, made)) {
      await doom(storage, volume.zvol);
    }
    const plan: FreeToken = {
      v: 1,
      storage: storage.settings.id,
      zvol: volume.zvol,
      made,
      rows: [...rows],
      noted: await writeUnfinished(storage, volume, begun),
    };
    const token = textOf(plan);
    if (isPromise && made !== null) {
      const details = { op: "free", token, promised: true } as const;
      await keepPromise(storage, promiseId(plan), volume.zvol, details);
    }
    return token;
  });
}

function textOf(plan: FreeToken): string {
  return Buffer.from(JSON.stringify(plan)).toString("base64url");
}

/** The id of a promise's entry: the same one for the same zvol, however often it is promised. */
function promiseId({ storage, zvol, made }: FreeToken): string {
  const text = JSON.stringify(["free", storage, zvol, made]);
  const hex = createHash("sha256").update(text).digest("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, "$1-$2-$3-$4-$5");
}

/** The token for {@link finishFree} of this very zvol, with whatever exports it as ours. */
export function tokenFor(storage: Storage, zvol: zvols.Zvol): string {
  const token: FreeToken = {
    v: 1,
    storage: storage.settings.id,
    zvol: zvol.name.slice(storage.settings.dataset.length + 1),
    made: { guid: zvol.guid ?? null, createdMs: zvol.createdMs },
    rows: [],
    noted: false,
  };
  return textOf(token);
}

/** Refusals that leave the volume to whoever has it: what was promised is not to come later. */
const REFUSALS: readonly ErrorCode[] = [
  "has-dependents",
  "denied",
  "volume-replaced",
  "not-ours",
];

function isRefusal(error: unknown): boolean {
  const { code } = asTnblockError(error);
  // What the API key may not do, another one may.
  return REFUSALS.includes(code) && !(code === "denied" && arrayErrorIn(error) !== undefined);
}

/**
 * Removes what the token names: export first, then the zvol. Once the first write is sent the caller's
 * deadline ends nothing any more; a lost answer is looked up. Repeating it goes on where it stopped.
 *
 * @param mayGo whether it is to go after all: asked under the volume's lock, before this node lets go of the
 *   disk and again right before the first write. Nothing is freed when it says no.
 */
export async function finishFree(
  storage: Storage,
  token: string,
  mayGo: () => Promise<boolean> = () => Promise.resolve(true),
): Promise<null> {
  const plan = readToken(storage, token);
  try {
    if (await finish(storage, plan, token, mayGo)) await dropPromise(storage, promiseId(plan));
  } catch (error) {
    if (isRefusal(error)) await dropPromise(storage, promiseId(plan));
    throw error;
  }
  return null;
}

/** @returns false when it may not go: nothing was done, and what was promised stands. */
async function finish(
  storage: Storage,
  plan: FreeToken,
  token: string,
  mayGo: () => Promise<boolean>,
): Promise<boolean> {
  return await journaledAlone(storage, plan.zvol, async (storage, entry) => {
    const array = await storage.array();
    const { zvol, found } = await look(storage, array, plan.zvol, storage.deadline);
    // Made anew since: today's disk of that name is none of ours to free.
    if (zvol !== undefined && !isSame(plan.made, zvol)) return true;
    if (plan.noted && await isWithdrawn(storage, plan.zvol)) {
      storage.log.info(`"${plan.zvol}" is not freed: it was handed out again, or is gone already`);
      return true;
    }
    if (!await mayGo()) return false;
    const rows = (await exportRows(storage, array, plan.zvol, found, plan.rows, storage.deadline))
      .filter((row) => zvol !== undefined || isPlanned(plan, row));
    if (zvol !== undefined) requireOurs(storage, zvol);
    if (zvol !== undefined || rows.length > 0) {
      const identity = found.kind === "ours" ? found.export.identity : undefined;
      const tag = identity === undefined ? undefined : tagOf(identity);
      const isRead = await refuse(storage, array, { zvol: plan.zvol, tag }, zvol, rows);
      // It may have been attached again since the first step.
      const place = { zvol: plan.zvol, tag: undefined };
      if (zvol !== undefined && isRead) {
        await letGoOfReadersFirst(storage, array, place, zvol, identity);
      }
      await letGo(storage, place, identity);
    }
    // Guests' configurations know no lock of ours, and letting go may have taken long.
    if (!await mayGo()) return false;
    storage.deadline.check();
    if (zvol !== undefined || rows.length > 0) await entry.begin(plan.zvol, { op: "free", token });
    const deadline = storage.undoDeadline();
    const again = "Free it again to be sure: it is gone on with where it stopped";
    storage.deadline.goesOn(`"${plan.zvol}" is being freed, its export first`, again);
    if (rows.length > 0) await removeRows(storage, plan.zvol, rows, deadline);
    if (zvol !== undefined) {
      storage.deadline.goesOn(`nothing exports "${plan.zvol}", its data are destroyed`, again);
      await destroyZvol(storage, await storage.array(), zvol, deadline);
    }
    await writeUnfinished(storage, plan, undefined);
    return true;
  });
}

/**
 * Everything that speaks against freeing, but for its users on this node: nothing is touched here. An export
 * whose zvol is gone, or has another name now, may still be a running guest's disk.
 *
 * @returns whether this node has clones for reading its snapshots, which must go first.
 */
async function refuse(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  zvol: zvols.Zvol | undefined,
  rows: readonly ExportRow[],
): Promise<boolean> {
  const { deadline } = storage;
  if (zvol === undefined) {
    await refuseRunningElsewhere(storage, volume, "free");
    return false;
  }
  if (isWeight(zvol)) {
    throw new TnblockError(
      "not-ours",
      `Cannot free "${zvol.name}": it keeps the iSCSI target visible, and belongs to no guest`,
    );
  }
  refuseProtected(volume, zvol);
  const [names] = await Promise.all([
    snapshots.names(array, zvol.name, deadline.bounds()),
    refuseExports(array, zvol.name, rows, deadline),
    refuseRunningElsewhere(storage, volume, "free"),
  ]);
  return await refuseDependents(storage, array, zvol.name, names, deadline, { sparingOwn: true });
}

/**
 * What a token of {@link prepareFree} says.
 *
 * @throws TnblockError `invalid` for one that is none of this storage's.
 */
export function readToken(storage: Storage, token: string): FreeToken {
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

function isPlanned(plan: FreeToken, row: ExportRow): boolean {
  return plan.rows.some((planned) => planned.kind === row.kind && planned.id === row.id);
}

/**
 * The export's rows, when the name means this volume. A zvol whose export is gone has nothing that
 * could be compared with the name: it is freed only when a node began to free it under that name.
 */
async function rowsToRemove(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  zvol: zvols.Zvol | undefined,
  found: ExportLookup,
): Promise<readonly ExportRow[]> {
  if (found.kind === "ours") {
    requireTag(volume, found.export);
    return found.export.rows;
  }
  const kept = zvol === undefined ? undefined : await readUnfinished(storage, volume);
  const begun = zvol !== undefined && kept !== undefined && isSame(kept, zvol) ? kept : undefined;
  const rows = await exportRows(
    storage,
    array,
    volume.zvol,
    found,
    begun?.rows ?? [],
    storage.deadline,
  );
  if (zvol !== undefined && volume.tag !== undefined && begun === undefined) {
    throw new TnblockError(
      "volume-replaced",
      `Cannot free the volume "${volume.zvol}": "${zvol.name}" is on the array, but nothing exports it, so that nothing shows whether the name means it`,
      { hint: "Look at it in TrueNAS, then run tnblock cleanup-orphans" },
    );
  }
  return rows;
}

/** A snapshot that is still read refuses the whole free, before the disk itself is let go of. */
async function letGoOfReadersFirst(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  zvol: zvols.Zvol,
  identity: DiskIdentity | undefined,
): Promise<void> {
  if (identity !== undefined) await refuseUsers(storage, volume, identity);
  await letGoOfReadings(storage, array, zvol.name, storage.deadline);
}

/** Makes this node forget the disk, and what it knew under the name before; refuses while either is used. */
async function letGo(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity | undefined,
): Promise<void> {
  const known = await readKnownDisk(storage, volume.zvol);
  const older = known !== undefined && identity !== undefined &&
      isSameDisk(known.identity, identity)
    ? undefined
    : known;
  if (identity !== undefined) await refuseUsers(storage, volume, identity);
  if (older !== undefined) await refuseKnownUsers(storage, volume, older);
  if (identity !== undefined) await detachVolume(storage, volume, identity);
  if (older !== undefined) await letGoOfKnown(storage, volume, older);
}

function isSame(made: Pick<Unfinished, "guid" | "createdMs"> | null, zvol: zvols.Zvol): boolean {
  return made !== null && made.guid === (zvol.guid ?? null) && made.createdMs === zvol.createdMs;
}
