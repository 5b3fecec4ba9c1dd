/** `pool.dataset`: file systems and zvols. */

import type { Json, JsonObject } from "../json.ts";
import { CallError, invalid, notFound, singleInvalid } from "../errors.ts";
import type { QueryOptions } from "../filters.ts";
import { query } from "../filters.ts";
import { pause } from "../latency.ts";
import type { DatasetWish } from "../views/dataset_view.ts";
import { datasetEntry, EVERYTHING, MANAGED, Space, ZFS_NAMES } from "../views/dataset_view.ts";
import type { Dataset } from "../zfs.ts";
import { parentOf, thickReservation, ZfsError } from "../zfs.ts";
import { removeAttachments } from "./attachments.ts";
import {
  blockSize,
  checkName,
  checkType,
  checkUpdate,
  checkUserUpdates,
} from "./dataset_checks.ts";
import { object } from "./service.ts";
import type { Call, Methods } from "./service.ts";
import {
  createDataset,
  destroyDataset,
  dropSnapshot,
  promote,
  renameDataset,
  resize,
} from "./zfs_work.ts";

const COMPRESSION = [
  ..."ON OFF LZ4 GZIP GZIP-1 GZIP-9 ZSTD ZSTD-FAST ZLE LZJB".split(" "),
  ...Array.from({ length: 19 }, (_, index) => `ZSTD-${index + 1}`),
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 500, 1000]
    .map((level) => `ZSTD-FAST-${level}`),
];

function wishOf(options: QueryOptions): DatasetWish {
  const extra = object(options.extra);
  return {
    properties: Array.isArray(extra.properties) ? extra.properties.map(String) : null,
    children: extra.retrieve_children !== false,
    userProperties: extra.retrieve_user_props !== false,
    snapshots: extra.snapshots === true,
    snapshotCount: extra.snapshots_count === true,
  };
}

/** Each query walks all datasets; only 25.04 looks up an id directly. */
async function walk(call: Call): Promise<void> {
  const { datasets } = call.sim.world.zfs;
  await pause(call.sim.latency.walk(datasets.size, call.sim.release));
}

function entryOf(call: Call, dataset: Dataset, wish = EVERYTHING): JsonObject {
  return datasetEntry(call.sim.world.zfs, dataset, call.sim.release, wish);
}

/** Native properties of a request as ZFS writes them; INHERIT leaves them to the parent. */
function nativeValues(data: JsonObject): Map<string, string> {
  const result = new Map<string, string>();
  for (const [key, zfs] of ZFS_NAMES) {
    const value = data[key];
    if (value === undefined || value === null || value === "INHERIT") continue;
    result.set(
      zfs,
      key === "recordsize" ? String(blockSize(String(value))) : String(value).toLowerCase(),
    );
  }
  return result;
}

function managedValues(data: JsonObject): [string, string][] {
  return [...MANAGED].flatMap(([full, short]) => {
    const value = data[short];
    return value === undefined || value === null || value === "INHERIT"
      ? []
      : [[full, String(value)] as [string, string]];
  });
}

function pairs(list: Json | undefined): JsonObject[] {
  return (Array.isArray(list) ? list : []).map(object);
}

/** What ZFS refuses, as 25.x and 26 put it. */
function createError(call: Call, name: string, error: unknown): unknown {
  if (!(error instanceof ZfsError)) return error;
  const what = call.sim.release.major >= 2600
    ? `Failed to create dataset ${name}: ${error.message}`
    : `Failed to create dataset: ${error.message}`;
  return new CallError(what);
}

