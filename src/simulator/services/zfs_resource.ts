/** `zfs.resource`: direct reads (25.10) and the newer ways to change pools (26). */

import type { Json, JsonObject } from "../json.ts";
import { singleInvalid } from "../errors.ts";
import { Space } from "../views/dataset_view.ts";
import { resourceEntry } from "../views/resource_view.ts";
import { resourceSnapshotEntry } from "../views/snapshot_view.ts";
import { datasetOf, ZfsError } from "../zfs.ts";
import { clearTheWay, cloneSnapshot, destroySnapshot, family } from "./snapshot.ts";
import { object } from "./service.ts";
import type { Call, Handler, Methods } from "./service.ts";
import {
  createSnapshot,
  destroyDataset,
  finishDeferred,
  renameSnapshot,
  rollback,
} from "./zfs_work.ts";

const strings = (value: Json | undefined): string[] =>
  (Array.isArray(value) ? value : []).map(String);

function properties(value: Json | undefined): string[] | null {
  return value === null ? null : strings(value);
}

function checkPaths(call: Call, paths: string[], children: boolean): void {
  const at = "zfs.resource.query";
  if (paths.some((path) => path.includes("@"))) {
    throw singleInvalid(at, "Querying snapshot information is unsupported at this time.");
  }
  const overlap = paths.some((path) =>
    paths.some((other) => other !== path && path.startsWith(`${other}/`))
  );
  if (children && overlap) {
    throw singleInvalid(
      at,
      "Paths must be non-overlapping - no path can be relative to another when get_children is set to True.",
    );
  }
  if (call.sim.release.major >= 2600) return;
  // Since 26 a missing path is left out in silence.
  const missing = paths.find((path) => !call.sim.world.zfs.datasets.has(path));
  if (missing !== undefined) throw singleInvalid(at, `'${missing}': not found`, 2);
}

const queryResources: Handler = (call, [given]) => {
  const data = object(given);
  const { zfs } = call.sim.world;
  const modern = call.sim.release.major >= 2600;
  const wish = {
    properties: properties(data.properties),
    source: data.get_source !== false,
    user: data.get_user_properties === true,
  };
  const children = data.get_children === true;
  const paths = strings(data.paths);
  checkPaths(call, paths, children);
  const roots = paths.length === 0 ? [...zfs.pools.keys()] : paths;
  const depth = Number(data.max_depth ?? 0) || Infinity;
  const space = new Space(zfs);
  const entries = new Map<string, JsonObject>();
  const visit = (name: string, level: number) => {
    const dataset = zfs.datasets.get(name);
    if (dataset === undefined) return;
    const entry = resourceEntry(zfs, dataset, wish, space);
    if (modern) {
      if (wish.properties === null) entry.properties = null;
      entry.children = data.nest_results === true ? [] : null;
      entry.tier = null;
    }
    entries.set(name, entry);
    if (!children || level >= depth) return;
    for (const child of zfs.childrenOf(name)) visit(child, level + 1);
  };
  for (const root of roots) visit(root, 0);
  if (data.nest_results !== true) return [...entries.values()];
  for (const [name, entry] of entries) {
    const parent = entries.get(name.slice(0, name.lastIndexOf("/")));
    if (name.includes("/") && Array.isArray(parent?.children)) parent.children.push(entry);
  }
  return roots.flatMap((root) => entries.get(root) ?? []);
};

function snapshotOf(call: Call, at: string, path: Json | undefined): string {
  const name = String(path);
  if (!call.sim.world.zfs.snapshots.has(name)) {
    throw singleInvalid(at, `'${name}' does not exist`, 2);
  }
  return name;
}

function refused(at: string, error: unknown): unknown {
  if (!(error instanceof ZfsError)) return error;
  // The library tells its own number for a busy zvol, not that of the system.
  const errno = {
    exists: 17,
    missing: 2,
    busy: 2007,
    holds: 16,
    clones: 16,
    children: 39,
  } as Record<
    string,
    number
  >;
  return singleInvalid(at, error.message, errno[error.kind] ?? 22);
}

