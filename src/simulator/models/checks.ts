/**
 * What the models check beyond types and ranges, and no schema can say: syntax of names and
 * addresses, and rules over several fields. Each answers the fault's text, or undefined.
 */

import { isIP } from "node:net";
import type { Json, JsonObject } from "../json.ts";

const NO_LOWER =
  "Assertion failed, Name can only contain lowercase alphanumeric charactersplus dot (.), dash (-), and colon (:)";
const PATTERN = "String should match pattern '.*:.*'";

/** The ZFS rules for a dataset's full name: components, their characters, total length. */
export function validDatasetName(name: string): boolean {
  return [...name].length <= 200 &&
    name.split("/").every((part) => /^[a-zA-Z0-9][a-zA-Z0-9_.: -]*$/.test(part));
}

/** The ZFS rules for what stands after the `@`. */
export function validSnapshotName(name: string): boolean {
  return /^[a-zA-Z0-9_.:-]+( [a-zA-Z0-9_.: -]*)?$/.test(name);
}

type Check = (value: Json) => string | undefined;

function text(fault: string, good: (value: string) => boolean): Check {
  return (value) => typeof value !== "string" || good(value) ? undefined : fault;
}

const datasetName = text(
  "Value error, Please provide a valid dataset name according to ZFS standards",
  validDatasetName,
);
const LONGEST_TARGET = 120;
const targetName: Check = (value) => {
  if (typeof value !== "string") return undefined;
  if (!/^[-a-z0-9.:]+$/.test(value)) return NO_LOWER;
  return value.length <= LONGEST_TARGET
    ? undefined
    : `Value should have at most ${LONGEST_TARGET} items after validation, not ${value.length}`;
};
const address = text("value is not a valid IPv4 or IPv6 address", (value) => isIP(value) !== 0);
const propertyKey = text(PATTERN, (value) => value.includes(":"));
const userPropertyKey: Readonly<Record<string, Check>> = { key: propertyKey };

const FIELD_CHECKS: Readonly<Record<string, Readonly<Record<string, Check>>>> = {
  PoolDatasetCreateFilesystem: { name: datasetName },
  PoolDatasetCreateVolume: { name: datasetName },
  PoolDatasetCreateUserProperty: userPropertyKey,
  PoolDatasetUpdateUserProperty: userPropertyKey,
  PoolSnapshotUserPropertyUpdate: userPropertyKey,
  IscsiTargetCreate: { name: targetName },
  IscsiTargetUpdate: { name: targetName },
  IscsiPortalIP: { ip: address },
};

/** Fields whose own check comes before a limit of the schema and covers it. */
const OWN_LIMITS: Readonly<Record<string, readonly ("minLength" | "maxLength")[]>> = {
  "PoolDatasetCreateFilesystem.name": ["minLength", "maxLength"],
  "PoolDatasetCreateVolume.name": ["minLength", "maxLength"],
  "IscsiTargetCreate.name": ["maxLength"],
  "IscsiTargetUpdate.name": ["maxLength"],
};

/** The limits of the schema that are left to {@link fieldCheck}. */
export function ownLimits(model: string, field: string): readonly ("minLength" | "maxLength")[] {
  return OWN_LIMITS[`${model}.${field}`] ?? [];
}

/** The fault of one field whose type is right. */
export function fieldCheck(model: string, field: string, value: Json): string | undefined {
  return FIELD_CHECKS[model]?.[field]?.(value);
}

/** The fault of a model whose fields are all right. */
export function modelCheck(model: string, value: JsonObject): string | undefined {
  switch (model) {
    case "QueryOptions": {
      const limit = value.limit;
      return typeof limit === "number" && (limit < 0 || limit > 10_000)
        ? "Value error, Options limit must be between 1 and 10000"
        : undefined;
    }
    case "NVMetHostCreate":
    case "NVMetHostUpdate":
      return value.dhchap_ctrl_key && !value.dhchap_key && "dhchap_key" in value
        ? "Value error, Cannot configure bi-directional authentication without setting dhchap_key"
        : undefined;
    default:
      return undefined;
  }
}
