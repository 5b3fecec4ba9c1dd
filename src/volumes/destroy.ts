/** Destroying a zvol: only one that nothing exports, whatever would. */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import type { Caller } from "../truenas/caller.ts";
import { isAbsent, isBusy, isUnknownOutcome } from "../truenas/errors.ts";
import * as extents from "../truenas/extents.ts";
import * as namespaces from "../truenas/namespaces.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import type { Storage } from "./storage.ts";

/** Least time that is kept for another try, in ms. */
const LAST_TRY_MS = 1000;

/**
 * Destroys a zvol with its snapshots; "busy" is tried again until the deadline.
 *
 * On 25.x the array's own call would first delete every extent and namespace on the zvol, and with the
 * last LUN the administrator's target (`middlewared/plugins/pool_/dataset.py`): so nothing may
 * export it any more, by either protocol.
 *
 * @throws TnblockError `in-use` when something exports it, `has-dependents` for clones and holds.
 */
export async function destroyZvol(
  storage: Storage,
  array: Caller,
  zvol: string,
  deadline: Deadline,
): Promise<void> {
  const names = await snapshots.names(array, zvol, deadline.bounds());
  await refuseDependents(array, zvol, names, deadline);
  await refuseExports(array, zvol, deadline);
  if (array.release.can.recursiveDestroysClones) await deleteSnapshots(array, zvol, names);
  for (let attempt = 1;; attempt++) {
    try {
      return await zvols.destroy(array, zvol, { withSnapshots: names.length > 0 });
    } catch (error) {
      if (isAbsent(error)) return;
      // The answer was lost, not necessarily the deed.
      const again = isBusy(error) || isUnknownOutcome(error);
      if (isUnknownOutcome(error) && await zvols.read(array, zvol) === undefined) return;
      if (!again || deadline.leftMs() < LAST_TRY_MS) throw error;
      const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length - 1)] ?? 250;
      await storage.host.wait(pause * 4, deadline.signal);
    }
  }
}

/** Refuses while anything of the array exports the zvol, foreign rows and the other protocol included. */
async function refuseExports(array: Caller, zvol: string, deadline: Deadline): Promise<void> {
  const wait = deadline.bounds();
  const [onIt, namespace] = await Promise.all([
    extents.byZvol(array, zvol, wait),
    array.release.can.nvmet ? namespaces.byZvol(array, zvol, wait) : undefined,
  ]);
  const what = onIt.map((extent) => `extent ${extent.name}`);
  if (namespace !== undefined) {
    what.push(`namespace ${namespace.nsid} of subsystem ${namespace.subsystem}`);
  }
  if (what.length === 0) return;
  throw new TnblockError(
    "in-use",
    `Cannot destroy "${zvol}": it is exported as ${what.join(", ")}`,
    {
      hint: "Remove that export in TrueNAS first; tnblock leaves it alone",
    },
  );
}

/**
 * Refuses while clones hang on the zvol's snapshots, or a hold is on one: the array would fail half-way,
 * when the export and with it an NVMe uuid is gone for good.
 */
export async function refuseDependents(
  array: Caller,
  zvol: string,
  names: readonly string[],
  deadline: Deadline,
): Promise<void> {
  if (names.length === 0) return;
  const wait = deadline.bounds();
  const [clones, all] = await Promise.all([
    zvols.clones(array, zvol, wait),
    snapshots.list(array, zvol, wait),
  ]);
  const held = all.filter((snapshot) => snapshot.holds.length > 0);
  const what = [
    ...clones.map((clone) => `clone ${clone.name}`),
    ...held.map((snapshot) => `the hold on snapshot ${snapshot.name}`),
  ];
  if (what.length === 0) return;
  const list = what.slice(0, 10).join(", ") +
    (what.length > 10 ? ` and ${what.length - 10} more` : "");
  throw new TnblockError("has-dependents", `Cannot free "${zvol}": ${list} stands in the way`, {
    hint: "Free the clones and release the holds first",
  });
}

/** Snapshots in one call: a request has at most 64 KiB, and a name up to 256 bytes. */
const SNAPSHOTS_A_CALL = 150;

/** On 26 the snapshots go first: a recursive destroy there takes clones and holds with it. */
async function deleteSnapshots(
  array: Caller,
  zvol: string,
  names: readonly string[],
): Promise<void> {
  for (let at = 0; at < names.length; at += SNAPSHOTS_A_CALL) {
    const [left] = await snapshots.removeSome(array, zvol, names.slice(at, at + SNAPSHOTS_A_CALL));
    if (left === undefined) continue;
    throw new TnblockError(
      "has-dependents",
      `Cannot free "${zvol}": snapshot "${left.name}" stays: ${left.error}`,
      { hint: "Release its holds and free its clones, then try again" },
    );
  }
}
