/**
 * What becomes of an operation whose process has ended, decided from its journal entry and a fresh look at
 * the array. Nothing here touches anything. Whatever may have come into somebody's hands since stays.
 */
import type { JournalEntry } from "../journal.ts";
import type { Seen } from "./settle.ts";

/** What is to be done; `how` names one of the ways that the operation knows. */
export type Verdict<How extends string = string> =
  /** Nothing is left to do: the entry is closed. */
  | { readonly do: "close"; readonly why: string }
  /** It cannot be told yet: looked at again later. */
  | { readonly do: "wait"; readonly why: string }
  | { readonly do: "act"; readonly how: How; readonly why: string };

const close = (why: string) => ({ do: "close", why }) as const;
const wait = (why: string) => ({ do: "wait", why }) as const;
const act = <How extends string>(how: How, why: string) => ({ do: "act", how, why }) as const;

/** Who names a volume in a guest's configuration; see `guestsNaming`. */
interface Named {
  readonly now: boolean;
  readonly ever: boolean;
  readonly isSure: boolean;
}

/** What there is of a volume or clone that was being made. */
export interface MadeView {
  readonly zvol: {
    readonly isOfOperation: boolean;
    /** Without any mark of tnblock, and a clone of the entry's origin. */
    readonly isUnmarkedClone: boolean;
    readonly guid: string | null;
    readonly createdMs: number;
    readonly hasSnapshots: boolean;
  } | undefined;
  readonly named: Named;
  /** Whether it is exported as this storage's. */
  readonly isExported: boolean;
  /** When there is no zvol: whether rows export its path still, and whether they can only be the operation's. */
  readonly rows: "none" | "its" | "another's";
  /** Whether this node has it attached, or used; of a clone for reading, whether that was since its process ended. */
  readonly isHere: boolean;
}

/** The ways in which what was made is taken back. */
export type MadeHow = "free" | "remove-rows" | "note-unmarked" | "destroy-unmarked";

/**
 * For alloc, import, clone, and the clone for reading a snapshot.
 *
 * @param nowMs monotonic.
 */
export function decideMade(
  { details, told = false }: Pick<JournalEntry, "details" | "told">,
  view: MadeView,
  unmarked: Seen["unmarked"],
  nowMs: number,
  settleMs: number,
): Verdict<MadeHow> {
  const { zvol, named, isHere } = view;
  if (zvol === undefined) return decideRows(details, view);
  if (!zvol.isOfOperation && !zvol.isUnmarkedClone) return close("what has its name is another's");
  // PVE names it when all disks of a guest are there, hours later perhaps, and `pvesm alloc` never.
  if (told) return close("it stays: who asked for it may have heard of it");
  if (details.op === "alloc" && details.repeatable) {
    return close("it stays: what is asked for again by its name is found");
  }
  if (details.op !== "reading") {
    if (named.ever) return close("it stays: a guest's configuration names it");
    if (!named.isSure) return wait("not all guests' configurations can be read");
    if (zvol.hasSnapshots) return close("it stays: somebody took a snapshot of it");
  }
  // What is imported its own process has attached, to write it.
  if (isHere && details.op !== "import") return close("it stays: it is attached on this node");
  if (!zvol.isOfOperation) return decideUnmarked(unmarked, zvol, nowMs, settleMs);
  return act("free", "nobody heard of it");
}

/** Its zvol was destroyed by others, or its export came late: what is left exports nothing, and bars its number. */
function decideRows(
  { op }: JournalEntry["details"],
  { rows, named, isHere }: MadeView,
): Verdict<MadeHow> {
  if (rows === "none") return close("nothing of it is there");
  if (rows === "another's") return close("what exports its path may be another's");
  if (named.ever) return close("its export stays: a guest's configuration names it");
  if (!named.isSure) return wait("not all guests' configurations can be read");
  if (isHere && op !== "import") return close("its export stays: it is attached on this node");
  return act("remove-rows", "only its export is left");
}

/**
 * A clone without marks (from 26 on they are a second write) may be that of another node, which is about to
 * mark it: it is this operation's when it is still there and unmarked much later.
 */
function decideUnmarked(
  unmarked: Seen["unmarked"],
  zvol: { readonly guid: string | null; readonly createdMs: number },
  nowMs: number,
  settleMs: number,
): Verdict<MadeHow> {
  const isKnown = unmarked !== undefined && unmarked.guid === zvol.guid &&
    unmarked.createdMs === zvol.createdMs;
  if (!isKnown && settleMs > 0) {
    return act("note-unmarked", "it has no marks: looked at once more");
  }
  if (isKnown && nowMs - unmarked.sinceMs < settleMs) return wait("it has no marks yet");
  return act("destroy-unmarked", "it was killed between making and marking the clone");
}

