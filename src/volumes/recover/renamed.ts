/** Setting a volume right whose rename stopped: back to its old name as a rule, which its guest has. */
import { TnblockError } from "../../common/error.ts";
import { tagOf, type VolumeExport } from "../../transport/transport.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isAbsent } from "../../truenas/errors.ts";
import * as snapshots from "../../truenas/snapshots.ts";
import * as zvols from "../../truenas/zvols.ts";
import { BASE_SNAPSHOT } from "../create_base.ts";
import { guestsNaming } from "../guests.ts";
import { findMovable, linkedClones, refuseActive } from "../movable.ts";
import { moveBack } from "../move.ts";
import { isOfOperation, isRenameBegun, renamedFrom, wasRenamedAs } from "../ownership.ts";
import { moveTo, refuseTaken } from "../rename.ts";
import { DestroyCalls } from "../destroy_calls.ts";
import { doomedName } from "../doomed_names.ts";
import { type Storage, zvolPath } from "../storage.ts";
import { asArrayTold } from "../try_names.ts";
import { decideRename, type RenameHow, type RenameView, type Verdict } from "./decide.ts";
import {
  CHANGED,
  type DetailsOf,
  type Ending,
  endingOf,
  ifVolumeIsIdle,
  isSameZvol,
  NOT_SETTLED,
  type Recovery,
} from "./recovery.ts";
import { comingOfRename, mayAct } from "./settle.ts";

type Renaming = Recovery<DetailsOf<"rename" | "create_base">>;

/** What was found. */
interface Found {
  readonly view: RenameView;
  readonly zvol: zvols.Zvol | undefined;
  readonly export: VolumeExport | undefined;
  /** Whether it is to become a base, has the new name, and not the snapshot that comes last. */
  readonly lacksSnapshot: boolean;
}

/** Recovers rename and create_base. */
export async function recoverRename(recovery: Renaming): Promise<Ending> {
  const { storage, details, entry, pace } = recovery;
  return await ifVolumeIsIdle(storage, details.from, async () => {
    const found = await look(recovery);
    const verdict = decideRename(found.view, details.back);
    if (verdict.do !== "act") return endingOf(verdict);
    if (!mayAct(pace, comingOfRename(found.view, found.lacksSnapshot))) return NOT_SETTLED;
    const { zvol, export: exported } = found;
    if (zvol === undefined) return endingOf({ do: "close", why: "it is gone" });
    storage.deadline.check();
    if (verdict.how === "marks-back") {
      await switchAsBefore(recovery, exported);
      await marksBack(recovery);
    } else if (exported === undefined) {
      return endingOf({ do: "close", why: "nothing exports it" });
    } else if (verdict.how === "switch-on") {
      await switchAsBefore(recovery, exported);
    } else if (verdict.how === "forward") {
      await goForward(recovery, exported);
    } else if (verdict.how === "half-back") {
      await moveBack(recovery.within, recovery.array, { zvol, export: exported });
      if (!details.enabled) await switchAsBefore(recovery, { ...exported, enabled: true });
      await marksBack(recovery);
    } else if (verdict.how === "again") {
      return await takeBack(recovery, verdict, exported, details.from, entry.zvol);
    } else {
      return await ifVolumeIsIdle(
        storage,
        entry.zvol,
        () => takeBack(recovery, verdict, exported, entry.zvol, details.from),
      );
    }
    return { outcome: verdict.how === "forward" ? "finished" : "undone", why: verdict.why };
  });
}

