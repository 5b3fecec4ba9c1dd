/**
 * Ends the operations of this node whose process has ended before them: by kill -9, loss of power, an upgrade
 * or fencing. An entry is taken only under its lock, which a running operation holds.
 */
import { asTnblockError, type ErrorCode, type TnblockError } from "../../common/error.ts";
import { LONGEST_WRITE_MS } from "../../truenas/caller.ts";
import * as datasets from "../../truenas/datasets.ts";
import {
  JOURNAL_FOLDER,
  type JournalEntry,
  lockEntry,
  type Op,
  readEntry,
  readJournal,
  removeEntry,
  writeEntry,
} from "../journal.ts";
import { KEPT_ENTRY, whyForeign } from "../journaled.ts";
import { isUndone } from "../operation_entry.ts";
import type { Storage } from "../storage.ts";
import { fenceRollback, recoverFree, recoverResize, recoverRollback } from "./changed.ts";
import { recoverMade } from "./made.ts";
import { recoverRename } from "./renamed.ts";
import { type Ending, NOT_SETTLED, type Recovery } from "./recovery.ts";
import { decideTime, type Pace, type Seen } from "./settle.ts";
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
  /** What the administrator can do about it, when that is more than waiting. */
  readonly remedy?: string;
  /** For one that failed. */
  readonly error?: TnblockError;
}

/** How entries are recovered. */
export interface RecoverOptions {
  /**
   * Milliseconds after which a call of a dead process is over on the array; by default as long as a write may
   * take. Counted from when this process saw it dead: no clock that is set tells how long that is.
   */
  readonly settleMs?: number;
  /** What was seen of each entry, by its id, and is kept here from pass to pass; nothing unless given. */
  readonly seen?: Map<string, Seen>;
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
  const { settleMs = LONGEST_WRITE_MS, seen = new Map() } = options;
  const recovered: Recovered[] = [];
  for (const entry of own) {
    if (options.isDue?.(entry) === false) continue;
    if (storage.deadline.leftMs() === 0) break;
    const found = await recoverOne(storage, entry, settleMs, seen);
    if (found !== undefined) recovered.push(found);
  }
  return recovered;
}

async function recoverOne(
  storage: Storage,
  listed: JournalEntry,
  settleMs: number,
  memory: Map<string, Seen>,
): Promise<Recovered | undefined> {
  const { host, log } = storage;
  const { id, zvol, details: { op } } = listed;
  const told = ({ outcome, why }: Pick<Recovered, "outcome" | "why">) => ({
    ...{ id, op, zvol, outcome, why },
  });
  let release: (() => void) | undefined;
  try {
    release = await lockEntry(host, id);
    if (release === undefined) {
      memory.delete(id);
      return told({ outcome: "running", why: "its process has not ended" });
    }
    // It may have ended between the two.
    let entry = await readEntry(host, id);
    if (entry === undefined) return undefined;
    const foreign = whyForeign(storage, entry);
    if (foreign !== undefined) {
      const remedy = remedyForNode(storage, entry);
      return {
        ...told({ outcome: "foreign", why: foreign }),
        ...(remedy === undefined ? {} : { remedy }),
      };
    }
    const isPromise = isPromised(entry);
    if (settleMs > 0 && entry.deadMs === undefined && !isPromise) {
      entry = { ...entry, deadMs: host.now() };
      await writeEntry(host, entry);
    }
    const nowMs = host.monotonicMs();
    const seen = memory.get(id) ?? { deadSinceMs: nowMs };
    memory.set(id, seen);
    const waitMs = isPromise && settleMs > 0 ? Math.max(settleMs, WORKER_MS) : settleMs;
    const { do: first, pace } = decideTime(op, seen, nowMs, waitMs);
    if (first === "wait") {
      if (op === "rollback" && seen.isFenced !== true) {
        await fenceRollback(storage, entry);
        memory.set(id, { ...seen, isFenced: true });
      }
      return told(isPromise ? WORKER_MAY_COME : NOT_SETTLED);
    }
    const now = { entry, settleMs, seen, pace };
    const ending = await refusalIsAnEnd(entry, () => recover(storage, now));
    const hasActed = ending.outcome === "undone" || ending.outcome === "finished";
    if (hasActed || (ending.outcome === "closed" && pace.isSettled)) {
      log.info(`${op} of "${zvol}", which was stopped, is ${ending.outcome}: ${ending.why}`);
    }
    if (ending.outcome === "waits" || !pace.isSettled) {
      memory.set(id, { ...seen, ...ending.keep, ...(hasActed ? { hasActed } : {}) });
      return told(
        ending.outcome === "waits"
          ? ending
          : { outcome: "waits", why: `${ending.why}; it is looked at once more` },
      );
    }
    await removeEntry(host, id, isUndone(op));
    memory.delete(id);
    return told(ending);
  } catch (error) {
    const failure = asTnblockError(error);
    // Nothing was touched; half a free is told of, because nobody ends that use by himself.
    if (failure.code === "in-use" && (op !== "free" || isPromised(listed))) {
      return told({ outcome: "waits", why: failure.message });
    }
    return { ...told({ outcome: "failed", why: failure.message }), error: failure };
  } finally {
    release?.();
  }
}

/**
 * What an administrator can do about an entry of another node's name: the journal lies on this node's own disk, so
 * that it is this node's under its former name, unless the disk was copied.
 */
function remedyForNode(storage: Storage, { id, node }: JournalEntry): string | undefined {
  if (node === storage.node) return undefined;
  const file = `${JOURNAL_FOLDER}/${id}.json`;
  return `if this node was called ${node} before, write "node":"${storage.node}" into ${file}, and it is seen to; ` +
    `if its disk was copied from ${node}, remove that file`;
}

/** The worker that PVE runs after `free_image` comes at once, unless it was killed. */
const WORKER_MS = 600_000;

const WORKER_MAY_COME: Ending = { outcome: "waits", why: "the worker that is to free it may come" };

function isPromised({ details }: JournalEntry): boolean {
  return details.op === "free" && details.promised === true;
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
  entry: JournalEntry,
  work: () => Promise<Ending>,
): Promise<Ending> {
  try {
    return await work();
  } catch (error) {
    const failure = asTnblockError(error);
    // Half a free is no state to stay in.
    const isHalf = entry.details.op === "free" && !isPromised(entry);
    if (isHalf || !REFUSALS.includes(failure.code)) throw error;
    return { outcome: "closed", why: failure.message };
  }
}

/** One entry, and when it is looked at. */
interface Now {
  readonly entry: JournalEntry;
  readonly settleMs: number;
  readonly seen: Seen;
  readonly pace: Pace;
}

async function recover(storage: Storage, now: Now): Promise<Ending> {
  const within: Storage = { ...storage, entry: KEPT_ENTRY };
  const array = await storage.array();
  const base = { storage, within, array, ...now };
  // What is away with its whole dataset is not gone.
  const { dataset } = storage.settings;
  if (await datasets.read(array, dataset, storage.deadline.bounds()) === undefined) {
    return { outcome: "waits", why: `the dataset "${dataset}" is not on the array` };
  }
  const { details } = now.entry;
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
