/**
 * When a stopped operation may be acted on: at once where a look shows that nothing of its process can come any
 * more, else once its last write is over for certain. Pure.
 *
 * A process does one write after the other, so that at its death one may be under way, which the array goes on
 * with. What was acted on early stays open until it has settled, and is looked at once more: a write that nobody
 * waited for (its answer was lost, and the process went on or took back) may still come.
 *
 * | operation | writes, in their order | acted on early when a look shows |
 * |---|---|---|
 * | alloc, import | zvol; extent, mapping (iSCSI) or namespace (NVMe); then the target's weight, another zvol | zvol and export whole |
 * | clone | clone (25.10: with its marks; 26: marks after it); extent, mapping or namespace | the same |
 * | reading | as clone | never: its snapshot may be read again by then, and nobody misses the clone |
 * | snapshot | snapshot | it is there, and no guest's configuration has it |
 * | rename (25.10, 26) | marks; NVMe: namespace off; zvol; extent, or namespace on | zvol and export have the new name, the export is on or off as before |
 * | create_base (25.10, 26) | those; snapshot `__base__` | the same, and the snapshot is there |
 * | rename that takes one back | as rename | never: once it has come all the way nothing is left to do |
 * | resize | size; reservation of a thick one | the zvol has the size, and the reservation too if it is thick |
 * | delete_snapshot, free, rollback | deletions; rollback, then the export's size | never: what comes late hits what has the name by then |
 *
 * An answer that may have left (`told`) gives PVE time to write what it heard: a new name at once
 * (`assign_disk`, `template_create`); of a snapshot the configuration has a section before it is taken
 * (`snapshot_create`). A volume of which PVE was told is not taken back at all.
 */
import type { Op } from "../journal.ts";
import type { MadeView, RenameView, ResizeView, SnapshotView } from "./decide.ts";

/** What may still come of a process that has ended. */
export type Coming =
  /** A write may be under way on the array. */
  | "write"
  /** No write; but who asked may have the answer, and be about to use it. */
  | "answer"
  | "nothing";

/** What a process of recovery has seen of an entry. Times are monotonic, in milliseconds: clocks are set after a boot. */
export interface Seen {
  /** Since when the entry is known to have no process. */
  readonly deadSinceMs: number;
  /** Whether it was acted on before it had settled. */
  readonly hasActed?: boolean;
  /** Whether a rollback that may be under way is kept from coming late. */
  readonly isFenced?: boolean;
  /** A clone without marks that may be this operation's, and since when it is known. */
  readonly unmarked?: {
    readonly guid: string | null;
    readonly createdMs: number;
    readonly sinceMs: number;
  };
}

/** For how long PVE may take from an answer to what it writes into a configuration. */
const ANSWER_MS = 30_000;

/** How long ago a process ended, and whether all that it asked for is over. */
export interface Pace {
  readonly ageMs: number;
  readonly isSettled: boolean;
}

/** Operations that may be acted on early. */
const EARLY: readonly Op[] = [
  "alloc",
  "import",
  "clone",
  "snapshot",
  "rename",
  "create_base",
  "resize",
];

/**
 * What is to be done first.
 *
 * @param settleMs for how long a write may be under way; 0 for never.
 */
export function decideTime(
  op: Op,
  seen: Seen,
  nowMs: number,
  settleMs: number,
): { readonly do: "wait" | "look"; readonly pace: Pace } {
  const ageMs = nowMs - seen.deadSinceMs;
  const isSettled = ageMs >= settleMs;
  const isLooked = isSettled || (EARLY.includes(op) && seen.hasActed !== true);
  return { do: isLooked ? "look" : "wait", pace: { ageMs, isSettled } };
}

/** Whether it may be acted on by now. */
export function mayAct({ ageMs, isSettled }: Pace, coming: Coming): boolean {
  return isSettled || coming === "nothing" || (coming === "answer" && ageMs >= ANSWER_MS);
}

/** For a volume or clone that was being made; the marks of a clone come before its export. */
export function comingOfMade({ zvol, isExported }: MadeView): Coming {
  return zvol?.isOfOperation === true && isExported ? "nothing" : "write";
}

/**
 * For rename and create_base. On or off otherwise than before: the export is at its way back, or not yet there.
 *
 * @param lacksSnapshot of a base that is not one yet.
 */
export function comingOfRename(
  { at, exportAt, isSwitched, isTold }: RenameView,
  lacksSnapshot: boolean,
): Coming {
  const isWhole = at === "to" && exportAt === "to" && !isSwitched && !lacksSnapshot;
  if (!isWhole) return "write";
  return isTold ? "answer" : "nothing";
}

/** For a snapshot that was being taken. */
export function comingOfTaken({ snapshot, isListed, isTold }: SnapshotView): Coming {
  if (snapshot !== "same" || isListed) return "write";
  return isTold ? "answer" : "nothing";
}

/** For a resize. */
export function comingOfResize(
  { to, thick }: { readonly to: number; readonly thick: boolean },
  { volsize, reserved }: ResizeView,
): Coming {
  if (volsize === undefined || volsize < to) return "write";
  return thick && reserved < to ? "write" : "nothing";
}
