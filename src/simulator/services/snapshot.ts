/** `zfs.snapshot` (25.04) and `pool.snapshot` (25.10 and later). */

import type { Json, JsonObject } from "../json.ts";
import { pythonRepr } from "../json.ts";
import {
  CallError,
  invalid,
  matchNotFound,
  notFound,
  PythonError,
  singleInvalid,
  ValidationErrors,
} from "../errors.ts";
import type { QueryOptions } from "../filters.ts";
import { query } from "../filters.ts";
import { validSnapshotName } from "../models/checks.ts";
import { modernSnapshotEntry, snapshotEntry } from "../views/snapshot_view.ts";
import type { Snapshot } from "../zfs.ts";
import { datasetOf, ZfsError } from "../zfs.ts";
import { object } from "./service.ts";
import type { Call, Handler, Methods } from "./service.ts";
import {
  createDataset,
  createSnapshot,
  destroyDataset,
  dropSnapshot,
  finishDeferred,
  renameSnapshot,
  rollback,
} from "./zfs_work.ts";

const modern = (call: Call): boolean => call.sim.release.major >= 2600;

/** A single snapshot as the release shows it after a write, or to `get_instance`. */
function single(call: Call, snapshot: Snapshot, listed = false): JsonObject {
  const { zfs } = call.sim.world;
  if (modern(call)) return modernSnapshotEntry(zfs, snapshot, { properties: null, listed });
  return snapshotEntry(zfs, snapshot, { properties: null, holds: false });
}

function all(call: Call): Snapshot[] {
  const { zfs } = call.sim.world;
  return [...zfs.datasets.keys()].sort().flatMap((name) => zfs.snapshotsOf(name));
}

/** The snapshots that a filter by id, name or dataset can match. */
function candidates(call: Call, filters: Json | undefined): Snapshot[] {
  const { zfs } = call.sim.world;
  for (const filter of Array.isArray(filters) ? filters : []) {
    if (!Array.isArray(filter) || filter[1] !== "=") continue;
    if (filter[0] === "id" || filter[0] === "name") {
      const found = zfs.snapshots.get(String(filter[2]));
      return found === undefined ? [] : [found];
    }
    if (filter[0] === "dataset") return zfs.snapshotsOf(String(filter[2]));
  }
  return all(call);
}

/** Name of the event's collection, which is that of the release. */
function collection(call: Call): string {
  return call.sim.release.major === 2504 ? "zfs.snapshot.query" : "pool.snapshot.query";
}

export function zfsText(prefix: string, error: unknown): unknown {
  return error instanceof ZfsError ? new CallError(`${prefix}${error.message}`) : error;
}

const querySnapshots: Handler = (call, [filters, given]) => {
  const options = object(given) as QueryOptions;
  const extra = object(options.extra);
  const wish = {
    properties: Array.isArray(extra.properties) ? extra.properties.map(String) : null,
    holds: extra.holds === true,
  };
  const min = Number(extra.min_txg ?? 0);
  const max = Number(extra.max_txg ?? 0) || Infinity;
  const rows = candidates(call, filters).filter((snapshot) =>
    snapshot.createtxg >= min && snapshot.createtxg <= max
  ).map((snapshot) =>
    modern(call)
      ? modernSnapshotEntry(call.sim.world.zfs, snapshot, { ...wish, listed: true })
      : snapshotEntry(call.sim.world.zfs, snapshot, wish)
  );
  return query(rows, filters ?? [], options);
};

const getSnapshot: Handler = (call, [id]) => {
  const snapshot = call.sim.world.zfs.snapshots.get(String(id));
  const noun = call.sim.release.major === 2504 ? "ZFSSnapshot" : "PoolSnapshot";
  if (snapshot === undefined) throw notFound(`${noun} ${id} does not exist`);
  return single(call, snapshot, true);
};

