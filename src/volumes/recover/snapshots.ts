/** Ending what was done to snapshots: one that was being taken goes, one that was being deleted too. */
import { findGuests } from "../../host/guest_configs.ts";
import type { Caller } from "../../truenas/caller.ts";
import * as snapshots from "../../truenas/snapshots.ts";
import * as zvols from "../../truenas/zvols.ts";
import { deleteSnapshot } from "../delete_snapshot.ts";
import { isOfOperation } from "../ownership.ts";
import { isFenceOf } from "../rollback_fence.ts";
import { takeBackSnapshot } from "../snapshot.ts";
import { type Storage, zvolPath } from "../storage.ts";
import { decideDeleted, decideTaken, type SnapshotView } from "./decide.ts";
import {
  type DetailsOf,
  type Ending,
  endingOf,
  isSameZvol,
  NOT_SETTLED,
  type Recovery,
} from "./recovery.ts";
import { comingOfTaken, mayAct } from "./settle.ts";

/** Recovers the taking of a snapshot. */
export async function recoverTaken(
  { storage, within, array, entry, details, pace }: Recovery<DetailsOf<"snapshot">>,
): Promise<Ending> {
  const { path, name, operation } = details;
  const found = await snapshots.read(array, path, name, storage.deadline.bounds());
  const view: SnapshotView = {
    snapshot: found === undefined ? "gone" : isOfOperation(found, operation) ? "same" : "other",
    isUsed: found !== undefined && (found.holds.length > 0 || (found.clones ?? []).length > 0),
    isTold: entry.told === true,
    ...await whoLists(storage, entry.zvol, name),
  };
  const verdict = decideTaken(view);
  if (verdict.do !== "act") return endingOf(verdict);
  if (!mayAct(pace, comingOfTaken(view))) return NOT_SETTLED;
  await takeBackSnapshot(within, { path, zvol: entry.zvol, name, operation });
  return { outcome: "undone", why: verdict.why };
}

/**
 * Whether a guest's configuration has the snapshot of the volume, as PVE writes it there before it asks for it:
 * then it is PVE's to delete, should its snapshot not come about.
 */
async function whoLists(
  storage: Storage,
  zvol: string,
  snapshot: string,
): Promise<Pick<SnapshotView, "isNamed" | "isListed" | "isSure">> {
  const { guests, unread } = await findGuests(storage.host, {
    storage: storage.settings.id,
    contains: zvol,
    // Of any number or uuid: one that is listed too many only stays.
    isMeant: (volname) => {
      const own = volname.slice(volname.lastIndexOf("/") + 1);
      return own === zvol || own.startsWith(`vol-${zvol}-`);
    },
    exceptNode: "",
  });
  return {
    isNamed: guests.some(({ now }) => now),
    isListed: guests.some(({ snapshots }) => snapshots.includes(snapshot)),
    isSure: unread.length === 0,
  };
}

/** Recovers the deletion of a snapshot. */
export async function recoverDeleted(
  { storage, within, array, entry, details }: Recovery<DetailsOf<"delete_snapshot">>,
): Promise<Ending> {
  const { path, name, of } = details;
  // 25.04 tells no zvol from another one of the same second, and gives none another name.
  const hasOneName = of === undefined || of.guid === null;
  const zvol = hasOneName ? entry.zvol : await nameOf(storage, array, of);
  const isIt = (one: snapshots.Snapshot) =>
    of !== undefined
      ? isFenceOf(one, entry.id)
      : (one.guid ?? null) === details.guid && one.createTxg === details.createTxg;
  const pathNow = zvol === undefined ? undefined : zvolPath(storage, zvol);
  const found = pathNow !== undefined && (of !== undefined || path === pathNow)
    ? await snapshots.read(array, pathNow, name, storage.deadline.bounds())
    : undefined;
  const verdict = decideDeleted({
    snapshot: found === undefined ? "gone" : isIt(found) ? "same" : "other",
  });
  if (verdict.do !== "act" || zvol === undefined) {
    return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
  }
  await deleteSnapshot(within, { zvol, tag: details.tag }, name, isIt);
  return { outcome: "finished", why: verdict.why };
}

/** What a zvol is called now: it may have been renamed, or become a base. */
async function nameOf(
  { settings, deadline }: Storage,
  array: Caller,
  made: Parameters<typeof isSameZvol>[0],
): Promise<string | undefined> {
  const listing = await zvols.list(array, settings.dataset, deadline.bounds());
  return listing.zvols.find((zvol) => isSameZvol(made, zvol))?.name
    .slice(settings.dataset.length + 1);
}
