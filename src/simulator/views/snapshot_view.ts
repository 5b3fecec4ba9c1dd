/** How a snapshot looks in the snapshot queries of the releases. */

import type { Json, JsonObject } from "../json.ts";
import { bigNumber, date } from "../json.ts";
import type { Snapshot, Zfs } from "../zfs.ts";
import { datasetOf } from "../zfs.ts";
import { dateText } from "./dataset_view.ts";
import { nicenum } from "./sizes.ts";

function property(value: string, source: string, parsed: Json = value, raw = value): JsonObject {
  return { value, rawvalue: raw, source, parsed };
}

const bytes = (value: number) => property(nicenum(value), "NONE", value, String(value));
const preset = (value: string, parsed: Json = value) => property(value, "DEFAULT", parsed);

/** The properties in the order of the real answer; user properties come first. */
function allProperties(zfs: Zfs, snapshot: Snapshot): Record<string, () => JsonObject> {
  const text = (value: string) => () => property(value, "NONE");
  const word = (value: string) => () => preset(value);
  const volume = zfs.datasets.get(datasetOf(snapshot.name))?.type === "VOLUME";
  const common: Record<string, () => JsonObject> = {
    type: text("snapshot"),
    creation: () =>
      property(
        dateText(snapshot.creation),
        "NONE",
        date(snapshot.creation),
        String(snapshot.creation),
      ),
    createtxg: text(String(snapshot.createtxg)),
    guid: text(snapshot.guid),
    objsetid: text(String(snapshot.createtxg)),
    used: () => bytes(0),
    referenced: () => bytes(snapshot.referenced),
    compressratio: () => property("1.00x", "NONE", "1.00", "1.00"),
    refcompressratio: () => property("1.00x", "NONE", "1.00", "1.00"),
    written: () => bytes(snapshot.referenced),
    logicalreferenced: () => bytes(snapshot.referenced / 2),
    defer_destroy: text(snapshot.deferred ? "on" : "off"),
    userrefs: text(String(snapshot.holds.size)),
    primarycache: word("all"),
    secondarycache: word("all"),
    mlslabel: word("none"),
    context: word("none"),
    fscontext: word("none"),
    defcontext: word("none"),
    rootcontext: word("none"),
    prefetch: word("all"),
    encryption: word("off"),
    clones: () => property(zfs.clonesOf(snapshot.name).join(","), "NONE"),
  };
  if (volume) return { ...common, volsize: () => bytes(snapshot.volsize) };
  return {
    ...common,
    devices: () => preset("on", true),
    exec: () => preset("on", true),
    setuid: () => preset("on", true),
    xattr: () => preset("sa", null),
    version: () => preset("5", 5),
    utf8only: () => preset("off", false),
    normalization: word("none"),
    casesensitivity: word("sensitive"),
    nbmand: () => preset("off", false),
    acltype: word("off"),
  };
}

/** One entry of `zfs.snapshot.query` (25.04) and `pool.snapshot.query`. */
export function snapshotEntry(
  zfs: Zfs,
  snapshot: Snapshot,
  wish: { properties: readonly string[] | null; holds: boolean },
): JsonObject {
  const dataset = datasetOf(snapshot.name);
  const properties: JsonObject = {};
  for (const [key, value] of snapshot.user) properties[key] = property(value, "LOCAL");
  for (const [key, { value }] of zfs.userProperties(dataset)) {
    properties[key] ??= property(value, "INHERITED");
  }
  for (const [key, make] of Object.entries(allProperties(zfs, snapshot))) {
    if (wish.properties === null || wish.properties.includes(key)) properties[key] = make();
  }
  return {
    id: snapshot.name,
    properties,
    // The real server cuts the pool's name at the first slash, which a pool's own snapshot lacks.
    pool: snapshot.name.split("/")[0] ?? "",
    name: snapshot.name,
    type: "SNAPSHOT",
    snapshot_name: snapshot.name.split("@")[1] ?? "",
    dataset,
    createtxg: String(snapshot.createtxg),
    ...(wish.holds ? { holds: Object.fromEntries(snapshot.holds) } : {}),
  };
}

/**
 * One entry of `pool.snapshot.*` as 26 makes it from the newer query: only the properties that were
 * asked for, no user properties among them, every source unknown.
 */
export function modernSnapshotEntry(
  zfs: Zfs,
  snapshot: Snapshot,
  wish: { properties: readonly string[] | null; listed: boolean },
): JsonObject {
  const all = allProperties(zfs, snapshot);
  const properties: JsonObject = {};
  for (const name of wish.properties ?? []) {
    const entry = all[name]?.();
    if (entry === undefined) continue;
    const raw = String(entry.rawvalue);
    const value = NUMERIC.includes(name) ? Number(raw) : raw;
    properties[name] = { value: String(value), rawvalue: raw, source: "NONE", parsed: value };
  }
  const dataset = datasetOf(snapshot.name);
  return {
    id: snapshot.name,
    name: snapshot.name,
    pool: dataset.split("/")[0] ?? "",
    type: "SNAPSHOT",
    snapshot_name: snapshot.name.split("@")[1] ?? "",
    dataset,
    createtxg: String(snapshot.createtxg),
    properties,
    ...(wish.listed ? { holds: snapshot.holds.has("truenas") ? { truenas: 1 } : {} } : {}),
  };
}

/** Native snapshot properties of `zfs.resource.snapshot.query` with a number for a value. */
const NUMERIC = [
  "createtxg",
  "creation",
  "objsetid",
  "referenced",
  "used",
  "userrefs",
  "volsize",
  "written",
];

/** One entry of `zfs.resource.snapshot.query` (26). */
export function resourceSnapshotEntry(
  zfs: Zfs,
  snapshot: Snapshot,
  wish: {
    properties: readonly string[] | null;
    holds: boolean;
    user: boolean;
    source: boolean;
  },
): JsonObject {
  const all = allProperties(zfs, snapshot);
  // Unlike datasets, snapshots have no default set: nothing asked, nothing told.
  const names = wish.properties ?? [];
  const properties: JsonObject = {};
  for (const name of names) {
    const entry = all[name]?.();
    if (entry === undefined) continue;
    const raw = String(entry.rawvalue);
    properties[name] = {
      raw,
      source: wish.source ? { type: entry.source ?? "NONE", value: null } : null,
      value: NUMERIC.includes(name) ? Number(raw) : raw,
    };
  }
  return {
    createtxg: snapshot.createtxg,
    guid: bigNumber(snapshot.guid),
    name: snapshot.name,
    pool: snapshot.name.split(/[/@]/)[0] ?? "",
    dataset: datasetOf(snapshot.name),
    snapshot_name: snapshot.name.split("@")[1] ?? "",
    type: "SNAPSHOT",
    holds: wish.holds ? [...snapshot.holds.keys()] : null,
    properties: names.length === 0 ? null : properties,
    user_properties: wish.user ? Object.fromEntries(snapshot.user) : null,
  };
}
