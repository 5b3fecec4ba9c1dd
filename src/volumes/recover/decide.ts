/**
 * What becomes of an operation whose process has ended, decided from its journal entry and a fresh look at
 * the array. Nothing here touches anything. Whatever may have come into somebody's hands since stays.
 */
import type { JournalEntry } from "../journal.ts";

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

/**
 * Whether a time has passed since another; a clock that was set back by more than it counts as passed, so that
 * nothing waits for years.
 */
export function hasPassed(sinceMs: number, nowMs: number, ms: number): boolean {
  const passed = nowMs - sinceMs;
  return passed >= ms || passed < -ms;
}

/** What is to be done first: a call of the dead process may be under way on the array still. */
export function decideTime(
  entry: Pick<JournalEntry, "deadMs">,
  nowMs: number,
  settleMs: number,
): "note-death" | "wait" | "look" {
  if (settleMs === 0) return "look";
  if (entry.deadMs === undefined) return "note-death";
  return hasPassed(entry.deadMs, nowMs, settleMs) ? "look" : "wait";
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
  /** Whether this node has it attached, or used; of a clone for reading, whether that was since its process ended. */
  readonly isHere: boolean;
}

/** The ways in which what was made is taken back. */
export type MadeHow = "free" | "note-unmarked" | "destroy-unmarked";

/** For alloc, import, clone, and the clone for reading a snapshot. */
export function decideMade(
  entry: Pick<JournalEntry, "details" | "unmarked">,
  { zvol, named, isHere }: MadeView,
  nowMs: number,
  settleMs: number,
): Verdict<MadeHow> {
  const { details } = entry;
  if (zvol === undefined) return close("nothing of it is there");
  if (!zvol.isOfOperation && !zvol.isUnmarkedClone) return close("what has its name is another's");
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
  if (!zvol.isOfOperation) return decideUnmarked(entry, zvol, nowMs, settleMs);
  return act("free", "nobody heard of it");
}

/**
 * A clone without marks (from 26 on they are a second write) may be that of another node, which is about to
 * mark it: it is this operation's when it is still there and unmarked much later.
 */
function decideUnmarked(
  { unmarked }: Pick<JournalEntry, "unmarked">,
  zvol: { readonly guid: string | null; readonly createdMs: number },
  nowMs: number,
  settleMs: number,
): Verdict<MadeHow> {
  const isKnown = unmarked !== undefined && unmarked.guid === zvol.guid &&
    unmarked.createdMs === zvol.createdMs;
  if (!isKnown && settleMs > 0) {
    return act("note-unmarked", "it has no marks: looked at once more");
  }
  if (isKnown && !hasPassed(unmarked.sinceMs, nowMs, settleMs)) return wait("it has no marks yet");
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
  /** Whether something else has the old name. */
  readonly isFromTaken: boolean;
  readonly hasClones: boolean;
  readonly namedFrom: Named;
  readonly namedTo: Named;
  /** Whether anybody on this node uses the disk. */
  readonly isUsed: boolean;
}

/**
 * The ways of a rename: only the marks, the half of it, or all of it back; its half to the end, or all of it
 * once more.
 */
export type RenameHow = "marks-back" | "half-back" | "back" | "forward" | "again";

/**
 * For rename and create_base: the disk must be reachable by the name that its guest's configuration has.
 *
 * @param isBack whether it was to give a volume its old name back.
 */
export function decideRename(view: RenameView, isBack: boolean): Verdict<RenameHow> {
  const { at, exportAt } = view;
  if (at === "nowhere") return close("it was not begun, or gone on with since");
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

/** What there is of a volume that was being grown. */
export interface ResizeView {
  /** Undefined when the volume of that time is not there any more. */
  readonly volsize: number | undefined;
}

/** For a resize: the size is absolute, so that growing once more is safe; a size of somebody else's stays. */
export function decideResize(
  { from, to }: { readonly from: number; readonly to: number },
  { volsize }: ResizeView,
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
}

/** For a snapshot that was being taken: nobody heard of it, and it would bar the way back to older ones. */
export function decideTaken({ snapshot, isUsed }: SnapshotView): Verdict<"remove"> {
  if (snapshot === "gone") return close("it was not taken");
  if (snapshot === "other") return close("what has its name was taken since");
  if (isUsed) return close("it stays: something hangs on it");
  return act("remove", "nobody heard of it");
}

/** For a snapshot that was being deleted. */
export function decideDeleted({ snapshot }: SnapshotView): Verdict<"remove"> {
  if (snapshot === "gone") return close("it is gone");
  if (snapshot === "other") return close("what has its name was taken since");
  return act("remove", "its deletion had begun");
}
