/** Setting a volume right whose rename stopped: back to its old name as a rule, which its guest has. */
import { TnblockError } from "../../common/error.ts";
import { tagOf, type VolumeExport } from "../../transport/transport.ts";
import * as zvols from "../../truenas/zvols.ts";
import { withVolumeLock } from "../attachment.ts";
import { takeBackBase } from "../create_base.ts";
import { guestsNaming } from "../guests.ts";
import { linkedClones } from "../movable.ts";
import { moveBack } from "../move.ts";
import { isOfOperation, isRenameBegun, wasRenamedAs } from "../ownership.ts";
import { takeBackRename } from "../rename.ts";
import { zvolPath } from "../storage.ts";
import { decideRename, type RenameView } from "./decide.ts";
import { type DetailsOf, type Ending, endingOf, isSameZvol, type Recovery } from "./recovery.ts";

type Renaming = Recovery<DetailsOf<"rename" | "create_base">>;

/** What was found. */
interface Found {
  readonly view: RenameView;
  readonly zvol: zvols.Zvol | undefined;
  readonly export: VolumeExport | undefined;
}

/** Recovers rename and create_base. */
export async function recoverRename(recovery: Renaming): Promise<Ending> {
  const { storage, details, entry } = recovery;
  let again: VolumeExport | undefined;
  const ending = await withVolumeLock<Ending>(storage, details.from, async () => {
    const found = await look(recovery);
    const verdict = decideRename(found.view, details.back);
    if (verdict.do !== "act") return endingOf(verdict);
    const { zvol, export: exported } = found;
    if (zvol === undefined) return endingOf({ do: "close", why: "it is gone" });
    storage.deadline.check();
    if (verdict.how === "marks-back") {
      await switchAsBefore(recovery, exported);
      await marksBack(recovery);
    } else if (exported === undefined) {
      return endingOf({ do: "close", why: "nothing exports it" });
    } else if (verdict.how === "forward") {
      await goForward(recovery, exported);
    } else if (verdict.how === "again") {
      again = exported;
    } else if (verdict.how === "half-back") {
      await moveBack(recovery.within, recovery.array, { zvol, export: exported });
      if (!details.enabled) await switchAsBefore(recovery, { ...exported, enabled: true });
      await marksBack(recovery);
    } else {
      await takeBack(recovery, exported);
    }
    const isFinished = verdict.how === "forward" || verdict.how === "again";
    return { outcome: isFinished ? "finished" : "undone", why: verdict.why };
  });
  // It takes the same lock by itself.
  if (again !== undefined) {
    await takeBackRename(storage, {
      zvol: details.from,
      tag: tagOf(again.identity),
      change: { from: entry.zvol, operation: details.operation },
    });
  }
  return ending;
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
  const isIt = (zvol: zvols.Zvol) =>
    isSameZvol(details.made, zvol) && isOfOperation(zvol, details.operation);
  const zvol = listing.zvols.find((one) => (one.name === from || one.name === to) && isIt(one));
  const own = (found: typeof exportFrom) =>
    found.kind === "ours" && zvol !== undefined && wasRenamedAs(zvol, found.export.identity)
      ? found.export
      : undefined;
  const exported = own(exportTo) ?? own(exportFrom);
  const tag = exported === undefined ? undefined : tagOf(exported.identity);
  const isTaken = listing.filesystems.includes(from) ||
    listing.zvols.some((one) => one.name === from);
  return {
    zvol,
    export: exported,
    view: {
      at: zvol === undefined ? "nowhere" : zvol.name === from ? "from" : "to",
      isBegun: zvol !== undefined && isRenameBegun(zvol),
      exportAt: own(exportTo) !== undefined
        ? "to"
        : own(exportFrom) !== undefined
        ? "from"
        : "none",
      isSwitched: exported !== undefined && exported.enabled !== details.enabled,
      isFromTaken: isTaken,
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

/** All of it: by the same steps as when a caller has gone, with an entry of their own. */
async function takeBack(
  { storage, entry, details }: Renaming,
  { identity }: VolumeExport,
): Promise<void> {
  const made = {
    zvol: entry.zvol,
    tag: tagOf(identity),
    change: { from: details.from, operation: details.operation },
  };
  await (details.op === "create_base" ? takeBackBase : takeBackRename)(storage, made);
}