export const zfsResources: Methods = {
  "zfs.resource.query": queryResources,
  "zfs.resource.destroy": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.destroy";
    const path = String(data.path);
    const { zfs } = call.sim.world;
    const recursive = data.recursive === true;
    if (!zfs.datasets.has(path)) throw singleInvalid(at, `'${path}' does not exist`, 2);
    if (!recursive && zfs.childrenOf(path).length > 0) {
      throw singleInvalid(at, `'${path}' has children`, 39);
    }
    if (!recursive && zfs.snapshotsOf(path).length > 0) {
      throw singleInvalid(at, `'${path}' has snapshots`, 39);
    }
    try {
      await destroyDataset(call, path, recursive, true);
    } catch (error) {
      throw refused(at, error);
    }
    return null;
  },
  "zfs.resource.snapshot.query": (call, [given]) => {
    const data = object(given);
    const { zfs } = call.sim.world;
    const wish = {
      properties: properties(data.properties),
      holds: data.get_holds === true,
      user: data.get_user_properties === true,
      source: data.get_source === true,
    };
    const min = Number(data.min_txg ?? 0);
    const max = Number(data.max_txg ?? 0) || Infinity;
    return snapshotNames(call, data).flatMap((name) => {
      const snapshot = zfs.snapshots.get(name);
      if (snapshot === undefined || snapshot.createtxg < min || snapshot.createtxg > max) return [];
      return [resourceSnapshotEntry(zfs, snapshot, wish)];
    });
  },
  "zfs.resource.snapshot.count": (call, [given]) => {
    const counts: JsonObject = {};
    for (const name of snapshotNames(call, object(given))) {
      counts[datasetOf(name)] = Number(counts[datasetOf(name)] ?? 0) + 1;
    }
    return counts;
  },
  "zfs.resource.snapshot.create": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.snapshot.create";
    const { zfs } = call.sim.world;
    const dataset = String(data.dataset);
    if (!zfs.datasets.has(dataset)) throw singleInvalid(at, `'${dataset}' does not exist`, 2);
    const user = Object.fromEntries(
      Object.entries(object(data.user_properties)).map(([key, value]) => [key, String(value)]),
    );
    const excluded = strings(data.exclude);
    const members = data.recursive === true ? zfs.subtree(dataset) : [dataset];
    try {
      for (const name of members) {
        if (!excluded.includes(name)) await createSnapshot(call, name, String(data.name), user);
      }
    } catch (error) {
      throw refused(at, error);
    }
    const snapshot = zfs.snapshots.get(`${dataset}@${data.name}`);
    if (snapshot === undefined) return null;
    return resourceSnapshotEntry(zfs, snapshot, {
      properties: [],
      holds: false,
      user: true,
      source: false,
    });
  },
  "zfs.resource.snapshot.destroy": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.snapshot.destroy";
    const path = String(data.path);
    const { zfs } = call.sim.world;
    const recursive = data.recursive === true;
    const names = data.all_snapshots === true
      ? (recursive ? zfs.subtree(path) : [path]).flatMap((name) => zfs.snapshotsOf(name))
      : family(call, snapshotOf(call, at, path), recursive);
    for (const snapshot of names) {
      await destroySnapshot(call, snapshot, data.defer === true, recursive);
    }
    return null;
  },
  "zfs.resource.snapshot.clone": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.snapshot.clone";
    const name = snapshotOf(call, at, data.snapshot);
    const target = String(data.dataset);
    if (call.sim.world.zfs.datasets.has(target)) {
      throw singleInvalid(at, `'${target}' already exists`, 17);
    }
    try {
      await cloneSnapshot(call, name, target, object(data.properties));
    } catch (error) {
      throw refused(at, error);
    }
    return null;
  },
  "zfs.resource.snapshot.rollback": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.snapshot.rollback";
    const name = snapshotOf(call, at, data.path);
    try {
      await clearTheWay(call, name, data);
    } catch (error) {
      throw refused(at, error);
    }
    await rollback(call, name);
    return null;
  },
  "zfs.resource.snapshot.hold": (call, [given]) => {
    const data = object(given);
    const name = snapshotOf(call, "zfs.resource.snapshot.hold", data.path);
    for (const snapshot of family(call, name, data.recursive === true)) {
      snapshot.holds.set(String(data.tag ?? "truenas"), Math.floor(call.sim.now() / 1000));
    }
    return null;
  },
  "zfs.resource.snapshot.holds": (call, [given]) => {
    const name = snapshotOf(call, "zfs.resource.snapshot.holds", object(given).path);
    return [...call.sim.world.zfs.snapshots.get(name)?.holds.keys() ?? []];
  },
  "zfs.resource.snapshot.release": async (call, [given]) => {
    const data = object(given);
    const name = snapshotOf(call, "zfs.resource.snapshot.release", data.path);
    for (const snapshot of family(call, name, data.recursive === true)) {
      if (typeof data.tag === "string") snapshot.holds.delete(data.tag);
      else snapshot.holds.clear();
      await finishDeferred(call, snapshot.name);
    }
    return null;
  },
  "zfs.resource.snapshot.rename": async (call, [given]) => {
    const data = object(given);
    const at = "zfs.resource.snapshot.rename";
    const name = snapshotOf(call, at, data.current_name);
    const to = String(data.new_name);
    if (call.sim.world.zfs.snapshots.has(to)) {
      throw singleInvalid(at, `'${to}' already exists`, 17);
    }
    await renameSnapshot(call, name, to);
    return null;
  },
};

/** Paths of datasets mean their snapshots; paths of snapshots mean themselves; none means all. */
function snapshotNames(call: Call, data: JsonObject): string[] {
  const { zfs } = call.sim.world;
  const paths = strings(data.paths);
  const recursive = data.recursive === true;
  const below = (name: string) => (recursive ? zfs.subtree(name) : [name]);
  if (paths.length === 0) return [...zfs.snapshots.keys()];
  return paths.flatMap((path) =>
    path.includes("@")
      ? [path]
      : below(path).flatMap((name) => zfs.snapshotsOf(name).map((snapshot) => snapshot.name))
  );
}