async function create(call: Call, given: Json | undefined): Promise<Json> {
  const { sim } = call;
  const { zfs } = sim.world;
  const data = object(given);
  const name = String(data.name);
  await walk(call);
  checkName(call, data);
  checkType(call, data, new Space(zfs));
  for (let depth = 0; depth < name.split("/").length; depth += 1) await walk(call);
  const missing: string[] = [];
  for (let parent = parentOf(name); !zfs.datasets.has(parent); parent = parentOf(parent)) {
    missing.unshift(parent);
  }
  const volume = data.type === "VOLUME";
  const volsize = volume ? Number(data.volsize) : 0;
  const volblocksize = blockSize(String(data.volblocksize ?? "16K"));
  const local = nativeValues(data);
  if (!volume) local.set("xattr", "sa");
  const asked = data.refreservation;
  if (asked !== undefined) local.set("refreservation", String(asked));
  try {
    for (const ancestor of missing) await createDataset(call, ancestor, "FILESYSTEM", {});
    const dataset = await createDataset(call, name, volume ? "VOLUME" : "FILESYSTEM", {
      local,
      user: new Map([
        ...managedValues(data),
        ...pairs(data.user_properties).map(({ key, value }) =>
          [String(key), String(value)] as [string, string]
        ),
      ]),
      volsize,
      volblocksize,
      refreservation: typeof asked === "number"
        ? asked
        : volume && data.sparse !== true
        ? thickReservation(volsize, volblocksize)
        : 0,
    });
    const entry = entryOf(call, dataset);
    sim.emit({ msg: "added", collection: "pool.dataset.query", id: name, fields: entry });
    return entry;
  } catch (error) {
    throw createError(call, name, error);
  }
}

function updateUser(call: Call, dataset: Dataset, data: JsonObject): void {
  const { user } = dataset;
  if (data.user_properties !== undefined) {
    const managed = [...user].filter(([key]) => MANAGED.has(key));
    const first = managed[0];
    // 25.10 trips over its own short names when it drops the old set.
    if (first !== undefined && call.sim.release.major >= 2510) {
      throw invalid(
        `properties.${MANAGED.get(first[0])}`,
        "Property does not exist and cannot be inherited",
      );
    }
    user.clear();
    for (const [key, value] of managed) user.set(key, value);
    for (const { key, value } of pairs(data.user_properties)) user.set(String(key), String(value));
  }
  for (const { key, value, remove } of pairs(data.user_properties_update)) {
    if (remove) user.delete(String(key));
    else user.set(String(key), String(value));
  }
  for (const [full, short] of MANAGED) {
    const value = data[short];
    if (value === "INHERIT") user.delete(full);
    else if (value !== undefined && value !== null) user.set(full, String(value));
  }
}

async function update(call: Call, [id, given]: Json[]): Promise<Json> {
  const { sim } = call;
  const name = String(id);
  const data = object(given);
  await walk(call);
  const dataset = sim.world.zfs.datasets.get(name);
  if (dataset === undefined) throw invalid("id", `${name} does not exist`, 2);
  checkUpdate(call, dataset, data);
  checkUserUpdates(pairs(data.user_properties_update));
  updateUser(call, dataset, data);
  for (const [key, zfs] of ZFS_NAMES) {
    if (data[key] === "INHERIT") dataset.local.delete(zfs);
  }
  for (const [key, value] of nativeValues(data)) dataset.local.set(key, value);
  if (typeof data.refreservation === "number") {
    dataset.refreservation = data.refreservation;
    dataset.local.set("refreservation", String(data.refreservation));
  }
  if (data.readonly !== undefined) await copyReadonly(call, dataset);
  const size = data.volsize;
  if (typeof size === "number" && size !== dataset.volsize) {
    // ZFS keeps a volume thick as it grows, but only one with the very reservation that it reckons itself
    // (lib/libzfs/libzfs_dataset.c, zfs_add_synthetic_resv).
    if (dataset.refreservation === thickReservation(dataset.volsize, dataset.volblocksize)) {
      dataset.refreservation = thickReservation(size, dataset.volblocksize);
    }
    await resize(call, dataset, size);
  }
  await walk(call);
  await walk(call);
  const entry = entryOf(call, dataset);
  sim.emit({ msg: "changed", collection: "pool.dataset.query", id: name, fields: entry });
  return entry;
}

