/** Zvols: the volumes below a storage's dataset. None of these calls touches extents or namespaces. */
import type { Caller, Wait } from "./caller.ts";
import type { Dataset } from "./datasets.ts";
import { isAtLeast } from "./dialect.ts";
import { ArrayError } from "./errors.ts";
import { anything, bag, write } from "./request.ts";
import * as snapshots from "./snapshots.ts";
import { readChildren, readMany, readOne, readOrigins, type ZfsRow } from "./zfs_rows.ts";

export { setUserProperties } from "./datasets.ts";

/** A zvol. */
export interface Zvol {
  /** Full path, e.g. `tank/pve/vm-100-disk-0`. */
  readonly name: string;
  /** Bytes. */
  readonly volsize: number;
  /** Bytes. */
  readonly volblocksize: number;
  /** Bytes on disk, snapshots and reservation included. */
  readonly used: number;
  /** Bytes that its own data refers to; undefined on 25.04. */
  readonly referenced: number | undefined;
  /** Whether no space is reserved for it. */
  readonly sparse: boolean;
  /** Bytes reserved for its own data (`refreservation`); 0 for a sparse one. */
  readonly reserved: number;
  /** Milliseconds since the epoch, whole seconds. */
  readonly createdMs: number;
  /** The snapshot that it is a clone of. */
  readonly origin: string | undefined;
  /** Decimal text; undefined on 25.04. Together with {@link createdMs} it tells namesakes apart. */
  readonly guid: string | undefined;
  /** Decimal text; undefined on 25.04. */
  readonly createTxg: string | undefined;
  /** Those with a colon in their name; values may be inherited. */
  readonly userProperties: Readonly<Record<string, string>>;
}

/** What a new zvol is to be. */
export interface NewZvol {
  /** Full path; its parent must exist. */
  readonly name: string;
  /** Bytes, a multiple of `volblocksize`. */
  readonly volsize: number;
  /** As the array spells it: `4K` ... `128K`. */
  readonly volblocksize: string;
  readonly sparse: boolean;
  /** As the array spells it: `LZ4`, `ZSTD`, `OFF`; inherited when absent. */
  readonly compression?: string;
  /** Names need a colon. */
  readonly userProperties?: Readonly<Record<string, string>>;
}

function zvolOf(row: ZfsRow): Zvol | undefined {
  if (row.type !== "VOLUME" || row.volsize === undefined) return undefined;
  return {
    name: row.name,
    volsize: row.volsize,
    volblocksize: row.volblocksize ?? 0,
    used: row.used ?? 0,
    referenced: row.referenced,
    sparse: (row.refreservation ?? 0) === 0,
    reserved: row.refreservation ?? 0,
    createdMs: row.createdMs ?? 0,
    origin: row.origin,
    guid: row.guid,
    createTxg: row.createTxg,
    userProperties: row.userProperties,
  };
}

/** One zvol, or undefined when there is none of that name (or it is a filesystem). */
export async function read(caller: Caller, name: string, wait?: Wait): Promise<Zvol | undefined> {
  const row = await readOne(caller, name, `Cannot read zvol "${name}"`, wait);
  return row === undefined ? undefined : zvolOf(row);
}

/** Those of several zvols that exist. */
export async function readSome(
  caller: Caller,
  names: readonly string[],
  wait?: Wait,
): Promise<Zvol[]> {
  const found = await readMany(caller, names, "Cannot read zvols", wait);
  return found.map(zvolOf).filter((zvol) => zvol !== undefined);
}

/** What is directly below a dataset: its own state comes along in the same call. */
export interface Listing {
  readonly parent: Dataset;
  readonly zvols: readonly Zvol[];
  /** Names of filesystems that are directly below it. */
  readonly filesystems: readonly string[];
}

/**
 * The zvols directly below a dataset: one call, whatever their number.
 *
 * @throws ArrayError `not-found` when the dataset does not exist.
 */
