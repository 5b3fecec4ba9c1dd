/**
 * The rows of a volume's export, and their removal: those alone that were seen to be the volume's, in writes
 * that reach neither zvol nor target or subsystem.
 */
import type { Deadline } from "../common/deadline.ts";
import type { ExportLookup, ExportRow } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import * as extents from "../truenas/extents.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import { LastingUse } from "./lasting_use.ts";
import { look } from "./look.ts";
import { type Storage, zvolPath } from "./storage.ts";

/**
 * The rows of the volume's export. Of one that a Perl plugin made the extent alone bears no sign of ours
 * once its mapping is gone: it is the volume's when a free that was begun says so.
 *
 * @throws TnblockError `in-use` for an export of somebody else.
 */
export async function exportRows(
  storage: Storage,
  array: Caller,
  zvol: string,
  found: ExportLookup,
  begun: readonly ExportRow[],
  deadline: Deadline,
): Promise<readonly ExportRow[]> {
  if (found.kind === "ours") return found.export.rows;
  if (found.kind === "half") return found.rows;
  if (found.kind === "none") return [];
  const wait = deadline.bounds();
  const onIt = await extents.byZvol(array, zvolPath(storage, zvol), wait);
  const ids = onIt.map(({ id }) => id);
  const isBegun = (id: number) => begun.some((row) => row.kind === "extent" && row.id === id);
  if (ids.length === 1 && ids.every(isBegun)) {
    const mappings = await targetExtents.byExtents(array, ids, wait);
    if (mappings.length === 0) return ids.map((id) => ({ kind: "extent", id }));
  }
  throw foreignExport(zvol, found.what);
}

function foreignExport(zvol: string, what: string): LastingUse {
  return new LastingUse(
    `Cannot free the volume "${zvol}": it is also exported as ${what}`,
    { hint: "Remove that export in TrueNAS first; tnblock leaves it alone" },
  );
}

/** How often a removal whose answer was lost is looked at and gone on with. */
const REMOVAL_TRIES = 3;

/** Removes the export; what became of a lost answer is looked up, and what is left is removed. */
export async function removeRows(
  storage: Storage,
  zvol: string,
  rows: readonly ExportRow[],
  deadline: Deadline,
): Promise<void> {
  let left = rows;
  for (let attempt = 1; left.length > 0; attempt++) {
    try {
      await storage.transport.removeExport(await storage.array(), left);
      return;
    } catch (error) {
      const isLost = isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
      if (!isLost || attempt >= REMOVAL_TRIES) throw error;
      const array = await storage.array();
      const { found } = await look(storage, array, zvol, deadline);
      const planned = left;
      left = (await exportRows(storage, array, zvol, found, planned, deadline)).filter((row) =>
        planned.some((one) => one.kind === row.kind && one.id === row.id)
      );
    }
  }
}