/** An extent on the zvol follows its `readonly`. */
async function copyReadonly(call: Call, dataset: Dataset): Promise<void> {
  const ro = call.sim.world.zfs.property(dataset.name, "readonly")?.value === "on";
  const path = `zvol/${dataset.name.replaceAll(" ", "+")}`;
  const extent = call.sim.world.tables.extent.find((row) => row.path === path);
  if (extent === undefined || extent.ro === ro) return;
  call.sim.world.tables.extent.patch(Number(extent.id), { ro });
  await call.sim.reloads.reload("iscsitarget");
}

async function remove(call: Call, [id, given]: Json[]): Promise<Json> {
  const { zfs } = call.sim.world;
  const options = object(given);
  const name = String(id);
  const recursive = options.recursive === true;
  const modern = call.sim.release.major >= 2600;
  await walk(call);
  const dataset = zfs.datasets.get(name);
  if (!recursive && zfs.childrenOf(name).length > 0) {
    throw new CallError(
      `Failed to delete dataset: cannot destroy '${name}': filesystem has children`,
      39,
    );
  }
  if (dataset === undefined) throw notFound(`PoolDataset ${name} does not exist`);
  // The shares go before anything is known of the destroy's fate.
  await removeAttachments(call, name);
  if (modern && !recursive && zfs.snapshotsOf(name).length > 0) {
    throw singleInvalid("zfs.resource.destroy", `'${name}' has snapshots`, 39);
  }
  try {
    await destroyDataset(call, name, recursive, modern);
  } catch (error) {
    if (!(error instanceof ZfsError)) throw error;
    // 26 does not look at what became of it.
    if (modern) return true;
    throw new CallError(
      `Failed to delete dataset: ${error.message}`,
      error.kind === "busy" ? 16 : 14,
    );
  }
  return true;
}

