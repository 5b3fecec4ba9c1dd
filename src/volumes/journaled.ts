/**
 * Running an operation with an entry in the journal: on disk before the first write on the array, closed
 * before the caller is told, left open when something of it is left (design decision 19).
 */
import { TnblockError, withContext } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { arrayPlace, isSameArray } from "./array_place.ts";
import { withVolumeLock } from "./attachment.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import {
  type Details,
  entryIds,
  type JournalEntry,
  lockEntry,
  MOST_ENTRIES,
  type Op,
  readJournal,
  removeEntry,
  writeEntry,
} from "./journal.ts";
import { leavesSomething, type Storage } from "./storage.ts";
import type * as zvols from "../truenas/zvols.ts";

/** The entry of an operation under way. */
export interface OpenEntry {
  /** Puts on disk what is about to be done; to be called before the first write, and again when it changes. */
  begin(zvol: string, details: Details): Promise<void>;
}

/** Operations of which nothing is to stay when nobody hears of them; all others are gone on with. */
const UNDONE: readonly Op[] = [
  "alloc",
  "import",
  "clone",
  "reading",
  "rename",
  "create_base",
  "snapshot",
];

/** Whether an operation is undone, or finished (design decision 18). */
export function isUndone(op: Op): boolean {
  return UNDONE.includes(op);
}

/**
 * Runs an operation. Within another one its entry is that one's: nothing is closed before that one ends.
 *
 * @param work gets the storage to work with, and the entry.
 * @throws TnblockError `host-fault` when the entry of something that is to be undone cannot be kept: nothing
 *   was touched. What is finished rather than undone goes on without one, with a warning.
 */
export async function journaled<T>(
  storage: Storage,
  work: (storage: Storage, entry: OpenEntry) => Promise<T>,
): Promise<T> {
  if (storage.entry !== undefined) return await work(storage, storage.entry);
  const entry = new NewEntry(storage);
  let result: T;
  try {
    result = await work({ ...storage, entry }, entry);
  } catch (error) {
    await entry.end(error);
    throw error;
  }
  await entry.end(undefined);
  return result;
}

/** The same under a volume's lock, see `withVolumeLock`. */
export async function journaledAlone<T>(
  storage: Storage,
  name: string,
  work: (storage: Storage, entry: OpenEntry) => Promise<T>,
): Promise<T> {
  return await journaled(
    storage,
    (storage, entry) => withVolumeLock(storage, name, () => work(storage, entry)),
  );
}

/** Within a recovery: the entry is there already, and its recovery closes it. */
export const KEPT_ENTRY: OpenEntry = { begin: () => Promise.resolve() };

class NewEntry implements OpenEntry {
  #kept: JournalEntry | undefined;
  #release: (() => void) | undefined;
  readonly #id: string;

  constructor(private readonly storage: Storage) {
    this.#id = storage.host.randomUuid();
  }

  async begin(zvol: string, details: Details): Promise<void> {
    const { host, settings, log } = this.storage;
    const before = this.#kept?.details.op;
    // What takes an operation back is part of it: nothing of it is to stay, whatever that frees.
    if (before !== undefined && isUndone(before) && !isUndone(details.op)) return;
    try {
      if (this.#kept === undefined) await this.#open();
      const entry: JournalEntry = {
        v: 1,
        id: this.#id,
        storage: settings.id,
        node: this.storage.node,
        dataset: settings.dataset,
        transport: this.storage.transport.kind,
        place: arrayPlace(settings),
        zvol,
        startedMs: this.#kept?.startedMs ?? host.now(),
        details,
      };
      await writeEntry(host, entry);
      this.#kept = entry;
    } catch (error) {
      const failure = withContext(error, `Cannot keep in the journal what is done to "${zvol}"`);
      if (isUndone(details.op)) throw failure;
      log.warning(`${failure.message}; going on without`);
    }
  }

  async #open(): Promise<void> {
    const { host } = this.storage;
    const ids = await entryIds(host);
    if (ids.length >= MOST_ENTRIES) {
      throw new TnblockError("busy", `it holds ${ids.length} operations that were never ended`, {
        hint: "Look at them with tnblock status, and whether the daemon runs",
      });
    }
    this.#release ??= await attempt("Cannot lock it", () => lockEntry(host, this.#id));
  }

