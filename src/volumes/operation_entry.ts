/**
 * The entry of one operation in the journal: opened before its first write on the array, closed after its last or
 * once its caller has heard of it, left for recovery when something of it is left.
 */
import { asTnblockError, type ErrorCode, TnblockError, withContext } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import { isUnknownOutcome } from "../truenas/errors.ts";
import { arrayPlace } from "./array_place.ts";
import {
  type Details,
  entryIds,
  type JournalEntry,
  lockEntry,
  markTold,
  MOST_ENTRIES,
  type Op,
  removeEntry,
  unmarkTold,
  writeEntry,
} from "./journal.ts";
import { leavesSomething, type Storage } from "./storage.ts";

/** The entry of an operation under way. */
export interface OpenEntry {
  /** Puts on disk what is about to be done; to be called before the first write, and again when it changes. */
  begin(zvol: string, details: Details): Promise<void>;
}

/**
 * The entry of an operation that is done and worth nothing unless its caller hears of it, open and locked until that
 * is known. {@link tell} comes first, then one of the others.
 */
export interface HeldEntry {
  /**
   * To be called right before the answer leaves: from then on the caller may have it, whatever becomes of this
   * process.
   *
   * @throws when that cannot be kept: nobody may be told.
   */
  tell(): Promise<void>;
  /** The caller has the answer. Never rejects. */
  heard(): Promise<void>;
  /**
   * Nobody has it, or ever will.
   *
   * @param takeBack recovery does it when this fails.
   * @throws what `takeBack` throws.
   */
  unheard(takeBack: () => Promise<void>): Promise<void>;
  /** Leaves it to recovery: nothing was told. */
  leave(): void;
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

/** An entry that is there once {@link begin} was called. */
export class OperationEntry implements OpenEntry, HeldEntry {
  #kept: JournalEntry | undefined;
  #release: (() => void) | undefined;
  readonly #id: string;

  constructor(private readonly storage: Storage) {
    this.#id = storage.host.randomUuid();
  }

  async begin(zvol: string, details: Details): Promise<void> {
    const { host, log } = this.storage;
    const before = this.#kept?.details.op;
    // What takes an operation back is part of it: nothing of it is to stay, whatever that frees.
    if (before !== undefined && isUndone(before) && !isUndone(details.op)) return;
    try {
      if (this.#kept === undefined) await this.#open();
      const entry = entryOf(this.storage, {
        id: this.#id,
        zvol,
        startedMs: this.#kept?.startedMs ?? host.now(),
        details,
      });
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
    await refuseFull(host);
    this.#release ??= await attempt("Cannot lock it", () => lockEntry(host, this.#id));
  }

  /** Whether it is kept, of something that is taken back when the caller does not hear of it. */
  isForCaller(): boolean {
    if (this.#kept === undefined) return false;
    const { details } = this.#kept;
    // Reading a snapshot is asked for again by who does not hear of it; a name that was given back stays.
    if (details.op === "reading" || "back" in details && details.back) return false;
    return isUndone(details.op);
  }

  async tell(): Promise<void> {
    const { host } = this.storage;
    try {
      await markTold(host, this.#id);
    } catch {
      // Then it is as if it had been heard: what was told is never undone.
      await attempt(
        `Cannot close the journal's entry of "${this.#kept?.zvol}"`,
        () => removeEntry(host, this.#id, true),
      );
    }
  }

  async heard(): Promise<void> {
    try {
      await removeEntry(this.storage.host, this.#id, true);
    } catch (error) {
      this.#warn(error);
    } finally {
      this.leave();
    }
  }

  async unheard(takeBack: () => Promise<void>): Promise<void> {
    const { host } = this.storage;
    try {
      // Killed from here on, it is undone.
      await unmarkTold(host, this.#id).catch((error) => this.#warn(error));
      await takeBack();
      if (this.storage.unknownWrites() === 0) await removeEntry(host, this.#id, true);
      else this.#sayLeft();
    } finally {
      this.leave();
    }
  }

  leave(): void {
    this.#release?.();
    this.#release = undefined;
  }

  #warn(error: unknown): void {
    this.storage.log.warning(error instanceof Error ? error.message : String(error));
  }

  #sayLeft(): void {
    const { log } = this.storage;
    log.info(`what is left of ${this.#kept?.details.op} of "${this.#kept?.zvol}" is seen to later`);
  }

  /** Closes the entry, or leaves it for recovery; the lock is given back either way. */
  async end(failure: unknown): Promise<void> {
    const { host } = this.storage;
    const kept = this.#kept;
    try {
      if (kept === undefined) return;
      // What was taken back may come once more: the array may be at a write that nobody waits for.
      const isDoubtful = this.storage.unknownWrites() > 0 && isUndone(kept.details.op);
      if (failure !== undefined && (isDoubtful || isLeft(kept.details.op, failure))) {
        this.#sayLeft();
        return;
      }
      await attempt(
        `Cannot close the journal's entry of "${kept.zvol}"`,
        () => removeEntry(host, kept.id, isUndone(kept.details.op)),
      );
    } catch (error) {
      // What was done may be undone later: nobody is told that it is there.
      if (failure === undefined && kept !== undefined && isUndone(kept.details.op)) throw error;
      this.#warn(error);
    } finally {
      this.leave();
    }
  }
}

/** Failures of the way to the array: they say nothing about what was begun there. */
const AWAY: readonly ErrorCode[] = ["unreachable", "timeout", "auth", "tls", "rate-limited"];

/** Whether a failed operation has left something to recover. */
function isLeft(op: Op, failure: unknown): boolean {
  if (isUndone(op)) return leavesSomething(failure);
  // Its rows go one by one, and its repetition by a user may never come.
  if (op === "free" || op === "rollback") return true;
  return isUnknownOutcome(failure) || AWAY.includes(asTnblockError(failure).code);
}

/** A new entry of a storage. */
export function entryOf(
  storage: Storage,
  own: Pick<JournalEntry, "id" | "zvol" | "startedMs" | "details">,
): JournalEntry {
  const { settings, node, transport } = storage;
  return {
    v: 1,
    storage: settings.id,
    node,
    dataset: settings.dataset,
    transport: transport.kind,
    place: arrayPlace(settings),
    ...own,
  };
}

/**
 * Refuses to open another entry when too many were never ended.
 *
 * @throws TnblockError `busy`.
 */
export async function refuseFull(host: Host): Promise<void> {
  const ids = await entryIds(host);
  if (ids.length < MOST_ENTRIES) return;
  throw new TnblockError("busy", `it holds ${ids.length} operations that were never ended`, {
    hint: "Look at them with tnblock status, and whether the daemon runs",
  });
}