/** `%Y-%m-%d` and the like of a naming schema. */
function schemaName(schema: string, now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const parts: Record<string, string> = {
    Y: String(now.getUTCFullYear()),
    m: two(now.getUTCMonth() + 1),
    d: two(now.getUTCDate()),
    H: two(now.getUTCHours()),
    M: two(now.getUTCMinutes()),
    S: two(now.getUTCSeconds()),
  };
  return schema.replace(/%([YmdHMS])/g, (_whole, letter: string) => parts[letter] ?? "");
}

function checkCreate(data: JsonObject, name: string): void {
  const errors = new ValidationErrors();
  const schema = "snapshot_create";
  if (data.name === undefined && data.naming_schema === undefined) {
    errors.add(`${schema}.naming_schema`, "You must specify either name or naming schema");
  } else if (data.name !== undefined && data.naming_schema !== undefined) {
    errors.add(
      `${schema}.naming_schema`,
      "You can't specify name and naming schema at the same time",
    );
  } else if (!validSnapshotName(name)) errors.add(`${schema}.name`, "Invalid snapshot name");
  const excluded = Array.isArray(data.exclude) ? data.exclude : [];
  if (excluded.length > 0 && data.recursive !== true) {
    errors.add(`${schema}.exclude`, "This option has no sense for non-recursive snapshots");
  }
  errors.check();
}

const create: Handler = async (call, [given]) => {
  const data = object(given);
  const dataset = String(data.dataset);
  const snap = data.naming_schema === undefined
    ? String(data.name)
    : schemaName(String(data.naming_schema), new Date(call.sim.now()));
  checkCreate(data, snap);
  const { zfs } = call.sim.world;
  const user = Object.fromEntries(
    Object.entries(object(data.properties)).map(([key, value]) => [key, String(value)]),
  );
  const excluded = Array.isArray(data.exclude) ? data.exclude : [];
  const members = data.recursive === true && zfs.datasets.has(dataset)
    ? zfs.subtree(dataset).filter((name) => !excluded.includes(name))
    : [dataset];
  const full = `${dataset}@${snap}`;
  const taken = members.find((name) => zfs.snapshots.has(`${name}@${snap}`));
  if (taken !== undefined) {
    if (modern(call)) {
      throw singleInvalid("pool.snapshot.create", `${snap} already exists.`, 17);
    }
    throw new CallError(
      `Failed to snapshot ${full}: cannot create snapshot '${taken}@${snap}': dataset already exists`,
      17,
    );
  }
  try {
    for (const name of members) await createSnapshot(call, name, snap, user);
  } catch (error) {
    throw zfsText(`Failed to snapshot ${full}: `, error);
  }
  const snapshot = zfs.snapshots.get(full);
  if (snapshot === undefined) throw matchNotFound();
  const entry = single(call, snapshot);
  call.sim.emit({ msg: "added", collection: collection(call), id: full, fields: entry });
  return entry;
};

const update: Handler = (call, [id, given]) => {
  const snapshot = call.sim.world.zfs.snapshots.get(String(id));
  if (snapshot === undefined) throw new CallError(`Snapshot ${id} not found`);
  const data = object(given);
  for (
    const entry of Array.isArray(data.user_properties_update) ? data.user_properties_update : []
  ) {
    const { key, value, remove } = object(entry);
    if (remove === true) snapshot.user.delete(String(key));
    else snapshot.user.set(String(key), String(value));
  }
  for (const key of Array.isArray(data.user_properties_remove) ? data.user_properties_remove : []) {
    snapshot.user.delete(String(key));
  }
  return single(call, snapshot);
};

/** The same-named snapshots of a dataset's children, and the snapshot itself. */
export function family(call: Call, name: string, recursive: boolean): Snapshot[] {
  const { zfs } = call.sim.world;
  const snap = name.split("@")[1];
  const datasets = recursive && zfs.datasets.has(datasetOf(name))
    ? zfs.subtree(datasetOf(name))
    : [datasetOf(name)];
  return datasets.flatMap((dataset) => {
    const found = zfs.snapshots.get(`${dataset}@${snap}`);
    return found === undefined ? [] : [found];
  });
}

