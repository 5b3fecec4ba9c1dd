/**
 * A volume whose rename stopped half-way: its zvol has the new path, and its export the old one. Until
 * the rename is repeated it goes by its old name, which is the one that PVE's configuration has.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { ExportLookup, VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { isOurs, renamedFrom, wasRenamedAs } from "./ownership.ts";
import type { Storage } from "./storage.ts";

/**
 * The zvol that left a path while its export stayed there; undefined when there is none. Asks the
 * array only when something exports the path.
 *
 * @param path full path at which no zvol is.
 * @param found how that path is exported.
 */
export async function findHalfRenamed(
  storage: Storage,
  array: Caller,
  path: string,
  found: ExportLookup,
  deadline: Deadline,
): Promise<zvols.Zvol | undefined> {
  if (found.kind !== "ours") return undefined;
  const { identity } = found.export;
  const listing = await zvols.list(array, storage.settings.dataset, deadline.bounds());
  return listing.zvols.find((zvol) =>
    isOurs(storage, zvol) && renamedFrom(zvol) === path && wasRenamedAs(zvol, identity)
  );
}

/**
 * The export of a zvol of ours in a listing: at its own path, or at the path that it had when its rename
 * stopped half-way; the name to list it by is the export's.
 *
 * @param exports by path.
 */
export function exportInListing(
  zvol: zvols.Zvol,
  exports: ReadonlyMap<string, VolumeExport>,
): VolumeExport | undefined {
  const own = exports.get(zvol.name);
  if (own !== undefined) return own;
  const former = renamedFrom(zvol);
  const left = former === undefined ? undefined : exports.get(former);
  return left !== undefined && wasRenamedAs(zvol, left.identity) ? left : undefined;
}

/**
 * Refuses a new volume at a path that a half-renamed one has its export at still: it would be taken for
 * that of a dead volume, and removed.
 *
 * @throws TnblockError `exists`.
 */
export async function refuseHalfRenamed(
  storage: Storage,
  array: Caller,
  path: string,
): Promise<void> {
  const { transport, deadline } = storage;
  const found = await transport.lookUp(array, path, deadline);
  const zvol = await findHalfRenamed(storage, array, path, found, deadline);
  if (zvol === undefined) return;
  throw new TnblockError(
    "exists",
    `Cannot make "${path}": its volume was being renamed to "${zvol.name}", which stopped half-way`,
    { hint: "Repeat what was to rename the volume, then try again" },
  );
}
