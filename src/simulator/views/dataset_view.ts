/** How a dataset looks in `pool.dataset.query`, by release. */

import type { Json, JsonObject } from "../json.ts";
import { date } from "../json.ts";
import type { Release } from "../release.ts";
import type { Dataset, Zfs } from "../zfs.ts";
import { nicenum, sizeText } from "./sizes.ts";

/** How the value of a native property is read. */
export type Kind = "flag" | "word" | "limit" | "count" | "text";

export interface Native {
  readonly key: string;
  readonly zfs: string;
  readonly preset: string;
  readonly kind: Kind;
  readonly only?: "FILESYSTEM" | "VOLUME";
  readonly inherits?: false;
}

/** The native properties that the API shows, with ZFS's defaults. */
export const NATIVE: readonly Native[] = [
  { key: "deduplication", zfs: "dedup", preset: "off", kind: "word" },
  { key: "aclmode", zfs: "aclmode", preset: "discard", kind: "word", only: "FILESYSTEM" },
  { key: "acltype", zfs: "acltype", preset: "off", kind: "word", only: "FILESYSTEM" },
  { key: "xattr", zfs: "xattr", preset: "sa", kind: "flag", only: "FILESYSTEM" },
  { key: "atime", zfs: "atime", preset: "on", kind: "flag", only: "FILESYSTEM" },
  {
    key: "casesensitivity",
    zfs: "casesensitivity",
    preset: "sensitive",
    kind: "word",
    only: "FILESYSTEM",
  },
  { key: "checksum", zfs: "checksum", preset: "on", kind: "flag" },
  { key: "exec", zfs: "exec", preset: "on", kind: "flag", only: "FILESYSTEM" },
  { key: "sync", zfs: "sync", preset: "standard", kind: "word" },
  { key: "compression", zfs: "compression", preset: "on", kind: "word" },
  { key: "quota", zfs: "quota", preset: "0", kind: "limit", only: "FILESYSTEM", inherits: false },
  {
    key: "refquota",
    zfs: "refquota",
    preset: "0",
    kind: "limit",
    only: "FILESYSTEM",
    inherits: false,
  },
  { key: "reservation", zfs: "reservation", preset: "0", kind: "limit", inherits: false },
  { key: "copies", zfs: "copies", preset: "1", kind: "count" },
  { key: "snapdir", zfs: "snapdir", preset: "hidden", kind: "word", only: "FILESYSTEM" },
  { key: "readonly", zfs: "readonly", preset: "off", kind: "flag" },
  { key: "recordsize", zfs: "recordsize", preset: "131072", kind: "count", only: "FILESYSTEM" },
  {
    key: "special_small_block_size",
    zfs: "special_small_blocks",
    preset: "0",
    kind: "text",
    only: "FILESYSTEM",
  },
  { key: "snapdev", zfs: "snapdev", preset: "hidden", kind: "word" },
];

/** API name of a property to its ZFS name. */
export const ZFS_NAMES: ReadonlyMap<string, string> = new Map(
  NATIVE.map(({ key, zfs }) => [key, zfs]),
);

/** User properties that TrueNAS itself manages, with the short names it gives them. */
export const MANAGED: ReadonlyMap<string, string> = new Map([
  ["org.freenas:description", "comments"],
  ["org.truenas:managedby", "managedby"],
  ["org.freenas:quota_warning", "quota_warning"],
  ["org.freenas:quota_critical", "quota_critical"],
  ["org.freenas:refquota_warning", "refquota_warning"],
  ["org.freenas:refquota_critical", "refquota_critical"],
]);

/** What a query wants to see of each dataset. */
export interface DatasetWish {
  /** ZFS or API names; null for all, an empty list for none. */
  readonly properties: readonly string[] | null;
  readonly children: boolean;
  readonly userProperties: boolean;
  readonly snapshots: boolean;
  readonly snapshotCount: boolean;
}

export const EVERYTHING: DatasetWish = {
  properties: null,
  children: true,
  userProperties: true,
  snapshots: false,
  snapshotCount: false,
};

