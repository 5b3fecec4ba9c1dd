/** Removing a clone through which this node read a snapshot: its export, then the zvol. */
import type { Deadline } from "../common/deadline.ts";
import { tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import {
  attachName,
  letGoOfKnown,
  linkedIdentity,
  refuseUsers,
  withVolumeLock,
} from "./attachment.ts";
import { destroyZvol } from "./destroy.ts";
import { readKnownDisk } from "./known_disks.ts";
import { LastingUse } from "./lasting_use.ts";
import { ownReading } from "./own_reading.ts";
import { placeOf, readingOf } from "./reading.ts";
import type { Storage } from "./storage.ts";

/** How often a removal whose answer was lost is looked at and gone on with. */
const TRIES = 3;

/**
 * Removes export and zvol of a clone that this node holds no longer. A lost answer is looked up.
 *
 * @throws TnblockError `in-use` when something else exports it or this node uses it.
 */
export async function removeReading(
  storage: Storage,
  array: Caller,
  clone: zvols.Zvol,
  deadline: Deadline,
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    const found = await storage.transport.lookUp(array, clone.name, deadline);
    if (found.kind === "foreign") {
      throw new LastingUse(
        `Cannot remove the clone "${clone.name}": it is also exported as ${found.what}`,
        { hint: "Remove that export in TrueNAS first; tnblock leaves it alone" },
      );
    }
    if (found.kind === "none") break;
    const reading = readingOf(clone);
    if (found.kind === "ours" && reading !== undefined) {
      // It may be attached though this node has forgotten that.
      await refuseUsers(storage, { ...placeOf(reading), tag: undefined }, found.export.identity);
    }
    try {
      const rows = found.kind === "ours" ? found.export.rows : found.rows;
      await storage.transport.removeExport(array, rows);
      break;
    } catch (error) {
      const isLost = isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
      if (!isLost || attempt >= TRIES) throw error;
    }
  }
  await destroyZvol(storage, array, clone, deadline);
}

/**
 * Lets this node go of a snapshot that it read, and removes the clone.
 *
 * @param clone undefined when there is none on the array: then only the node is cleaned.
 * @throws TnblockError `in-use` while anybody here uses it: nothing was touched.
 */
export async function letGoOfReading(
  storage: Storage,
  array: Caller | undefined,
  read: { readonly zvol: string; readonly snapshot: string },
  clone: zvols.Zvol | undefined,
  deadline: Deadline,
): Promise<void> {
  const place = { ...read, tag: undefined };
  const identity = (await readKnownDisk(storage, attachName(place)))?.identity ??
    await linkedIdentity(storage, place);
  if (identity !== undefined) {
    await letGoOfKnown(storage, place, { tag: tagOf(identity), identity }, deadline);
  }
  if (array !== undefined && clone !== undefined) {
    await removeReading(storage, array, clone, deadline);
  }
}

/**
 * Removes this node's clones of any snapshot of a zvol, before the zvol is freed or renamed. Costs one
 * read; those of other nodes stay, and stand in the way.
 *
 * @param zvolPath full path of the zvol whose snapshots are read.
 * @returns how many there were.
 * @throws TnblockError `in-use` for one that somebody here uses: the others may be gone by then.
 */
export async function letGoOfReadings(
  storage: Storage,
  array: Caller,
  zvolPath: string,
  deadline: Deadline,
): Promise<number> {
  const { dataset } = storage.settings;
  const { zvols: all } = await zvols.list(array, dataset, deadline.bounds());
  let removed = 0;
  for (const clone of all) {
    if (!clone.origin?.startsWith(`${zvolPath}@`)) continue;
    // Under the name that it was attached by, should the zvol have been renamed since.
    const read = ownReading(storage, array, clone);
    if (read === undefined) continue;
    await withVolumeLock(
      storage,
      attachName({ ...read, tag: undefined }),
      () => letGoOfReading(storage, array, read, clone, deadline),
    );
    removed++;
  }
  return removed;
}
