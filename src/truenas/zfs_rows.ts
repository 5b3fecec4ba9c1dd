/**
 * Datasets and zvols as both of the array's queries tell them: `zfs.resource.query` (25.10+), which
 * opens only what it is asked for, and `pool.dataset.query` on 25.04, which knows no guid.
 */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { isAbsent } from "./errors.ts";
import { bag, read, type Request, rows } from "./request.ts";
import { nameOf, numberOf, textOf, timeOf, userPropertiesOf } from "./value.ts";

/** A filesystem or zvol, with those values that were asked for and exist for its type. */
export interface ZfsRow {
  /** Full path, e.g. `tank/pve/vm-100-disk-0`. */
  readonly name: string;
  readonly type: "FILESYSTEM" | "VOLUME";
  /** Bytes that the data and snapshots take. */
  readonly used: number | undefined;
  /** Bytes that may still be written. */
  readonly available: number | undefined;
  /** Bytes; zvols only. */
  readonly volsize: number | undefined;
  /** Bytes; zvols only. */
  readonly volblocksize: number | undefined;
  /** Bytes; undefined on 25.04. */
  readonly referenced: number | undefined;
  /** Bytes; 0 for a sparse zvol. */
  readonly refreservation: number | undefined;
  /** Milliseconds since the epoch, whole seconds. */
  readonly createdMs: number | undefined;
  /** The snapshot that it is a clone of, `tank/pve/base@__base__`. */
  readonly origin: string | undefined;
  /** Decimal text of the 64-bit guid; undefined on 25.04, whose API does not tell it. */
  readonly guid: string | undefined;
  /** Decimal text of the transaction it was created in; undefined on 25.04. */
  readonly createTxg: string | undefined;
  /** Those with a colon in their name; values may be inherited. */
  readonly userProperties: Readonly<Record<string, string>>;
}

const PROPERTIES = ["used", "available", "volsize", "volblocksize", "refreservation"];
const RESOURCE_PROPERTIES = [
  ...PROPERTIES,
  "referenced",
  "creation",
  "origin",
  "guid",
  "createtxg",
];
const DATASET_PROPERTIES = [...PROPERTIES, "creation", "origin"];

const resourceRow = v.object({
  name: v.string(),
  type: v.string(),
  properties: v.nullish(bag, {}),
  user_properties: v.nullish(bag),
});

const datasetRow = v.looseObject({
  id: v.string(),
  type: v.string(),
  user_properties: v.nullish(bag),
});

function rowOf(
  name: string,
  type: string,
  properties: Readonly<Record<string, unknown>>,
  user: unknown,
): ZfsRow {
  return {
    name,
    type: type === "VOLUME" ? "VOLUME" : "FILESYSTEM",
    used: numberOf(properties["used"]),
    available: numberOf(properties["available"]),
    volsize: numberOf(properties["volsize"]),
    volblocksize: numberOf(properties["volblocksize"]),
    referenced: numberOf(properties["referenced"]),
    refreservation: numberOf(properties["refreservation"]),
    createdMs: timeOf(properties["creation"]),
    origin: nameOf(properties["origin"]),
    guid: textOf(properties["guid"]),
    createTxg: textOf(properties["createtxg"]),
    userProperties: userPropertiesOf(user),
  };
}

/** Asks `zfs.resource.query` for these paths. On 25.10 one missing path fails the whole call. */
async function queryResources(
  caller: Caller,
  query: Readonly<Record<string, unknown>>,
  doing: string,
  wait: Wait | undefined,
): Promise<ZfsRow[]> {
  const request: Request = {
    method: "zfs.resource.query",
    params: [{
      properties: RESOURCE_PROPERTIES,
      get_user_properties: true,
      get_source: false,
      ...query,
    }],
    doing,
  };
  const found = await read(caller, request, rows(resourceRow), wait);
  return found.map((row) => rowOf(row.name, row.type, row.properties ?? {}, row.user_properties));
}

