/** How a dataset looks in `zfs.resource.query`. */

import type { Json, JsonObject } from "../json.ts";
import { bigNumber } from "../json.ts";
import type { Dataset, Zfs } from "../zfs.ts";
import type { Space } from "./dataset_view.ts";
import { MANAGED, NATIVE, nativeProperty } from "./dataset_view.ts";

/** What `zfs.resource.query` shows when no properties are named. */
const RESOURCE_DEFAULTS = [
  "available",
  "used",
  "usedbychildren",
  "usedbydataset",
  "usedbyrefreservation",
  "usedbysnapshots",
  "written",
];

/** One entry of `zfs.resource.query`, without its children. */
export function resourceEntry(
  zfs: Zfs,
  dataset: Dataset,
  wish: { properties: readonly string[] | null; source: boolean; user: boolean },
  space: Space,
): JsonObject {
  const names = wish.properties === null
    ? []
    : wish.properties.length === 0
    ? RESOURCE_DEFAULTS
    : wish.properties;
  const properties: JsonObject = {};
  for (const name of names) {
    const value = resourceProperty(zfs, dataset, name, space);
    if (value === undefined) continue;
    properties[name] = {
      raw: value.raw,
      source: wish.source ? { type: value.source, value: value.from } : null,
      value: value.value,
    };
  }
  const user = wish.user
    ? Object.fromEntries(
      [...zfs.userProperties(dataset.name)].map((
        [key, { value }],
      ) => [MANAGED.get(key) ?? key, value]),
    )
    : null;
  return {
    createtxg: dataset.createtxg,
    guid: bigNumber(dataset.guid),
    name: dataset.name,
    pool: dataset.name.split("/")[0] ?? "",
    properties,
    type: dataset.type,
    user_properties: user,
    children: [],
  };
}

const NUMBERS = new Set([
  ...RESOURCE_DEFAULTS,
  "volsize",
  "volblocksize",
  "refreservation",
  "referenced",
  "createtxg",
  "creation",
  "logicalused",
  "logicalreferenced",
]);
const TEXTS = new Set([
  "origin",
  "guid",
  "type",
  "mountpoint",
  "compressratio",
  "encryption",
  "keystatus",
]);

function resourceProperty(
  zfs: Zfs,
  dataset: Dataset,
  name: string,
  space: Space,
): { raw: string; value: Json; source: string; from: Json } | undefined {
  const volume = dataset.type === "VOLUME";
  const reserved = zfs.usedByRefreservation(dataset);
  const number = (): number | undefined => {
    switch (name) {
      case "available":
        return space.available(dataset);
      case "used":
        return space.used(dataset.name);
      case "usedbychildren":
        return space.used(dataset.name) - dataset.referenced - reserved;
      case "usedbyrefreservation":
        return reserved;
      case "usedbysnapshots":
        return 0;
      case "usedbydataset":
      case "written":
      case "referenced":
      case "logicalused":
      case "logicalreferenced":
        return dataset.referenced;
      case "volsize":
        return volume ? dataset.volsize : undefined;
      case "volblocksize":
        return volume ? dataset.volblocksize : undefined;
      case "refreservation":
        return dataset.refreservation;
      case "createtxg":
        return dataset.createtxg;
      case "creation":
        return dataset.creation;
      default:
        return undefined;
    }
  };
  if (NUMBERS.has(name)) {
    const value = number();
    if (value === undefined) return undefined;
    const local = name === "volsize" || (name === "refreservation" && value > 0);
    const preset = name === "refreservation" || (name === "volblocksize" && value === 16_384);
    const source = local ? "LOCAL" : preset ? "DEFAULT" : "NONE";
    return { raw: String(value), value, source, from: null };
  }
  if (TEXTS.has(name)) {
    const value = name === "origin"
      ? dataset.origin
      : name === "guid"
      ? dataset.guid
      : name === "type"
      ? dataset.type.toLowerCase()
      : name === "compressratio"
      ? "1.00"
      : name === "encryption"
      ? "off"
      : name === "keystatus"
      ? (dataset.locked ? "unavailable" : "none")
      : volume
      ? undefined
      : `/mnt/${dataset.name}`;
    if (value === undefined && name === "mountpoint") return undefined;
    return { raw: value ?? "", value: value ?? null, source: "NONE", from: null };
  }
  const native = NATIVE.find((candidate) => candidate.zfs === name);
  if (native === undefined || (native.only ?? dataset.type) !== dataset.type) return undefined;
  const found = nativeProperty(zfs, dataset, native);
  const raw = String(found.rawvalue);
  const value = native.kind === "limit" || native.kind === "count" || native.kind === "text"
    ? Number(raw)
    : raw;
  return { raw, value, source: String(found.source), from: found.source_info ?? null };
}