/** Removes one snapshot, or says in the release's way what hangs on it. */
export async function destroySnapshot(
  call: Call,
  snapshot: Snapshot,
  defer: boolean,
  everything: boolean,
): Promise<void> {
  const { zfs } = call.sim.world;
  const { name } = snapshot;
  if (everything) {
    snapshot.holds.clear();
    for (const clone of zfs.clonesOf(name)) await destroyDataset(call, clone, true, true);
  }
  const clones = zfs.clonesOf(name);
  if (clones.length > 0 || snapshot.holds.size > 0) {
    if (defer) {
      snapshot.deferred = true;
      return;
    }
    if (modern(call)) {
      const text = clones.length > 0
        ? `'${name}' has the following clones: ${clones.join(", ")}`
        : `'${name}' has the following holds: ${[...snapshot.holds.keys()].join(", ")}`;
      throw singleInvalid("zfs.resource.snapshot.destroy", text, 16);
    }
    if (clones.length > 0) {
      throw invalid(
        "options.defer",
        `Please set this attribute as '${name}' snapshot has dependent clones: ${
          clones.join(", ")
        }`,
      );
    }
    throw new CallError(`cannot destroy '${name}': dataset is busy`);
  }
  await dropSnapshot(call, name);
}

const remove: Handler = async (call, [id, given]) => {
  const name = String(id);
  const options = object(given);
  const recursive = options.recursive === true;
  if (modern(call) && !name.includes("@")) {
    throw singleInvalid("pool.snapshot.delete", `Invalid snapshot name: ${pythonRepr(name)}`);
  }
  if (!call.sim.world.zfs.snapshots.has(name)) throw notFound(`Snapshot ${name} not found`);
  for (const snapshot of family(call, name, recursive)) {
    await destroySnapshot(call, snapshot, options.defer === true, recursive && modern(call));
  }
  call.sim.emit({
    msg: "removed",
    collection: collection(call),
    id: name,
    extra: { recursive },
  });
  return true;
};

/** A clone: thin, unless a reservation is named among its properties. */
export async function cloneSnapshot(
  call: Call,
  name: string,
  target: string,
  properties: JsonObject,
): Promise<void> {
  const snapshot = call.sim.world.zfs.snapshots.get(name);
  if (snapshot === undefined) throw new ZfsError("missing", `Snapshot ${name} not found`);
  const source = call.sim.world.zfs.datasets.get(datasetOf(name));
  const local = new Map<string, string>();
  const user = new Map<string, string>();
  for (const [key, value] of Object.entries(properties)) {
    (key.includes(":") ? user : local).set(key, String(value));
  }
  await createDataset(call, target, source?.type ?? "VOLUME", {
    local,
    user,
    volsize: snapshot.volsize,
    volblocksize: source?.volblocksize ?? 16_384,
    refreservation: Number(local.get("refreservation") ?? 0) || 0,
    referenced: 0,
    origin: name,
  });
}

const clone: Handler = async (call, [given]) => {
  const data = object(given);
  const target = String(data.dataset_dst);
  const { datasets } = call.sim.world.zfs;
  if (modern(call) && datasets.has(target)) {
    throw new CallError(`'${target}' already exists`, 22);
  }
  const properties = object(data.dataset_properties);
  // 26 hands them all to a library that knows native properties only (truenas_pylibzfs, ZFSSnapshot.clone).
  const user = modern(call) ? Object.keys(properties).find((key) => key.includes(":")) : undefined;
  if (user !== undefined) throw new PythonError("ValueError", `${user}: not a valid ZFS property.`);
  try {
    await cloneSnapshot(call, String(data.snapshot), target, properties);
  } catch (error) {
    throw zfsText("Failed to clone snapshot: ", error);
  }
  return true;
};

