/** The marks by which the array's objects are known as ours (design decisions 9 and 10). */
import { TnblockError } from "../common/error.ts";
import type { DiskIdentity } from "../transport/transport.ts";
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

/** What tells whose a zvol is. */
type Marked = Pick<Zvol, "name" | "userProperties">;

/**
 * Whether the marks on a zvol are meant for that zvol: they say the path that it has, or, after a
 * rename, the path that it was to get.
 */
export function isMarked(zvol: Marked): boolean {
  const has = zvol.userProperties;
  return has["tnblock:volume"] === zvol.name || has["tnblock:rename-to"] === zvol.name;
}

/** Whether a zvol carries all marks of this storage. */
export function isOurs(
  storage: Pick<Storage, "settings" | "clusterId">,
  zvol: Marked,
): boolean {
  const has = zvol.userProperties;
  const inside = `${storage.settings.dataset}/`;
  return zvol.name.startsWith(inside) && (has["tnblock:volume"]?.startsWith(inside) ?? false) &&
    has["tnblock:schema"] === SCHEMA &&
    has["tnblock:cluster"] === storage.clusterId &&
    has["tnblock:storage"] === storage.settings.id &&
    isMarked(zvol);
}

/**
 * The marks that a rename writes before anything else, in one write. They are right before and after
 * it, so that none has to follow: under its old path the zvol is ours by `tnblock:volume`, under the
 * new one by `tnblock:rename-to`. `tnblock:rename-id` is the naa or uuid of its export: a rename that
 * stopped half-way is recognised by it.
 *
 * @param from full path, as `to`.
 */
export function renameMarks(
  from: string,
  to: string,
  identity: DiskIdentity,
  operation: string,
): Record<string, string> {
  return {
    "tnblock:volume": from,
    "tnblock:rename-to": to,
    "tnblock:rename-id": identityText(identity),
    "tnblock:op": operation,
  };
}

/** The values that {@link renameMarks} replaces, as they are now: what an undo puts back. */
export function marksBefore(zvol: Marked): Record<string, string | undefined> {
  const names = ["tnblock:volume", "tnblock:rename-to", "tnblock:rename-id", "tnblock:op"];
  return Object.fromEntries(names.map((name) => [name, zvol.userProperties[name]]));
}

/** The full path that a zvol of ours had before its last rename; undefined for one that has none behind it. */
export function renamedFrom(zvol: Marked): string | undefined {
  const has = zvol.userProperties;
  return has["tnblock:rename-to"] === zvol.name && has["tnblock:volume"] !== zvol.name
    ? has["tnblock:volume"]
    : undefined;
}

/**
 * Full paths in a dataset that a new volume must not get: those of all that is there, and those that
 * renamed volumes of ours had. A rename that stopped half-way has its export there still, which would be
 * taken for that of a dead volume.
 */
export function takenPaths(
  storage: Storage,
  listing: { readonly zvols: readonly Zvol[]; readonly filesystems: readonly string[] },
): Set<string> {
  const former = listing.zvols.filter((zvol) => isOurs(storage, zvol)).map(renamedFrom);
  return new Set([
    ...listing.zvols.map((zvol) => zvol.name),
    ...listing.filesystems,
    ...former.filter((path) => path !== undefined),
  ]);
}

/** Whether a rename of the zvol began, and the zvol still has its old path. */
export function isRenameBegun(zvol: Marked): boolean {
  const to = zvol.userProperties["tnblock:rename-to"];
  return to !== undefined && to !== zvol.name;
}

/** Whether the last rename of a zvol was that of a volume with this export. */
export function wasRenamedAs(zvol: Marked, identity: DiskIdentity): boolean {
  return zvol.userProperties["tnblock:rename-id"] === identityText(identity);
}

function identityText(identity: DiskIdentity): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}

/** Whether a zvol was made by this very operation. */
export function isOfOperation(zvol: Pick<Zvol, "userProperties">, operation: string): boolean {
  return zvol.userProperties["tnblock:op"] === operation;
}

/** What the dataset's owner property must say. */
export function ownerValue(storage: Pick<Storage, "settings" | "clusterId">): string {
  return `${storage.clusterId}/${storage.settings.id}`;
}

/**
 * Checks that the dataset can hold this storage's volumes.
 *
 * @throws TnblockError `config` for a zvol, `not-ours` when it belongs to another storage or cluster.
 */
export function checkDataset(
  storage: Pick<Storage, "settings" | "clusterId">,
  dataset: Dataset,
): void {
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
