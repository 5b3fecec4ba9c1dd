/** What `pool.dataset.create` and `update` refuse, in the words and the order of the releases. */

import type { JsonObject } from "../json.ts";
import { invalid, ValidationErrors } from "../errors.ts";
import { validDatasetName } from "../models/checks.ts";
import { Space } from "../views/dataset_view.ts";
import type { Dataset } from "../zfs.ts";
import { parentOf } from "../zfs.ts";
import type { Call } from "./service.ts";

const NOT_FOR_VOLUME = [
  "aclmode",
  "acltype",
  "atime",
  "casesensitivity",
  "quota",
  "refquota",
  "recordsize",
];
const NOT_FOR_FILESYSTEM = ["force_size", "sparse", "volsize", "volblocksize"];
const TOO_MUCH = "It is not recommended to use more than 80% of your available space for VOLUME";

/** A remainder as Python has it: never negative. */
const modulo = (a: number, b: number): number => ((a % b) + b) % b;

export function blockSize(text: string): number {
  const units: Record<string, number> = { B: 1, K: 1024 };
  const match = /^(\d+)([BK]?)$/.exec(text);
  return match === null ? 16_384 : Number(match[1]) * (units[match[2] ?? ""] ?? 1);
}

function checkVolsize(
  schema: string,
  data: JsonObject,
  block: number,
  available: number,
  errors: ValidationErrors,
): void {
  const size = Number(data.volsize);
  if (size > available * 0.8 && data.force_size !== true) {
    errors.add(`${schema}.volsize`, TOO_MUCH);
  }
  if (modulo(size, block) !== 0) {
    errors.add(`${schema}.volsize`, "Volume size should be a multiple of volume block size");
  }
}

export function checkName(call: Call, data: JsonObject): void {
  const name = String(data.name);
  const schema = "pool_dataset_create.name";
  const { datasets } = call.sim.world.zfs;
  if (!name.includes("/")) throw invalid(schema, "You need a full name, e.g. pool/newdataset");
  if (call.sim.release.major === 2504 && !validDatasetName(name)) {
    throw invalid(schema, "Invalid dataset name");
  }
  if (name.endsWith(" ")) {
    throw invalid(schema, "Trailing spaces are not permitted in dataset names");
  }
  let parent = parentOf(name);
  if (data.create_ancestors === true) {
    while (parent.includes("/") && !datasets.has(parent)) parent = parentOf(parent);
  }
  const found = datasets.get(parent);
  if (found === undefined) {
    if (call.sim.release.major === 2504) {
      throw invalid(schema, "Parent dataset does not exist for specified name");
    }
    const noun = parent.includes("/") ? "Parent dataset" : "zpool";
    throw invalid(schema, `${noun} (${parent}) does not exist.`);
  }
  if (found.type === "VOLUME") {
    throw invalid(schema, `${parent}: parent may not be a ZFS volume`);
  }
  if (call.sim.world.zfs.property(parent, "readonly")?.value === "on") {
    throw invalid(
      "pool_dataset_create.readonly",
      `Turn off readonly mode on ${parent} to create ${name}`,
    );
  }
}

export function checkType(call: Call, data: JsonObject, space: Space): void {
  const schema = "pool_dataset_create";
  const errors = new ValidationErrors();
  const volume = data.type === "VOLUME";
  const refused = volume ? NOT_FOR_VOLUME : NOT_FOR_FILESYSTEM;
  if (volume && data.volsize === undefined) {
    errors.add(`${schema}.volsize`, "This field is required for VOLUME");
  }
  for (const field of refused) {
    if (field in data) errors.add(`${schema}.${field}`, `This field is not valid for ${data.type}`);
  }
  if (volume && data.volsize !== undefined) {
    let parent = parentOf(String(data.name));
    while (parent.includes("/") && !call.sim.world.zfs.datasets.has(parent)) {
      parent = parentOf(parent);
    }
    const above = call.sim.world.zfs.datasets.get(parent);
    const available = above === undefined ? 0 : space.available(above);
    const block = blockSize(String(data.volblocksize ?? "16K"));
    checkVolsize(schema, data, block, available, errors);
  }
  errors.check();
}

export function checkUserUpdates(updates: JsonObject[]): void {
  const errors = new ValidationErrors();
  updates.forEach((update, index) => {
    const at = `pool_dataset_update.user_properties_update.${index}`;
    if (update.value !== undefined && update.remove) {
      errors.add(`${at}.remove`, 'When "value" is specified, this cannot be set');
    } else if (update.value === undefined && !update.remove) {
      errors.add(`${at}.value`, 'Either "value" or "remove" must be specified');
    }
  });
  errors.check();
}

export function checkUpdate(call: Call, dataset: Dataset, data: JsonObject): void {
  const schema = "pool_dataset_update";
  const errors = new ValidationErrors();
  if (data.user_properties !== undefined && data.user_properties_update !== undefined) {
    errors.add(
      `${schema}.user_properties_update`,
      'Should not be specified when "user_properties" are explicitly specified',
    );
  }
  const refused = dataset.type === "VOLUME" ? NOT_FOR_VOLUME : NOT_FOR_FILESYSTEM;
  for (const field of refused) {
    if (field in data) {
      errors.add(`${schema}.${field}`, `This field is not valid for ${dataset.type}`);
    }
  }
  if (data.volsize !== undefined && dataset.type === "VOLUME") {
    const space = new Space(call.sim.world.zfs);
    const parent = call.sim.world.zfs.datasets.get(parentOf(dataset.name));
    const available = (parent === undefined ? 0 : space.available(parent)) +
      space.used(dataset.name);
    checkVolsize(schema, data, dataset.volblocksize, available, errors);
    if (Number(data.volsize) < dataset.volsize) {
      errors.add(
        `${schema}.volsize`,
        "You cannot shrink a zvol from GUI, this may lead to data loss.",
      );
    }
  }
  errors.check();
}
