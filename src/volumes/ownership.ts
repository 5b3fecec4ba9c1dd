/** The marks by which the array's objects are known as ours (design decisions 9 and 10). */
import { TnblockError } from "../common/error.ts";
import type { Dataset } from "../truenas/datasets.ts";
import type { Zvol } from "../truenas/zvols.ts";
import type { Storage } from "./storage.ts";
import { zvolPath } from "./storage.ts";

/** The version of the marks. */
const SCHEMA = "1";

/** On the dataset: `<cluster id>/<storage>` of the one storage that it belongs to. */
export const OWNER_PROPERTY = "tnblock:owner";

/**
 * The user properties of a zvol of ours. Its full path is among them, so that neither a value
 * inherited from the dataset nor a replicated copy of the zvol looks like ours.
 */
export function marks(storage: Storage, zvol: string, operation: string): Record<string, string> {
  return {
    "tnblock:schema": SCHEMA,
    "tnblock:cluster": storage.clusterId,
    "tnblock:storage": storage.settings.id,
    "tnblock:volume": zvolPath(storage, zvol),
    "tnblock:op": operation,
  };
}

/** Whether a zvol carries all marks of this storage. */
export function isOurs(storage: Storage, zvol: Pick<Zvol, "name" | "userProperties">): boolean {
  const has = zvol.userProperties;
  return zvol.name.startsWith(`${storage.settings.dataset}/`) &&
    has["tnblock:schema"] === SCHEMA &&
    has["tnblock:cluster"] === storage.clusterId &&
    has["tnblock:storage"] === storage.settings.id &&
    has["tnblock:volume"] === zvol.name;
}

/** Whether a zvol was made by this very operation. */
export function isOfOperation(zvol: Pick<Zvol, "userProperties">, operation: string): boolean {
  return zvol.userProperties["tnblock:op"] === operation;
}

/** What the dataset's owner property must say. */
export function ownerValue(storage: Storage): string {
  return `${storage.clusterId}/${storage.settings.id}`;
}

/**
 * Checks that the dataset can hold this storage's volumes.
 *
 * @throws TnblockError `config` for a zvol, `not-ours` when it belongs to another storage or cluster.
 */
export function checkDataset(storage: Storage, dataset: Dataset): void {
  if (dataset.type !== "FILESYSTEM") {
    throw new TnblockError(
      "config",
      `Cannot keep volumes in "${dataset.name}": it is a zvol, not a file system`,
      {
        field: "tnb-dataset",
        hint: "Make a dataset of type file system in TrueNAS and name it in tnb-dataset",
      },
    );
  }
  const owner = dataset.userProperties[OWNER_PROPERTY];
  if (owner === undefined || owner === ownerValue(storage)) return;
  const other = owner.slice(owner.indexOf("/") + 1);
  const whose = owner.startsWith(`${storage.clusterId}/`)
    ? `storage "${other}"`
    : `storage "${other}" of another cluster`;
  throw new TnblockError(
    "not-ours",
    `Cannot keep volumes in "${dataset.name}": it belongs to ${whose}`,
    {
      field: "tnb-dataset",
      hint: "Give each storage a dataset of its own",
    },
  );
}

/** Free space that must be left beyond the volume: a fifth of its size. */
const MARGIN = 1.2;

/**
 * Checks that a volume has room.
 *
 * @param size bytes.
 * @throws TnblockError `no-space`.
 */
export function checkRoom(dataset: Dataset, size: number): void {
  if (dataset.available >= size * MARGIN) return;
  const gib = (bytes: number) => `${(bytes / 1024 ** 3).toFixed(2)} GiB`;
  throw new TnblockError(
    "no-space",
    `Cannot make a volume of ${gib(size)} in "${dataset.name}": ${
      gib(dataset.available)
    } are free, and a margin of 20 % is kept`,
    { hint: "Free space in the pool, or make the volume smaller" },
  );
}
