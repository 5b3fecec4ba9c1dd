/**
 * Ends what processes of this node left open in the journal: at the start of the daemon, and whenever one
 * was killed since. Costs one look into a folder a pass; the array is asked only when there is something.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { type JournalEntry, readJournal, removeRests } from "../volumes/journal.ts";
import { type Recovered, recoverStorage } from "../volumes/recover/recover.ts";
import { afterLook, type AgendaItem } from "./recovery_agenda.ts";
import type { Storages } from "./storages.ts";

/** What recovering works with. */
export interface RecoveryOptions {
  readonly host: Host;
  readonly log: Log;
  readonly storages: Pick<Storages, "sections" | "open">;
  /** Milliseconds between two passes. */
  readonly periodMs?: number;
  /** See `RecoverOptions`. */
  readonly settleMs?: number;
}

/** What is open, for `tnblock status`. */
export interface RecoveryReport {
  /** Operations that have not ended, those under way included. */
  readonly open: readonly {
    readonly id: string;
    readonly op: string;
    readonly storage: string;
    readonly zvol: string;
    /** Milliseconds since the epoch. */
    readonly startedMs: number;
    /** What became of it when it was last looked at; undefined before. */
    readonly outcome?: string;
    readonly why?: string;
    readonly failures: number;
    readonly isGivenUp: boolean;
  }[];
  /** Files that cannot be read. */
  readonly unread: readonly string[];
}

/** Recovering, until it is stopped. */
export interface RecoveryTask {
  /** One pass at once; resolves with what it came to. */
  pass(): Promise<readonly Recovered[]>;
  report(): Promise<RecoveryReport>;
  /** Begins no other entry; resolves when the one under way has ended. */
  stop(): Promise<void>;
}

const PERIOD_MS = 30_000;

/** Lines that are remembered as said. */
const MOST_SAID = 1_000;

/** For one storage's entries in one pass; each ends or stays, and is gone on with in the next. */
const STORAGE_MS = 300_000;

/** Starts recovering; the first pass comes at once. */
export function startRecovery(options: RecoveryOptions): RecoveryTask {
  const task = new Task(options);
  task.start();
  return task;
}

class Task implements RecoveryTask {
  readonly #items = new Map<string, AgendaItem>();
  readonly #last = new Map<string, Recovered>();
  /** What was said of entries that nobody recovers, so that it is said once. */
  readonly #said = new Set<string>();
  readonly #end = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #passing: Promise<readonly Recovered[]> | undefined;

  constructor(readonly options: RecoveryOptions) {}

  start(): void {
    const { host, log, periodMs = PERIOD_MS } = this.options;
    this.#loop = (async () => {
      // A process that was killed while it wrote an entry has begun nothing.
      await removeRests(host).catch(() => {});
      while (!this.#end.signal.aborted) {
        await this.pass().catch((error) => this.#sayOnce(log, asTnblockError(error).message));
        await host.wait(periodMs, this.#end.signal).catch(() => {});
      }
    })();
  }

  async stop(): Promise<void> {
    this.#end.abort();
    await this.#loop;
    await this.#passing?.catch(() => {});
  }

  async pass(): Promise<readonly Recovered[]> {
    return await (this.#passing ??= this.#pass().finally(() => this.#passing = undefined));
  }

  async report(): Promise<RecoveryReport> {
    const { entries, unread } = await readJournal(this.options.host);
    return {
      open: entries.map((entry) => {
        const last = this.#last.get(entry.id);
        const item = this.#items.get(entry.id);
        return {
          id: entry.id,
          op: entry.details.op,
          storage: entry.storage,
          zvol: entry.zvol,
          startedMs: entry.startedMs,
          ...(last === undefined ? {} : { outcome: last.outcome, why: last.why }),
          failures: item?.failures ?? 0,
          isGivenUp: item?.nextMs === Infinity,
        };
      }),
      unread,
    };
  }

  async #pass(): Promise<readonly Recovered[]> {
    const { host, log, storages } = this.options;
    const { entries, unread } = await readJournal(host);
    for (const path of unread) {
      this.#sayOnce(log, `the journal's entry ${path} cannot be read, and is kept as it is`);
    }
    this.#forgetAllBut(entries);
    if (!entries.some((entry) => this.#isDue(entry))) return [];
    const sections = await storages.sections();
    const found: Recovered[] = [];
    for (const section of sections) {
      const isOwn = (entry: JournalEntry) => entry.storage === section.id && this.#isDue(entry);
      if (!entries.some(isOwn)) continue;
      try {
        const storage = await storages.open(section, STORAGE_MS);
        const leave = () =>
          storage.deadline.expire(
            new TnblockError("timeout", "Cannot go on: the daemon was told to end"),
          );
        this.#end.signal.addEventListener("abort", leave, { once: true });
        try {
          const { settleMs } = this.options;
          found.push(
            ...await recoverStorage(storage, {
              isDue: isOwn,
              ...(settleMs === undefined ? {} : { settleMs }),
            }),
          );
        } finally {
          this.#end.signal.removeEventListener("abort", leave);
          await storage.close();
        }
      } catch (error) {
        this.#sayOnce(
          log,
          `what was stopped on storage "${section.id}" cannot be seen to: ${
            asTnblockError(error).message
          }`,
        );
      }
    }
    for (const entry of entries) {
      if (sections.some(({ id }) => id === entry.storage)) continue;
      const { details: { op }, zvol } = entry;
      this.#sayOnce(
        log,
        `${op} of "${zvol}", which was stopped, is left as it is: this node has no storage "${entry.storage}"`,
      );
    }
    for (const one of found) this.#note(one);
    return found;
  }

  #isDue({ id }: JournalEntry): boolean {
    if (this.#end.signal.aborted) return false;
    return (this.#items.get(id)?.nextMs ?? 0) <= this.options.host.monotonicMs();
  }

  #note(found: Recovered): void {
    const { host, log } = this.options;
    const next = afterLook(this.#items.get(found.id), found, host.monotonicMs());
    if (next === undefined) {
      this.#items.delete(found.id);
      this.#last.delete(found.id);
      return;
    }
    this.#items.set(found.id, next.item);
    this.#last.set(found.id, found);
    if (next.say !== undefined) log[next.say.level](next.say.text);
  }

  /** What is kept here is bounded by what the journal holds. */
  #forgetAllBut(entries: readonly JournalEntry[]): void {
    const ids = new Set(entries.map(({ id }) => id));
    for (const id of this.#items.keys()) if (!ids.has(id)) this.#items.delete(id);
    for (const id of this.#last.keys()) if (!ids.has(id)) this.#last.delete(id);
  }

  #sayOnce(log: Log, text: string): void {
    if (this.#said.has(text)) return;
    if (this.#said.size >= MOST_SAID) this.#said.clear();
    this.#said.add(text);
    log.warning(text);
  }
}