async function look({ storage, array, entry, details }: Renaming): Promise<Found> {
  const { transport, deadline, settings } = storage;
  const from = zvolPath(storage, details.from);
  const to = zvolPath(storage, entry.zvol);
  const [listing, exportFrom, exportTo] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.lookUp(array, from, deadline),
    transport.lookUp(array, to, deadline),
  ]);
  const same = listing.zvols.find((one) =>
    (one.name === from || one.name === to) && isSameZvol(details.made, one)
  );
  const isIts = same !== undefined && isOfOperation(same, details.operation);
  // By another operation, which gave it its old name back.
  const isBackSince = same !== undefined && !isIts && !details.back && same.name === from &&
    renamedFrom(same) === to;
  const zvol = isIts || isBackSince ? same : undefined;
  const own = (found: typeof exportFrom) =>
    found.kind === "ours" && zvol !== undefined && wasRenamedAs(zvol, found.export.identity)
      ? found.export
      : undefined;
  const exported = own(exportTo) ?? own(exportFrom);
  const tag = exported === undefined ? undefined : tagOf(exported.identity);
  const isSwitched = exported !== undefined && exported.enabled !== details.enabled;
  const isTaken = listing.filesystems.includes(from) ||
    listing.zvols.some((one) => one.name === from);
  return {
    zvol,
    export: exported,
    lacksSnapshot: isIts && details.op === "create_base" && same.name === to &&
      await snapshots.read(array, to, BASE_SNAPSHOT, deadline.bounds()) === undefined,
    view: {
      at: !isIts ? "nowhere" : same.name === from ? "from" : "to",
      isBegun: zvol !== undefined && isRenameBegun(zvol),
      exportAt: own(exportTo) !== undefined
        ? "to"
        : own(exportFrom) !== undefined
        ? "from"
        : "none",
      isSwitched,
      isOffSince: isBackSince && own(exportFrom) !== undefined && isSwitched && details.enabled,
      isFromTaken: isTaken,
      isTold: entry.told === true,
      hasClones: zvol !== undefined && linkedClones(listing, zvol.name).length > 0,
      namedFrom: await guestsNaming(storage, { zvol: details.from, tag }),
      namedTo: await guestsNaming(storage, { zvol: entry.zvol, tag }),
      isUsed: exported !== undefined && (await transport.users(exported.identity)).length > 0,
    },
  };
}

/** The export at the old path, on or off as it was. */
async function switchAsBefore(
  { storage, within, array, details }: Renaming,
  exported: VolumeExport | undefined,
): Promise<void> {
  if (exported === undefined || exported.enabled === details.enabled) return;
  const from = zvolPath(storage, details.from);
  const as = { ...exported, enabled: details.enabled };
  await storage.transport.repoint(array, as, from, within.undoDeadline());
}

async function marksBack({ storage, array, details }: Renaming): Promise<void> {
  const from = zvolPath(storage, details.from);
  const marks = Object.entries(details.marks).map(([key, value]) => [key, value ?? undefined]);
  await zvols.setUserProperties(array, from, Object.fromEntries(marks));
  const now = await zvols.read(array, from);
  if (now !== undefined && !isOfOperation(now, details.operation)) return;
  throw new TnblockError(
    "array-fault",
    `Cannot give "${from}" its marks back: TrueNAS answered that it did, but it is not so`,
  );
}

/** The export follows the zvol, which cannot go back. */
async function goForward(
  { storage, array, entry, details }: Renaming,
  exported: VolumeExport,
): Promise<void> {
  const to = zvolPath(storage, entry.zvol);
  const as = { ...exported, enabled: details.enabled };
  await storage.transport.repoint(array, as, to, storage.undoDeadline());
}

/**
 * All of it, from one name to the other, with an entry of its own; under the lock of the name that it has.
 * Decided again there, before this node lets go of the disk and right before the first write: who had the lock
 * before may have given the disk to a guest.
 */
async function takeBack(
  recovery: Renaming,
  first: Extract<Verdict<RenameHow>, { do: "act" }>,
  { identity }: VolumeExport,
  name: string,
  to: string,
): Promise<Ending> {
  const { storage, array, details } = recovery;
  const decideAgain = async (): Promise<Ending | undefined> => {
    const verdict = decideRename((await look(recovery)).view, details.back);
    if (verdict.do !== "act") return endingOf(verdict);
    return verdict.how === first.how ? undefined : endingOf(CHANGED);
  };
  const volume = { zvol: name, tag: tagOf(identity) };
  const before = await decideAgain();
  if (before !== undefined) return before;
  const movable = await findMovable(storage, array, volume, () => true);
  refuseTaken(storage, movable, to);
  await refuseActive(storage, volume, movable, "rename");
  const last = await decideAgain();
  if (last !== undefined) return last;
  storage.deadline.check();
  if (details.op === "create_base" && !details.back) {
    await removeBaseSnapshot(storage, array, movable.source.zvol.name);
  }
  await moveTo(storage, array, movable, to, undefined, "back").catch(asArrayTold);
  return { outcome: first.how === "again" ? "finished" : "undone", why: first.why };
}

/** What became of a lost answer is seen at the next look. */
async function removeBaseSnapshot(storage: Storage, array: Caller, path: string): Promise<void> {
  const calls = new DestroyCalls(storage, doomedName(path, BASE_SNAPSHOT));
  try {
    await calls.send(() => snapshots.remove(array, path, BASE_SNAPSHOT));
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}