/** Bytes used by each dataset and free in each pool, reckoned once for a whole listing. */
export class Space {
  private readonly usedBy = new Map<string, number>();

  constructor(private readonly zfs: Zfs) {}

  used(name: string): number {
    const known = this.usedBy.get(name);
    if (known !== undefined) return known;
    const dataset = this.zfs.datasets.get(name);
    if (dataset === undefined) return 0;
    let sum = dataset.referenced + this.zfs.usedByRefreservation(dataset);
    for (const child of this.zfs.childrenOf(name)) sum += this.used(child);
    this.usedBy.set(name, sum);
    return sum;
  }

  available(dataset: Dataset): number {
    const pool = dataset.name.split("/")[0] ?? "";
    const taken = this.used(pool) + this.zfs.stillFreeing(pool);
    const free = Math.max(0, (this.zfs.pools.get(pool) ?? 0) - taken);
    return free + (dataset.type === "VOLUME" ? this.zfs.usedByRefreservation(dataset) : 0);
  }
}

function property(parsed: Json, raw: string, value: Json, source: string, info: Json): JsonObject {
  return { parsed, rawvalue: raw, value, source, source_info: info };
}

/** One native property with its value, its source and where that is. */
export function nativeProperty(zfs: Zfs, dataset: Dataset, native: Native): JsonObject {
  const found = zfs.property(dataset.name, native.zfs, native.inherits ?? true);
  const raw = found?.value ?? native.preset;
  const source = found === undefined
    ? "DEFAULT"
    : found.from === dataset.name
    ? "LOCAL"
    : "INHERITED";
  const info = source === "INHERITED" ? found?.from ?? null : null;
  switch (native.kind) {
    case "flag":
      return property(
        raw === "on" ? true : raw === "off" ? false : null,
        raw,
        raw.toUpperCase(),
        source,
        info,
      );
    case "limit":
      return raw === "0"
        ? property(null, raw, null, source, info)
        : property(Number(raw), raw, sizeText(Number(raw)), source, info);
    case "count":
      return property(Number(raw), raw, nicenum(Number(raw)), source, info);
    case "text":
      return property(raw, raw, raw, source, info);
    case "word":
      return property(raw, raw, raw.toUpperCase(), source, info);
  }
}

/** One entry of `pool.dataset.query`. */
export function datasetEntry(
  zfs: Zfs,
  dataset: Dataset,
  release: Release,
  wish: DatasetWish,
  space = new Space(zfs),
): JsonObject {
  const old = release.major === 2504;
  const { name, type } = dataset;
  const wanted = wish.properties;
  const entry: JsonObject = { id: name, type, name, pool: name.split("/")[0] ?? name };
  if (wanted === null) {
    Object.assign(entry, {
      encrypted: dataset.locked,
      encryption_root: dataset.locked ? name : null,
      key_loaded: false,
    });
  }
  if (wish.children) {
    entry.children = zfs.childrenOf(name).flatMap((child) => {
      const below = zfs.datasets.get(child);
      return below === undefined ? [] : [datasetEntry(zfs, below, release, wish, space)];
    });
  } else if (!old) entry.children = [];
  const own = nativeProperties(zfs, dataset, release, space, wanted);
  Object.assign(entry, own);
  const user = userProperties(zfs, dataset, release, wish.userProperties);
  Object.assign(entry, user.top, { user_properties: user.rest });
  if (wanted === null) entry.locked = dataset.locked;
  entry.mountpoint = type === "VOLUME" ? null : `/mnt/${name}`;
  if (wish.snapshots) {
    entry.snapshots = zfs.snapshotsOf(name).map((snapshot) => ({
      id: snapshot.name,
      name: snapshot.name,
      snapshot_name: snapshot.name.split("@")[1] ?? "",
      createtxg: String(snapshot.createtxg),
    }));
  }
  if (wish.snapshotCount) entry.snapshot_count = zfs.snapshotsOf(name).length;
  return entry;
}

