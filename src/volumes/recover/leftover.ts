/**
 * What still exports the path of a zvol that is not there: its zvol was destroyed by others, or the export came
 * after the zvol had gone.
 */
import { Buffer } from "node:buffer";
import type { ExportLookup, ExportRow } from "../../transport/transport.ts";
import type { Caller } from "../../truenas/caller.ts";
import * as extents from "../../truenas/extents.ts";
import * as zvols from "../../truenas/zvols.ts";
import type { FreeToken } from "../free.ts";
import { isOfOperation } from "../ownership.ts";
import { type Storage, zvolPath } from "../storage.ts";

/** The rows, and whether they can only be those of a volume of this storage that is gone. */
export type Leftover =
  | { readonly kind: "none" | "another's" }
  | { readonly kind: "its"; readonly rows: readonly ExportRow[] };

/**
 * Tells whose the rows at a path without a zvol are. A namespace is ours by its subsystem and path, an extent by
 * its comment too (design decision 9).
 *
 * @param operation the token of the operation that made the zvol.
 */
export async function findLeftover(
  storage: Storage,
  array: Caller,
  zvol: string,
  operation: string,
  found: ExportLookup,
): Promise<Leftover> {
  if (found.kind === "none") return { kind: "none" };
  if (found.kind === "foreign") return { kind: "another's" };
  const rows = found.kind === "ours" ? found.export.rows : found.rows;
  const path = zvolPath(storage, zvol);
  const wait = storage.deadline.bounds();
  const { dataset, id } = storage.settings;
  const ids = rows.filter(({ kind }) => kind === "extent").map(({ id }) => id);
  const [listing, own] = await Promise.all([
    zvols.list(array, dataset, wait),
    extents.byIds(array, ids, wait),
  ]);
  // Under another name: a rename that stopped half-way, or one by hand. Its guest may have it open.
  const isElsewhere = listing.zvols.some((one) =>
    one.name === path || isOfOperation(one, operation) ||
    one.userProperties["tnblock:volume"] === path
  );
  const isMade = own.length === ids.length &&
    own.every((extent) => extent.zvol === path && extent.comment === `tnblock ${id}`);
  return isElsewhere || !isMade ? { kind: "another's" } : { kind: "its", rows };
}

/** The token for `finishFree` of these rows alone: what has a zvol again by then is left alone. */
export function tokenForRows(storage: Storage, zvol: string, rows: readonly ExportRow[]): string {
  const token: FreeToken = {
    v: 1,
    storage: storage.settings.id,
    zvol,
    made: null,
    rows: [...rows],
    noted: false,
  };
  return Buffer.from(JSON.stringify(token)).toString("base64url");
}