export const datasets: Methods = {
  "pool.dataset.query": async (call, [filters, given]) => {
    const options = object(given) as QueryOptions;
    await walk(call);
    const { zfs } = call.sim.world;
    // Since 25.10 the count is that of the walk, before any filter.
    if (options.count && call.sim.release.major >= 2510) return zfs.datasets.size;
    const wish = wishOf(options);
    const space = new Space(zfs);
    const names = candidates(filters, [...zfs.datasets.keys()].sort());
    const rows = names.flatMap((name) => {
      const dataset = zfs.datasets.get(name);
      return dataset === undefined
        ? []
        : [datasetEntry(zfs, dataset, call.sim.release, wish, space)];
    });
    const nested = object(options.extra).flat === false &&
      (!Array.isArray(filters) || filters.length === 0);
    return query(
      nested ? rows.filter((row) => !String(row.id).includes("/")) : rows,
      filters ?? [],
      options,
    );
  },
  "pool.dataset.get_instance": async (call, [id, options]) => {
    await walk(call);
    const dataset = call.sim.world.zfs.datasets.get(String(id));
    if (dataset === undefined) throw notFound(`PoolDataset ${id} does not exist`);
    return entryOf(call, dataset, wishOf(object(options) as QueryOptions));
  },
  "pool.dataset.create": (call, [data]) => create(call, data),
  "pool.dataset.update": update,
  "pool.dataset.delete": remove,
  "pool.dataset.promote": async (call, [id]) => {
    const name = String(id);
    const dataset = call.sim.world.zfs.datasets.get(name);
    if (dataset === undefined) throw new CallError(`Dataset "${name}" does not exist.`, 2);
    if (dataset.origin === undefined) {
      if (call.sim.release.major >= 2600) {
        throw singleInvalid("zfs.resource.promote", `'${name}' is ineligible for promotion.`);
      }
      throw new CallError("Only cloned datasets can be promoted.", 74);
    }
    try {
      await promote(call, name);
    } catch (error) {
      if (error instanceof ZfsError) {
        throw new CallError(`Failed to promote dataset: ${error.message}`);
      }
      throw error;
    }
    return null;
  },
  "pool.dataset.rename": async (call, [id, given]) => {
    const data = object(given);
    const name = String(id);
    if (data.force !== true) {
      throw singleInvalid(
        "pool.dataset.rename.force",
        "No safety checks are performed when renaming ZFS resources; this may break existing usages. If you understand the risks, please set force and proceed.",
      );
    }
    if (!call.sim.world.zfs.datasets.has(name)) {
      throw new CallError(`Dataset '${name}' not found`, 2);
    }
    try {
      await renameDataset(call, name, String(data.new_name));
    } catch (error) {
      if (error instanceof ZfsError) {
        throw new CallError(`Failed to rename dataset: ${error.message}`);
      }
      throw error;
    }
    return null;
  },
  "pool.dataset.attachments": (call, [id]) => {
    const { tables } = call.sim.world;
    const paths = call.sim.world.zfs.subtree(String(id)).map((name) =>
      `zvol/${name.replaceAll(" ", "+")}`
    );
    const extents = tables.extent.all().filter((row) => paths.includes(String(row.path)));
    const spaces = tables.namespace.all().filter((row) =>
      paths.includes(String(row.device_path).replaceAll(" ", "+"))
    );
    return [
      ...(extents.length === 0 ? [] : [{
        type: "iSCSI Extent",
        service: "iscsitarget",
        attachments: extents.map((row) => String(row.name)),
      }]),
      ...(spaces.length === 0 ? [] : [{
        type: "NVMe-oF Namespace",
        service: "nvmet",
        attachments: spaces.map((row) => String(row.device_path)),
      }]),
    ];
  },
  "pool.dataset.compression_choices": () =>
    Object.fromEntries(COMPRESSION.map((name) => [name, name])),
  "pool.dataset.recommended_zvol_blocksize": () => "16K",
  "pool.dataset.snapshot_count": (call, [id]) => call.sim.world.zfs.snapshotsOf(String(id)).length,
  "pool.dataset.details": async (call) => {
    await walk(call);
    const { zfs } = call.sim.world;
    return [...zfs.pools.keys()].flatMap((pool) => {
      const dataset = zfs.datasets.get(pool);
      return dataset === undefined ? [] : [entryOf(call, dataset)];
    });
  },
  "pool.dataset.destroy_snapshots": async (call, [id, given]) => {
    const name = String(id);
    const { zfs } = call.sim.world;
    const wanted = object(given);
    call.progress(20, "Initial validation complete");
    const own = zfs.snapshotsOf(name).map((snapshot) => snapshot.name);
    const names = wanted.all === true
      ? own
      : (Array.isArray(wanted.snapshots) ? wanted.snapshots : []).filter((s) =>
        typeof s === "string"
      )
        .map((snap) => `${name}@${snap}`);
    const missing = names.filter((snapshot) => !own.includes(snapshot));
    if (missing.length > 0) {
      const snaps = missing.map((snapshot) => snapshot.split("@")[1]).join(", ");
      throw new CallError(`${snaps} snapshot(s) could not be located`);
    }
    for (const snapshot of names) await dropSnapshot(call, snapshot);
    return names;
  },
};

/** Names that a filter by id can match, so that not every dataset needs to be dressed. */
function candidates(filters: Json | undefined, names: string[]): string[] {
  for (const filter of Array.isArray(filters) ? filters : []) {
    if (!Array.isArray(filter) || (filter[0] !== "id" && filter[0] !== "name")) continue;
    const wanted = filter[2];
    if (filter[1] === "=") return names.filter((name) => name === wanted);
    if (filter[1] === "in" && Array.isArray(wanted)) {
      const set = new Set(wanted);
      return names.filter((name) => set.has(name));
    }
  }
  return names;
}