/** What there is of a volume that was being renamed. */
export interface RenameView {
  /** Where the zvol is that carries the operation's token and is the one that was to be renamed. */
  readonly at: "from" | "to" | "nowhere";
  /** Whether its marks still say that it is to get the new name. */
  readonly isBegun: boolean;
  /** Which path its export has, when it is its own. */
  readonly exportAt: "from" | "to" | "none";
  /** Whether its export is on where it was off before, or off where it was on. */
  readonly isSwitched: boolean;
  /** Whether it has been given its old name back since, and its export was on before and is off there now. */
  readonly isOffSince: boolean;
  /** Whether something else has the old name. */
  readonly isFromTaken: boolean;
  /** Whether who asked may have heard of the new name. */
  readonly isTold: boolean;
  readonly hasClones: boolean;
  readonly namedFrom: Named;
  readonly namedTo: Named;
  /** Whether anybody on this node uses the disk. */
  readonly isUsed: boolean;
}

/**
 * The ways of a rename: only the marks, the half of it, or all of it back; its half to the end, or all of it
 * once more; on again what a write that came late switched off.
 */
export type RenameHow = "marks-back" | "half-back" | "back" | "forward" | "again" | "switch-on";

/**
 * For rename and create_base: the disk must be reachable by the name that its guest's configuration has.
 *
 * @param isBack whether it was to give a volume its old name back.
 */
export function decideRename(view: RenameView, isBack: boolean): Verdict<RenameHow> {
  const { at, exportAt } = view;
  if (at === "nowhere") {
    if (view.isOffSince) return act("switch-on", "a write that came late had switched it off");
    return close("it was not begun, or gone on with since");
  }
  if (isBack) return decideBack(view);
  if (at === "from") {
    if (!view.isBegun) return close("it was taken back already");
    if (view.isUsed && view.isSwitched) return wait("its disk is used");
    return act("marks-back", "it had not come to the new name");
  }
  const isWhole = exportAt === "to";
  if (exportAt === "none") return close("it stays: nothing exports it, as after a free");
  if (view.namedTo.ever || view.hasClones) {
    const why = "the new name is in use";
    return isWhole ? close(`it stays: ${why}`) : act("forward", why);
  }
  if (!view.namedTo.isSure || !view.namedFrom.isSure) {
    return wait("not all guests' configurations can be read");
  }
  if (view.isTold && !view.namedFrom.ever) {
    return close("it stays: who asked for it may have heard of it, and no guest has its old name");
  }
  if (view.isFromTaken) {
    const why = "another volume has the old name";
    return isWhole ? close(`it stays: ${why}`) : act("forward", why);
  }
  if (view.isUsed) return wait("its disk is used");
  return isWhole
    ? act("back", "nobody heard of the new name")
    : act("half-back", "it stopped half-way");
}

/** For a rename that gives a volume the name back that its guest has. */
function decideBack(view: RenameView): Verdict<RenameHow> {
  const { at, exportAt } = view;
  if (at === "to") {
    if (exportAt === "from") return act("forward", "it stopped half-way");
    return close(exportAt === "to" ? "it has its old name" : "nothing exports it");
  }
  if (!view.isBegun) return close("it was taken back already");
  if (view.namedFrom.ever) {
    if (view.isUsed && view.isSwitched) return wait("its disk is used");
    return act("marks-back", "the name that it has is in use");
  }
  if (!view.namedFrom.isSure) return wait("not all guests' configurations can be read");
  return view.isUsed ? wait("its disk is used") : act("again", "it had not come to its old name");
}

/** What there is of a volume that was being freed. */
export interface FreeView {
  /** Whether the zvol is the one that was to be freed; "gone" when none has its name. */
  readonly zvol: "same" | "other" | "gone";
  /** Whether its export is whole, and made of the rows that were to go. */
  readonly export: "whole" | "other" | "partly";
  readonly named: Named;
  /** Whether this node has it attached, or used: since the free began, which let go of it. */
  readonly isHere: boolean;
}

/** For a free: finished, but never with data that are still whole and in somebody's hands. */
export function decideFree({ zvol, export: found, named, isHere }: FreeView): Verdict<"finish"> {
  if (zvol === "other") return close("what has its name was made since");
  if (zvol === "same" && found === "other") return close("it stays: it was exported anew since");
  if (zvol === "same" && found === "whole") {
    if (named.ever) {
      return close("it stays: nothing was removed, and a guest's configuration names it");
    }
    if (isHere) return close("it stays: nothing was removed, and it is attached on this node");
    if (!named.isSure) return wait("not all guests' configurations can be read");
  }
  return act("finish", "it had begun");
}