export async function list(caller: Caller, parent: string, wait?: Wait): Promise<Listing> {
  const doing = `Cannot list the volumes of dataset "${parent}"`;
  const found = await readChildren(caller, parent, doing, wait);
  if (found.parent === undefined) {
    throw new ArrayError("not-found", `${doing}: there is no such dataset on the array`, {
      outcome: "answered",
    });
  }
  return {
    parent: {
      name: parent,
      type: found.parent.type,
      available: found.parent.available ?? 0,
      used: found.parent.used ?? 0,
      userProperties: found.parent.userProperties,
    },
    zvols: found.children.map(zvolOf).filter((zvol) => zvol !== undefined),
    filesystems: found.children.filter((row) => row.type === "FILESYSTEM").map((row) => row.name),
  };
}

/**
 * Names of everything in the zvol's pool that is a clone of one of its snapshots, with the snapshot.
 * Walks the pool: for destructive steps only.
 */
export async function clones(
  caller: Caller,
  name: string,
  wait?: Wait,
): Promise<{ readonly name: string; readonly origin: string }[]> {
  const pool = name.split("/")[0] ?? name;
  const origins = await readOrigins(caller, pool, `Cannot read the clones of zvol "${name}"`, wait);
  return origins.filter((clone) => clone.origin.startsWith(`${name}@`));
}

/**
 * Creates a zvol. Its device node comes up to seconds later (`isDeviceMissing`). The array's rule
 * that a zvol takes at most 80 % of the free space is lifted (`force_size`): it ignores `sparse`, so
 * checking the space is the caller's.
 *
 * @throws ArrayError `exists`, `no-space`, `not-found` (the parent).
 */
export async function create(caller: Caller, zvol: NewZvol, wait?: Wait): Promise<void> {
  // A refreservation of 0 would make a thick zvol sparse; thick ones leave it to the array.
  const explicit = caller.release.can.needsExplicitFields
    ? {
      comments: "INHERIT",
      snapdev: "INHERIT",
      special_small_block_size: "INHERIT",
      reservation: 0,
      ...(zvol.sparse ? { refreservation: 0 } : {}),
    }
    : {};
  await write(
    caller,
    {
      method: "pool.dataset.create",
      params: [{
        ...explicit,
        name: zvol.name,
        type: "VOLUME",
        volsize: zvol.volsize,
        volblocksize: zvol.volblocksize,
        sparse: zvol.sparse,
        force_size: true,
        ...(zvol.compression === undefined ? {} : { compression: zvol.compression }),
        user_properties: Object.entries(zvol.userProperties ?? {}).map(([key, value]) => ({
          key,
          value,
        })),
      }],
      doing: `Cannot create zvol "${zvol.name}"`,
    },
    bag,
    wait,
  );
}

/** What a new clone is to carry. */
export interface CloneMarks {
  /** Names need a colon. */
  readonly userProperties: Readonly<Record<string, string>>;
  /** Bytes that are reserved for it, at most its size; a clone is thin without. */
  readonly refreservation?: number;
}

/**
 * Makes a zvol of a snapshot, with marks of its own: one write on 25.x, two from 26 on, whose clone call
 * takes native properties only and refuses every name with a colon (`middlewared/plugins/zfs/
 * rename_promote_clone_impl.py` hands them all to the `properties` of truenas_pylibzfs).
 *
 * @param onCloned called when the clone is known to be there, before its marks are.
 * @throws ArrayError `exists`, `not-found` (the snapshot).
 */
export async function clone(
  caller: Caller,
  snapshot: string,
  name: string,
  marks: CloneMarks,
  onCloned: () => void,
): Promise<void> {
  const { userProperties, refreservation } = marks;
  const atOnce = !isAtLeast(caller.release, 26, 0);
  await snapshots.clone(caller, snapshot, name, {
    ...(atOnce ? userProperties : {}),
    ...(atOnce && refreservation !== undefined ? { refreservation: String(refreservation) } : {}),
  });
  onCloned();
  if (!atOnce) await markClone(caller, name, marks);
}