  /** Closes the entry, or leaves it for recovery; the lock is given back either way. */
  async end(failure: unknown): Promise<void> {
    const { host, log } = this.storage;
    const kept = this.#kept;
    try {
      if (kept === undefined) return;
      // What was taken back may come once more: the array may be at a write that nobody waits for.
      const isDoubtful = this.storage.unknownWrites() > 0 && isUndone(kept.details.op);
      if (failure !== undefined && (isDoubtful || isLeft(kept.details.op, failure))) {
        log.info(`what is left of ${kept.details.op} of "${kept.zvol}" is seen to later`);
        return;
      }
      await attempt(
        `Cannot close the journal's entry of "${kept.zvol}"`,
        () => removeEntry(host, kept.id, isUndone(kept.details.op)),
      );
    } catch (error) {
      // What was done may be undone later: nobody is told that it is there.
      if (failure === undefined && kept !== undefined && isUndone(kept.details.op)) throw error;
      log.warning(error instanceof Error ? error.message : String(error));
    } finally {
      this.#release?.();
    }
  }
}

/** Whether a failed operation has left something to recover. */
function isLeft(op: Op, failure: unknown): boolean {
  if (isUndone(op)) return leavesSomething(failure);
  // Its rows go one by one, and its repetition by a user may never come.
  if (op === "free" || op === "rollback") return true;
  return isUnknownOutcome(failure) || arrayErrorIn(failure)?.code === "unreachable";
}

/**
 * Why an entry is none of this storage's as it is configured now; undefined when it is. What another array
 * holds is not known from a look at this one.
 */
export function whyForeign(storage: Storage, entry: JournalEntry): string | undefined {
  const { settings } = storage;
  if (entry.node !== storage.node) return `it is of node ${entry.node}`;
  if (entry.dataset !== settings.dataset) return `it is of dataset "${entry.dataset}"`;
  if (entry.transport !== storage.transport.kind) return `it is of ${entry.transport}`;
  // Of an earlier version.
  if (entry.place === undefined) return undefined;
  const { hosts, port, target } = entry.place;
  const now = arrayPlace(settings);
  if (!isSameArray(entry.place, now)) return `it is of the array ${hosts.join(", ")}, port ${port}`;
  return target === now.target ? undefined : `it is of "${target}"`;
}

/**
 * Closes what an earlier operation left open, which was killed: the caller hands out what it made, or has
 * seen to it otherwise. To be called under the volume's lock, with nothing left to fail.
 */
export async function supersede(
  storage: Storage,
  zvol: string,
  ops: readonly Op[],
): Promise<void> {
  const { host, settings, log } = storage;
  try {
    const { entries } = await readJournal(host);
    for (const entry of entries) {
      const isIt = entry.storage === settings.id && whyForeign(storage, entry) === undefined &&
        ops.includes(entry.details.op) &&
        (entry.zvol === zvol || "from" in entry.details && entry.details.from === zvol);
      if (!isIt) continue;
      const release = await lockEntry(host, entry.id);
      if (release === undefined) continue;
      try {
        await removeEntry(host, entry.id, true);
        log.info(`${entry.details.op} of "${zvol}", which was killed, is repeated with success`);
      } finally {
        release();
      }
    }
  } catch (error) {
    log.warning(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Refuses to call a volume gone that is not there because a rename of it was killed: it comes back under that
 * name.
 *
 * @param doing as in a message: `free`.
 * @throws TnblockError `busy`.
 */
export async function refuseStoppedRename(
  storage: Storage,
  zvol: string,
  doing: string,
): Promise<void> {
  const { entries } = await attempt(
    `Cannot ${doing} the volume "${zvol}"`,
    () => readJournal(storage.host),
  );
  const stopped = entries.find(({ storage: id, details }) =>
    id === storage.settings.id && "from" in details &&
    (details.op === "rename" || details.op === "create_base") && details.from === zvol
  );
  if (stopped === undefined) return;
  throw new TnblockError(
    "busy",
    `Cannot ${doing} the volume "${zvol}": it was being renamed to "${stopped.zvol}" when that was stopped`,
    { hint: "The tnblock daemon sets it right within minutes: try again then" },
  );
}

/** What tells this zvol from a later one of its name. */
export function madeOf(zvol: Pick<zvols.Zvol, "guid" | "createTxg" | "createdMs">) {
  return {
    guid: zvol.guid ?? null,
    createTxg: zvol.createTxg ?? null,
    createdMs: zvol.createdMs,
  };
}