/** What stands in the way of a rollback, in ZFS's words; removes it when that was asked for. */
export async function clearTheWay(call: Call, name: string, options: JsonObject): Promise<void> {
  const { zfs } = call.sim.world;
  if (!zfs.snapshots.has(name)) {
    throw new ZfsError("missing", `cannot open '${name}': dataset does not exist`);
  }
  const newer = zfs.newerThan(name);
  const clonesToo = options.recursive_clones === true;
  if (newer.length > 0 && options.recursive !== true && !clonesToo) {
    const list = newer.map((snapshot) => snapshot.name).join("\n");
    throw new ZfsError(
      "newer",
      `cannot rollback to '${name}': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\n${list}`,
    );
  }
  const clones = newer.flatMap((snapshot) => zfs.clonesOf(snapshot.name));
  if (clones.length > 0 && !clonesToo) {
    throw new ZfsError(
      "clones",
      `cannot rollback to '${name}': clones of previous snapshots exist\nuse '-R' to force deletion of the following clones and dependents:\n${
        clones.join("\n")
      }`,
    );
  }
  const held = newer.find((snapshot) => snapshot.holds.size > 0);
  if (held !== undefined) {
    throw new ZfsError("holds", `cannot destroy '${held.name}': dataset is busy`);
  }
  for (const target of clones) await destroyDataset(call, target, true, true);
  for (const snapshot of newer) await dropSnapshot(call, snapshot.name);
}

const rollBack: Handler = async (call, [id, options]) => {
  try {
    await clearTheWay(call, String(id), object(options));
  } catch (error) {
    if (modern(call) && error instanceof ZfsError && error.kind === "newer") {
      throw new CallError(`Cannot rollback: more recent snapshots exist for '${id}'`, 22);
    }
    throw zfsText("Failed to rollback snapshot: ", error);
  }
  await rollback(call, String(id));
  return null;
};

const hold: Handler = (call, [id, options]) => {
  const name = String(id);
  if (!call.sim.world.zfs.snapshots.has(name)) {
    throw new CallError(`Failed to hold snapshot: Snapshot ${name} not found`);
  }
  for (const snapshot of family(call, name, object(options).recursive === true)) {
    snapshot.holds.set("truenas", Math.floor(call.sim.now() / 1000));
  }
  return null;
};

const release: Handler = async (call, [id, options]) => {
  const name = String(id);
  if (!call.sim.world.zfs.snapshots.has(name)) {
    throw new CallError(`Failed to release snapshot: Snapshot ${name} not found`);
  }
  for (const snapshot of family(call, name, object(options).recursive === true)) {
    snapshot.holds.clear();
    await finishDeferred(call, snapshot.name);
  }
  return null;
};

const rename: Handler = async (call, [id, given]) => {
  const data = object(given);
  const from = String(id);
  const to = String(data.new_name);
  if (data.force !== true) {
    throw singleInvalid(
      "pool.snapshot.rename.force",
      "No safety checks are performed when renaming ZFS resources; this may break existing usages. If you understand the risks, please set force and proceed.",
    );
  }
  if (datasetOf(from) !== datasetOf(to)) {
    throw invalid(
      "pool.snapshot.rename.new_name",
      "Old and new snapshot must be part of the same ZFS dataset",
    );
  }
  const { snapshots } = call.sim.world.zfs;
  if (!snapshots.has(from)) throw new CallError(`Snapshot '${from}' not found`, 2);
  if (snapshots.has(to)) {
    throw new CallError(
      `Failed to rename snapshot: cannot rename '${from}': dataset already exists`,
    );
  }
  await renameSnapshot(call, from, to);
  return null;
};

function named(prefix: string): Methods {
  return {
    [`${prefix}.query`]: querySnapshots,
    [`${prefix}.get_instance`]: getSnapshot,
    [`${prefix}.create`]: create,
    [`${prefix}.update`]: update,
    [`${prefix}.delete`]: remove,
    [`${prefix}.clone`]: clone,
    [`${prefix}.rollback`]: rollBack,
    [`${prefix}.hold`]: hold,
    [`${prefix}.release`]: release,
  };
}

export const snapshots: Methods = {
  ...named("zfs.snapshot"),
  ...named("pool.snapshot"),
  "pool.snapshot.rename": rename,
};