/** What there is of a volume whose free was promised. */
export interface PromisedView extends Omit<FreeView, "export"> {
  /** Whether the export is the one that was to go, whole or in part, or another. */
  readonly export: "same" | "other";
  /** Whether the cluster's note of the free stands; "unknown" while it cannot be read. */
  readonly note: "stands" | "withdrawn" | "unknown";
}

/** For a free that was promised, and whose worker never came: as long as the volume is in nobody's hands. */
export function decidePromised(view: PromisedView): Verdict<"finish"> {
  if (view.zvol === "gone") return close("it is gone");
  if (view.zvol === "other") return close("what has its name was made since");
  if (view.export === "other") return close("it stays: it was exported anew since");
  if (view.note === "withdrawn") return close("it stays: it was handed out again");
  if (view.named.ever) return close("it stays: a guest's configuration names it");
  if (view.isHere) return close("it stays: it is attached on this node");
  if (!view.named.isSure) return wait("not all guests' configurations can be read");
  if (view.note === "unknown") return wait("whether it was handed out again cannot be read");
  return act("finish", "PVE has forgotten it, and its worker never came");
}

/** What there is of a volume that was being grown. */
export interface ResizeView {
  /** Undefined when the volume of that time is not there any more. */
  readonly volsize: number | undefined;
  /** Bytes that are reserved for it. */
  readonly reserved: number;
}

/** For a resize: the size is absolute, so that growing once more is safe; a size of somebody else's stays. */
export function decideResize(
  { from, to }: { readonly from: number; readonly to: number },
  { volsize }: Pick<ResizeView, "volsize">,
): Verdict<"grow" | "follow"> {
  if (volsize === undefined) return close("the volume is gone, or another one");
  if (volsize >= to) return act("follow", "the array has grown it");
  if (volsize === from) return act("grow", "the array has not grown it");
  return close("it got another size since");
}

/** What there is of a volume that was being rolled back. */
export interface RollbackView {
  readonly isSame: boolean;
  /** Whether its export may show another size than it has, or be off for that. */
  readonly isResyncBegun: boolean;
  readonly isEnabled: boolean;
  /** Whether anybody is known to use the disk, here or elsewhere. */
  readonly isUsed: boolean;
}

/** For a rollback: never once more, the guest may have been started since; only what follows it. */
export function decideRollback(view: RollbackView): Verdict<"resync"> {
  if (!view.isSame) return close("the volume is gone, or another one");
  if (!view.isResyncBegun) return close("nothing was to follow");
  if (view.isEnabled && view.isUsed) return wait("its disk is used, and shows its new size later");
  return act("resync", "the export is to show the size of the snapshot");
}

/** What there is of a snapshot that was being taken or deleted. */
export interface SnapshotView {
  readonly snapshot: "same" | "other" | "gone";
  /** Whether clones or holds are on it. */
  readonly isUsed: boolean;
  /** Whether who asked may have heard of it. */
  readonly isTold: boolean;
  /** Whether a guest has the volume. */
  readonly isNamed: boolean;
  /** Whether a guest's configuration has the snapshot, finished or begun. */
  readonly isListed: boolean;
  /** Whether all configurations could be read. */
  readonly isSure: boolean;
}

/** For a snapshot that was being taken: nobody heard of it, and it would bar the way back to older ones. */
export function decideTaken(view: SnapshotView): Verdict<"remove"> {
  const { snapshot, isUsed, isListed, isSure } = view;
  if (snapshot === "gone") return close("it was not taken");
  if (snapshot === "other") return close("what has its name was taken since");
  if (isUsed) return close("it stays: something hangs on it");
  if (isListed) return close("it stays: a guest's configuration has it");
  if (!isSure) return wait("not all guests' configurations can be read");
  if (view.isTold && !view.isNamed) {
    return close("it stays: who asked for it may have heard of it, and no guest has the volume");
  }
  return act("remove", "nobody heard of it");
}

/** For a snapshot that was being deleted. */
export function decideDeleted({ snapshot }: Pick<SnapshotView, "snapshot">): Verdict<"remove"> {
  if (snapshot === "gone") return close("it is gone");
  if (snapshot === "other") return close("what has its name was taken since");
  return act("remove", "its deletion had begun");
}