/** Gives a clone its marks and reservation after it was made; one write. */
export async function markClone(caller: Caller, name: string, marks: CloneMarks): Promise<void> {
  const { userProperties, refreservation } = marks;
  await write(
    caller,
    {
      method: "pool.dataset.update",
      params: [name, {
        user_properties_update: Object.entries(userProperties).map(([key, value]) => ({
          key,
          value,
        })),
        ...(refreservation === undefined ? {} : { refreservation }),
      }],
      doing: `Cannot mark the clone "${name}"`,
    },
    bag,
  );
}

/**
 * Grows a zvol to `volsize` bytes, a multiple of its block size. What it is exported as grows with
 * it, without a reload. The array refuses to shrink.
 */
export async function grow(
  caller: Caller,
  name: string,
  volsize: number,
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: "pool.dataset.update",
      params: [name, { volsize, force_size: true }],
      doing: `Cannot grow zvol "${name}"`,
    },
    bag,
    wait,
  );
}

/** Reserves space for a zvol's own data; it is thick when that is its size. */
export async function reserve(
  caller: Caller,
  name: string,
  bytes: number,
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: "pool.dataset.update",
      params: [name, { refreservation: bytes }],
      doing: `Cannot reserve ${bytes} bytes for zvol "${name}"`,
    },
    bag,
    wait,
  );
}

/**
 * Renames a zvol (25.10+). The array checks nothing, and exports keep the old path.
 *
 * @throws ArrayError `unsupported` on 25.04.
 */
export async function rename(
  caller: Caller,
  name: string,
  newName: string,
  wait?: Wait,
): Promise<void> {
  const doing = `Cannot rename zvol "${name}" to "${newName}"`;
  if (!caller.release.can.rename) {
    throw new ArrayError(
      "unsupported",
      `${doing}: TrueNAS ${caller.release.text} has no call for it`,
      { outcome: "not-sent", hint: "Update TrueNAS to 25.10 or newer" },
    );
  }
  await write(
    caller,
    {
      method: "pool.dataset.rename",
      params: [name, { new_name: newName, recursive: false, force: true }],
      doing,
    },
    anything,
    wait,
  );
}

/** Makes a clone the owner of the snapshots that it hangs on. */
export async function promote(caller: Caller, name: string, wait?: Wait): Promise<void> {
  await write(
    caller,
    {
      method: "pool.dataset.promote",
      params: [name],
      doing: `Cannot promote zvol "${name}"`,
    },
    anything,
    wait,
  );
}

/**
 * Destroys a zvol whose exports are gone already: on 25.x the call itself would delete them, and
 * targets that are left empty, before it tries to destroy (`middlewared/plugins/pool_/dataset.py`).
 *
 * `withSnapshots` also destroys its snapshots on 25.x, which fails when one has a clone. On 26 a
 * recursive destroy takes clones and holds with it, so snapshots must be gone before and the flag
 * has no effect there; the result is read back, because an answer there does not prove the deed.
 *
 * @throws ArrayError `busy`, `has-dependents`, `not-found`.
 */
export async function destroy(
  caller: Caller,
  name: string,
  options: Wait & { readonly withSnapshots?: boolean } = {},
): Promise<void> {
  const { withSnapshots = false, ...wait } = options;
  const doing = `Cannot destroy zvol "${name}"`;
  const { can } = caller.release;
  if (can.zfsResourceWrites) {
    const params = [{ path: name, recursive: false }];
    await write(caller, { method: "zfs.resource.destroy", params, doing }, anything, wait);
  } else {
    const recursive = withSnapshots && !can.recursiveDestroysClones;
    const params = [name, { recursive, force: false }];
    await write(caller, { method: "pool.dataset.delete", params, doing }, anything, wait);
  }
  if (!can.recursiveDestroysClones) return;
  if (await readOne(caller, name, `${doing} (reading back)`, wait) !== undefined) {
    throw new ArrayError("busy", `${doing}: TrueNAS answered that it did, but it is still there`, {
      outcome: "answered",
    });
  }
}
