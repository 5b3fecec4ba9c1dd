/** What hangs on a zvol's snapshots: clones, which would die with it or keep it, and holds. */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Caller } from "../truenas/caller.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { ownReading } from "./own_reading.ts";
import { describeClones } from "./reading.ts";
import type { Storage } from "./storage.ts";

/** Most that a message names. */
const MOST = 10;

/**
 * Refuses while clones hang on the zvol's snapshots, or a hold is on one, after a fresh look: the array would
 * fail half-way, when the export and with it an NVMe uuid is gone for good.
 *
 * @param names the zvol's snapshots.
 * @param options `sparingOwn` lets this node's clones for reading pass, which it can remove by itself.
 * @returns whether there are such clones.
 * @throws TnblockError `has-dependents` that names them; of a clone for reading the node that reads.
 */
export async function refuseDependents(
  storage: Storage,
  array: Caller,
  zvol: string,
  names: readonly string[],
  deadline: Deadline,
  options: { readonly sparingOwn?: boolean } = {},
): Promise<boolean> {
  if (names.length === 0) return false;
  const wait = deadline.bounds();
  const [clones, all] = await Promise.all([
    zvols.clones(array, zvol, wait),
    snapshots.list(array, zvol, wait),
  ]);
  const paths = clones.map(({ name }) => name);
  const own = options.sparingOwn === true && paths.length > 0
    ? (await zvols.readSome(array, paths, wait))
      .filter((clone) => ownReading(storage, array, clone) !== undefined).map(({ name }) => name)
    : [];
  const held = all.filter((snapshot) => snapshot.holds.length > 0);
  const what = [
    ...await describeClones(array, paths.filter((path) => !own.includes(path)), deadline),
    ...held.map((snapshot) => `the hold on snapshot ${snapshot.name}`),
  ];
  if (what.length === 0) return own.length > 0;
  const list = what.slice(0, MOST).join(", ") +
    (what.length > MOST ? ` and ${what.length - MOST} more` : "");
  throw new TnblockError(
    "has-dependents",
    `Cannot free "${zvol}": in the way ${what.length === 1 ? "is" : "are"} ${list}`,
    { hint: "Free the clones and release the holds first" },
  );
}
