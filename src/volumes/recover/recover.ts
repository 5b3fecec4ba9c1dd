/**
 * Ends the operations of this node whose process has ended before them: by kill -9, loss of power, an upgrade
 * or fencing. An entry is taken only under its lock, which a running operation holds.
 */
import { asTnblockError, type ErrorCode, type TnblockError } from "../../common/error.ts";
import { LONGEST_WRITE_MS } from "../../truenas/caller.ts";
import * as datasets from "../../truenas/datasets.ts";
import {
  type JournalEntry,
  lockEntry,
  type Op,
  readEntry,
  readJournal,
  removeEntry,
  writeEntry,
} from "../journal.ts";
import { isUndone, KEPT_ENTRY, whyForeign } from "../journaled.ts";
import type { Storage } from "../storage.ts";
import { recoverFree, recoverResize, recoverRollback } from "./changed.ts";
import { decideTime } from "./decide.ts";
import { recoverMade } from "./made.ts";
import { recoverRename } from "./renamed.ts";
import type { Ending, Recovery } from "./recovery.ts";
import { recoverDeleted, recoverTaken } from "./snapshots.ts";

/** What became of one entry. */
export interface Recovered {
  readonly id: string;
  readonly op: Op;
  readonly zvol: string;
  /**
   * `closed`: there was nothing to do. `waits`: it cannot be told yet. `running`: its process has not ended.
   * `foreign`: of another node, array, dataset, transport or target than the storage's, left alone. `failed`: tried again.
   */
  readonly outcome: Ending["outcome"] | "running" | "foreign" | "failed";
  readonly why: string;
  /** For one that failed. */
  readonly error?: TnblockError;
}

/** How entries are recovered. */
export interface RecoverOptions {
  /**
   * Milliseconds after which a call of a dead process is over on the array; by default as long as a write may
   * take.
   */
  readonly settleMs?: number;
  /** Which entries to take; all unless given. */
  readonly isDue?: (entry: JournalEntry) => boolean;
}

/**
 * Recovers all entries of a storage, one after another. Rejects only when the journal cannot be read; an
 * entry that fails stays.
 */
export async function recoverStorage(
  storage: Storage,
  options: RecoverOptions = {},
): Promise<Recovered[]> {
  const { entries } = await readJournal(storage.host);
  const own = entries.filter((entry) => entry.storage === storage.settings.id)
    .sort((a, b) => a.startedMs - b.startedMs);
  const recovered: Recovered[] = [];
  for (const entry of own) {
    if (options.isDue?.(entry) === false) continue;
    if (storage.deadline.leftMs() === 0) break;
    const found = await recoverOne(storage, entry, options.settleMs ?? LONGEST_WRITE_MS);
    if (found !== undefined) recovered.push(found);
  }
  return recovered;
}

async function recoverOne(
  storage: Storage,
  seen: JournalEntry,
  settleMs: number,
): Promise<Recovered | undefined> {
  const { host, log } = storage;
  const { id, zvol, details: { op } } = seen;
  const told = (outcome: Recovered["outcome"], why: string) => ({ id, op, zvol, outcome, why });
  let release: (() => void) | undefined;
  try {
    release = await lockEntry(host, id);
    if (release === undefined) return told("running", "its process has not ended");
    // It may have ended between the two.
    const entry = await readEntry(host, id);
    if (entry === undefined) return undefined;
    const foreign = whyForeign(storage, entry);
    if (foreign !== undefined) return told("foreign", foreign);
    const nowMs = host.now();
    const time = decideTime(entry, nowMs, settleMs);
    if (time !== "look") {
      if (time === "note-death") await writeEntry(host, { ...entry, deadMs: nowMs });
      return told("waits", "what it asked the array for may not be over yet");
    }
    const ending = await refusalIsAnEnd(entry, () => recover(storage, entry, settleMs));
    if (ending.outcome !== "waits") await removeEntry(host, id, isUndone(op));
    else if (ending.keep !== undefined) await writeEntry(host, { ...entry, ...ending.keep });
    if (ending.outcome !== "waits") {
      log.info(`${op} of "${zvol}", which was stopped, is ${ending.outcome}: ${ending.why}`);
    }
    return told(ending.outcome, ending.why);
  } catch (error) {
    const failure = asTnblockError(error);
    // Nothing was touched; half a free is told of, because nobody ends that use by himself.
    if (failure.code === "in-use" && op !== "free") return told("waits", failure.message);
    return { ...told("failed", failure.message), error: failure };
  } finally {
    release?.();
  }
}

/** What stays as it is when the array or the volume's state refuses: nothing is half done then. */
const REFUSALS: readonly ErrorCode[] = [
  "has-dependents",
  "not-ours",
  "not-found",
  "volume-replaced",
  "unsupported",
];

async function refusalIsAnEnd(
  { details: { op } }: JournalEntry,
  work: () => Promise<Ending>,
): Promise<Ending> {
  try {
    return await work();
  } catch (error) {
    const failure = asTnblockError(error);
    // Half a free is no state to stay in.
    if (op === "free" || !REFUSALS.includes(failure.code)) throw error;
    return { outcome: "closed", why: failure.message };
  }
}

async function recover(storage: Storage, entry: JournalEntry, settleMs: number): Promise<Ending> {
  const within: Storage = { ...storage, entry: KEPT_ENTRY };
  const array = await storage.array();
  const base = { storage, within, array, entry, settleMs };
  // What is away with its whole dataset is not gone.
  const { dataset } = storage.settings;
  if (await datasets.read(array, dataset, storage.deadline.bounds()) === undefined) {
    return { outcome: "waits", why: `the dataset "${dataset}" is not on the array` };
  }
  const { details } = entry;
  const withDetails = <D extends typeof details>(details: D): Recovery<D> => ({ ...base, details });
  switch (details.op) {
    case "alloc":
    case "import":
    case "clone":
    case "reading":
      return await recoverMade(withDetails(details));
    case "rename":
    case "create_base":
      return await recoverRename(withDetails(details));
    case "snapshot":
      return await recoverTaken(withDetails(details));
    case "delete_snapshot":
      return await recoverDeleted(withDetails(details));
    case "free":
      return await recoverFree(withDetails(details));
    case "resize":
      return await recoverResize(withDetails(details));
    case "rollback":
      return await recoverRollback(withDetails(details));
  }
}
