/** Destroying a zvol: only one that nothing exports, whatever would. */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import type { ExportRow } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { arrayErrorIn, isAbsent, isBusy, isNotFound, isUnknownOutcome } from "../truenas/errors.ts";
import * as extents from "../truenas/extents.ts";
import * as namespaces from "../truenas/namespaces.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { refuseDependents } from "./dependents.ts";
import { DestroyCalls } from "./destroy_calls.ts";
import { doomedName } from "./doomed_names.ts";
import { LastingUse } from "./lasting_use.ts";
import type { Storage } from "./storage.ts";

/** Least time that is kept for another try, in ms. */
const LAST_TRY_MS = 1000;

/** What tells a zvol from a later one of its name, as it was when it was found fit to be destroyed. */
export type Condemned = Pick<zvols.Zvol, "name" | "guid" | "createdMs">;

/**
 * Destroys that very zvol with its snapshots; "busy" and a lost answer are tried again until the deadline, each
 * time after a fresh look. The array goes on with a call whose answer was lost, and it names the zvol only by its
 * path: nobody gets that name while such a call may come (`doomed_names.ts`).
 *
 * On 25.x the array's own call would first delete every extent and namespace on the zvol, and with the
 * last LUN the administrator's target (`middlewared/plugins/pool_/dataset.py`): so nothing may
 * export it any more, by either protocol.
 *
 * @throws TnblockError `in-use` when something exports it, `has-dependents` for clones and holds, `busy`
 *   when it was so until the deadline.
 */
export async function destroyZvol(
  storage: Storage,
  array: Caller,
  zvol: Condemned,
  deadline: Deadline,
): Promise<void> {
  const calls = new DestroyCalls(storage, doomedName(zvol.name));
  for (let attempt = 1;; attempt++) {
    const now = await zvols.read(array, zvol.name, deadline.bounds());
    // What has the name meanwhile is not what was to be destroyed.
    if (now === undefined) return await calls.seenDone();
    if (!isSame(zvol, now)) return;
    try {
      return await destroyOnce(storage, array, zvol.name, deadline, calls);
    } catch (error) {
      if (isAbsent(error)) return await calls.seenDone();
      const isGone = async () =>
        await zvols.read(array, zvol.name, deadline.bounds()) === undefined;
      // 25.x says it of who lost against another node with a number (EFAULT) that may mean anything.
      if (isNotFound(error) && await isGone()) return await calls.seenDone();
      const again = isBusy(error) || isUnknownOutcome(error) ||
        arrayErrorIn(error)?.code === "unreachable";
      if (!again || deadline.leftMs() < LAST_TRY_MS) throw error;
      if (isUnknownOutcome(error) && await calls.isSeenDone(deadline, isGone)) return;
      const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length - 1)] ?? 250;
      await storage.host.wait(pause * 4, deadline.signal);
    }
  }
}

function isSame(a: Condemned, b: Condemned): boolean {
  return a.guid === b.guid && a.createdMs === b.createdMs;
}

async function destroyOnce(
  storage: Storage,
  array: Caller,
  zvol: string,
  deadline: Deadline,
  calls: DestroyCalls,
): Promise<void> {
  const [names] = await Promise.all([
    snapshots.names(array, zvol, deadline.bounds()),
    refuseExports(array, zvol, [], deadline),
  ]);
  await refuseDependents(storage, array, zvol, names, deadline);
  if (array.release.can.recursiveDestroysClones && names.length > 0) {
    await calls.send(() => deleteSnapshots(array, zvol, names));
  }
  await calls.send(() => zvols.destroy(array, zvol, { withSnapshots: names.length > 0 }));
}

/**
 * Refuses while anything of the array exports the zvol, foreign rows and the other protocol included.
 *
 * @param except rows that are the volume's own.
 */
export async function refuseExports(
  array: Caller,
  zvol: string,
  except: readonly ExportRow[],
  deadline: Deadline,
): Promise<void> {
  const wait = deadline.bounds();
  const [onIt, namespace] = await Promise.all([
    extents.byZvol(array, zvol, wait),
    array.release.can.nvmet ? namespaces.byZvol(array, zvol, wait) : undefined,
  ]);
  const isOwn = (kind: ExportRow["kind"], id: number) =>
    except.some((row) => row.kind === kind && row.id === id);
  const what = onIt.filter(({ id }) => !isOwn("extent", id)).map(({ name }) => `extent ${name}`);
  if (namespace !== undefined && !isOwn("namespace", namespace.id)) {
    what.push(`namespace ${namespace.nsid} of subsystem ${namespace.subsystem}`);
  }
  if (what.length === 0) return;
  throw new LastingUse(
    `Cannot free "${zvol}": it is exported as ${what.join(", ")}`,
    {
      hint: "Remove that export in TrueNAS first; tnblock leaves it alone",
    },
  );
}

/** Characters of snapshot names in one call: a request has at most 64 KiB. */
const NAMES_A_CALL = 48 * 1024;

/** What a request holds for each snapshot beside its name. */
const BESIDE_A_NAME = 48;

/** On 26 the snapshots go first: a recursive destroy there takes clones and holds with it. */
async function deleteSnapshots(
  array: Caller,
  zvol: string,
  names: readonly string[],
): Promise<void> {
  for (const some of inRequests(names, zvol.length + BESIDE_A_NAME)) {
    const [left] = await snapshots.removeSome(array, zvol, some);
    if (left === undefined) continue;
    throw new TnblockError(
      "has-dependents",
      `Cannot free "${zvol}": snapshot "${left.name}" stays: ${left.error}`,
      { hint: "Release its holds and free its clones, then try again" },
    );
  }
}

/** Splits names so that each part fits a request: one part for hundreds of snapshots. */
function inRequests(names: readonly string[], beside: number): string[][] {
  const parts: string[][] = [];
  let room = 0;
  for (const name of names) {
    const size = name.length + beside;
    if (room < size) {
      parts.push([]);
      room = NAMES_A_CALL;
    }
    parts.at(-1)?.push(name);
    room -= size;
  }
  return parts;
}