/** Asks `pool.dataset.query` (25.04). */
async function queryDatasets(
  caller: Caller,
  filters: readonly unknown[],
  extra: Readonly<Record<string, unknown>>,
  doing: string,
  wait: Wait | undefined,
): Promise<ZfsRow[]> {
  const request: Request = {
    method: "pool.dataset.query",
    params: [filters, {
      select: ["id", "type", "user_properties", ...DATASET_PROPERTIES],
      extra: { properties: DATASET_PROPERTIES, ...extra },
    }],
    doing,
  };
  const found = await read(caller, request, rows(datasetRow), wait);
  return found.map((row) => rowOf(row.id, row.type, row, row.user_properties));
}

/** One dataset or zvol, or undefined when it does not exist. */
export async function readOne(
  caller: Caller,
  name: string,
  doing: string,
  wait?: Wait,
): Promise<ZfsRow | undefined> {
  if (!caller.release.can.zfsResource) {
    // This one filter alone makes it a direct look-up.
    const found = await queryDatasets(
      caller,
      [["id", "=", name]],
      { retrieve_children: false },
      doing,
      wait,
    );
    return found[0];
  }
  try {
    return (await queryResources(caller, { paths: [name] }, doing, wait))[0];
  } catch (error) {
    // 26 leaves a missing path out, 25.10 refuses.
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/**
 * Whether the key of an encrypted dataset is not loaded: what is below it is listed, and offered to nobody.
 * False for one that is not encrypted or not there, and on 25.04, which is not asked.
 */
export async function isLocked(
  caller: Caller,
  name: string,
  doing: string,
  wait?: Wait,
): Promise<boolean> {
  if (!caller.release.can.zfsResource) return false;
  const query = {
    paths: [name],
    properties: ["keystatus"],
    get_user_properties: false,
    get_source: false,
  };
  const request: Request = { method: "zfs.resource.query", params: [query], doing };
  try {
    const [row] = await read(caller, request, rows(resourceRow), wait);
    return textOf(row?.properties?.["keystatus"]) === "unavailable";
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

/** Those of several datasets and zvols that exist, in one call as a rule. */
export async function readMany(
  caller: Caller,
  names: readonly string[],
  doing: string,
  wait?: Wait,
): Promise<ZfsRow[]> {
  const paths = [...new Set(names)];
  if (paths.length === 0) return [];
  if (!caller.release.can.zfsResource) {
    return await queryDatasets(caller, [["id", "in", paths]], {}, doing, wait);
  }
  try {
    return await queryResources(caller, { paths }, doing, wait);
  } catch (error) {
    if (!isAbsent(error)) throw error;
    // 25.10 fails the whole call for one missing path, and names it only in its text.
    const each = await Promise.all(paths.map((path) => readOne(caller, path, doing, wait)));
    return each.filter((row) => row !== undefined);
  }
}

/** A dataset and what is directly below it; the first is undefined when it does not exist. */
export async function readChildren(
  caller: Caller,
  parent: string,
  doing: string,
  wait?: Wait,
): Promise<{ parent: ZfsRow | undefined; children: ZfsRow[] }> {
  let found: ZfsRow[];
  if (!caller.release.can.zfsResource) {
    const filter = ["OR", [["id", "=", parent], ["id", "^", `${parent}/`]]];
    found = await queryDatasets(caller, [filter], {}, doing, wait);
  } else {
    const depth = caller.release.can.zfsResourceWrites ? { max_depth: 1 } : {};
    try {
      const query = { paths: [parent], get_children: true, ...depth };
      found = await queryResources(caller, query, doing, wait);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      found = [];
    }
  }
  const prefix = `${parent}/`;
  return {
    parent: found.find((row) => row.name === parent),
    children: found.filter((row) =>
      row.name.startsWith(prefix) && !row.name.slice(prefix.length).includes("/")
    ),
  };
}

/** Everything in a pool that is a clone, as (name, origin); the properties of nothing else are read. */
export async function readOrigins(
  caller: Caller,
  pool: string,
  doing: string,
  wait?: Wait,
): Promise<{ name: string; origin: string }[]> {
  const found = caller.release.can.zfsResource
    ? await queryResources(
      caller,
      { paths: [pool], get_children: true, properties: ["origin"], get_user_properties: false },
      doing,
      wait,
    )
    : await queryDatasets(
      caller,
      [["pool", "=", pool]],
      { properties: ["origin"], retrieve_user_props: false },
      doing,
      wait,
    );
  return found.flatMap((row) =>
    row.origin === undefined ? [] : [{ name: row.name, origin: row.origin }]
  );
}