function nativeProperties(
  zfs: Zfs,
  dataset: Dataset,
  release: Release,
  space: Space,
  wanted: readonly string[] | null,
): JsonObject {
  const volume = dataset.type === "VOLUME";
  const size = release.major === 2504 ? nicenum : sizeText;
  const used = space.used(dataset.name);
  const reserved = zfs.usedByRefreservation(dataset);
  const origin = dataset.origin ?? "";
  const bytes = (value: number) => property(value, String(value), size(value), "NONE", null);
  const lazily: Record<string, () => JsonObject> = {
    compressratio: () => property("1.00", "1.00", "1.00x", "NONE", null),
    origin: () =>
      property(
        origin,
        origin,
        release.major === 2504 ? origin : origin.toUpperCase(),
        "NONE",
        null,
      ),
    refreservation: () => {
      const raw = String(dataset.refreservation);
      const source = dataset.local.has("refreservation") || dataset.refreservation > 0
        ? "LOCAL"
        : "DEFAULT";
      return raw === "0"
        ? property(null, raw, null, source, null)
        : property(dataset.refreservation, raw, size(dataset.refreservation), source, null);
    },
    key_format: () => property("none", "none", null, "DEFAULT", null),
    encryption_algorithm: () => property("off", "off", null, "DEFAULT", null),
    used: () => bytes(used),
    usedbychildren: () => bytes(used - dataset.referenced - reserved),
    usedbydataset: () => bytes(dataset.referenced),
    usedbyrefreservation: () => bytes(reserved),
    usedbysnapshots: () => bytes(0),
    available: () => bytes(space.available(dataset)),
    pbkdf2iters: () => property("0", "0", "0", "DEFAULT", null),
    creation: () =>
      property(
        date(dataset.creation),
        String(dataset.creation),
        dateText(dataset.creation),
        "NONE",
        null,
      ),
  };
  if (volume) {
    lazily.volsize = () =>
      property(dataset.volsize, String(dataset.volsize), size(dataset.volsize), "LOCAL", null);
    lazily.volblocksize = () =>
      property(
        dataset.volblocksize,
        String(dataset.volblocksize),
        nicenum(dataset.volblocksize),
        dataset.volblocksize === 16_384 ? "DEFAULT" : "NONE",
        null,
      );
  }
  const result: JsonObject = {};
  const asked = wanted === null ? undefined : new Set(wanted);
  for (const native of NATIVE) {
    if (native.only !== undefined && native.only !== dataset.type) continue;
    if (asked !== undefined && !asked.has(native.zfs) && !asked.has(native.key)) continue;
    result[native.key] = nativeProperty(zfs, dataset, native);
  }
  for (const [key, make] of Object.entries(lazily)) {
    if (asked === undefined || asked.has(key)) result[key] = make();
  }
  return result;
}

function userProperties(
  zfs: Zfs,
  dataset: Dataset,
  release: Release,
  wanted: boolean,
): { top: JsonObject; rest: JsonObject } {
  const top: JsonObject = {};
  const rest: JsonObject = {};
  if (!wanted) return { top, rest };
  const old = release.major === 2504;
  for (const [key, { value, from }] of zfs.userProperties(dataset.name)) {
    const source = from === dataset.name ? "LOCAL" : "INHERITED";
    const short = MANAGED.get(key);
    if (old) {
      const entry = { value, rawvalue: value, source, parsed: value };
      if (short === undefined) rest[key] = entry;
      else top[short] = entry;
    } else {
      const info = source === "LOCAL" ? null : from;
      rest[short ?? key] = property(value, value, value, source, info);
    }
  }
  return { top, rest };
}

/** As ZFS prints a point in time. */
export function dateText(seconds: number): string {
  // "Sun, 22 Nov 2026 04:05:00 GMT"
  const parts = new Date(seconds * 1000).toUTCString().replace(",", "").split(" ");
  const [day = "", dayOfMonth = "", month = "", year = "", time = ""] = parts;
  const clock = `${Number(time.slice(0, 2))}:${time.slice(3, 5)}`.padStart(5);
  return `${day} ${month} ${Number(dayOfMonth)} ${clock} ${year}`;
}
