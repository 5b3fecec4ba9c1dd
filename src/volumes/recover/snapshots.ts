/** Ending what was done to snapshots: one that was being taken goes, one that was being deleted too. */
import * as snapshots from "../../truenas/snapshots.ts";
import { deleteSnapshot } from "../delete_snapshot.ts";
import { isOfOperation } from "../ownership.ts";
import { takeBackSnapshot } from "../snapshot.ts";
import { zvolPath } from "../storage.ts";
import { decideDeleted, decideTaken } from "./decide.ts";
import { type DetailsOf, type Ending, endingOf, type Recovery } from "./recovery.ts";

/** Recovers the taking of a snapshot. */
export async function recoverTaken(
  { storage, within, array, entry, details }: Recovery<DetailsOf<"snapshot">>,
): Promise<Ending> {
  const { path, name, operation } = details;
  const found = await snapshots.read(array, path, name, storage.deadline.bounds());
  const verdict = decideTaken({
    snapshot: found === undefined ? "gone" : isOfOperation(found, operation) ? "same" : "other",
    isUsed: found !== undefined && (found.holds.length > 0 || (found.clones ?? []).length > 0),
  });
  if (verdict.do !== "act") return endingOf(verdict);
  await takeBackSnapshot(within, { path, zvol: entry.zvol, name, operation });
  return { outcome: "undone", why: verdict.why };
}

/** Recovers the deletion of a snapshot. */
export async function recoverDeleted(
  { storage, within, array, entry, details }: Recovery<DetailsOf<"delete_snapshot">>,
): Promise<Ending> {
  const { path, name } = details;
  const isIt = (one: snapshots.Snapshot) =>
    (one.guid ?? null) === details.guid && one.createTxg === details.createTxg;
  const found = path === zvolPath(storage, entry.zvol)
    ? await snapshots.read(array, path, name, storage.deadline.bounds())
    : undefined;
  const verdict = decideDeleted({
    snapshot: found === undefined ? "gone" : isIt(found) ? "same" : "other",
    isUsed: false,
  });
  if (verdict.do !== "act") return endingOf(verdict);
  await deleteSnapshot(within, { zvol: entry.zvol, tag: details.tag }, name, isIt);
  return { outcome: "finished", why: verdict.why };
}
