/**
 * Ends what processes of this node left open in the journal: at the start of the daemon, and whenever one
 * was killed since. Costs one look into a folder a pass; the array is asked only when there is something.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { type JournalEntry, readJournal, removeRests } from "../volumes/journal.ts";
import { type Recovered, recoverStorage } from "../volumes/recover/recover.ts";
import type { Seen } from "../volumes/recover/settle.ts";
import { forgetGoneStorages } from "../volumes/verified_disks.ts";
import { MOST_AGE_MS } from "../volumes/without_array.ts";
import { readDeaths, writeDeaths } from "./recovery_deaths.ts";
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
  /** One pass at once; resolves with what it came to, once each storage has been seen to. */
  pass(): Promise<readonly Recovered[]>;
  report(): Promise<RecoveryReport>;
  /** Begins no other entry; resolves when those under way have ended. */
  stop(): Promise<void>;
}

const PERIOD_MS = 30_000;

/** Lines that are remembered as said. */
const MOST_SAID = 1_000;

/** For one storage's entries in one pass; each ends or stays, and is gone on with in the next. */
const STORAGE_MS = 300_000;

/** Storages that are seen to at a time: one whose array is away takes its place for as long as {@link STORAGE_MS}. */
const AT_ONCE = 8;

/** Starts recovering; the first pass comes at once. */
export function startRecovery(options: RecoveryOptions): RecoveryTask {
  const task = new Task(options);
  task.start();
  return task;
}

class Task implements RecoveryTask {
  readonly #items = new Map<string, AgendaItem>();
  readonly #last = new Map<string, Recovered>();
  readonly #seen = new Map<string, Seen>();
  #deaths: Promise<void> | undefined;
  /** The ids that were kept last. */
  #kept = "";
  /** What was said of entries that nobody recovers, so that it is said once. */
  readonly #said = new Set<string>();
  readonly #end = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #reading: Promise<readonly Promise<readonly Recovered[]>[]> | undefined;
  /** Storages that are being seen to, by their ids. */
  readonly #running = new Map<string, Promise<readonly Recovered[]>>();

  constructor(readonly options: RecoveryOptions) {}

  start(): void {
    const { host, log, periodMs = PERIOD_MS } = this.options;
    this.#loop = (async () => {
      // A process that was killed while it wrote an entry has begun nothing.
      await removeRests(host).catch(() => {});
      await this.#forgetGoneStorages().catch(() => {});
      while (!this.#end.signal.aborted) {
        // Not awaited to its end: a storage whose array is away must not delay the others' next look.
        await this.#begin().catch((error) => this.#sayOnce(log, asTnblockError(error).message));
        await host.wait(periodMs, this.#end.signal).catch(() => {});
      }
    })();
  }

  async #forgetGoneStorages(): Promise<void> {
    const { host, storages } = this.options;
    const sections = await storages.sections();
    await forgetGoneStorages(host, new Set(sections.map(({ id }) => id)), MOST_AGE_MS);
  }

  async stop(): Promise<void> {
    this.#end.abort();
    await this.#loop;
    await this.#reading?.catch(() => {});
    await Promise.all(this.#running.values());
  }

  async pass(): Promise<readonly Recovered[]> {
    return (await Promise.all(await this.#begin())).flat();
  }

  /** Begins with all storages that have something due; one that is being seen to is joined. */
  async #begin(): Promise<readonly Promise<readonly Recovered[]>[]> {
    return await (this.#reading ??= this.#look().finally(() => this.#reading = undefined));
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

  async #look(): Promise<readonly Promise<readonly Recovered[]>[]> {
    const { host, log, storages } = this.options;
    const { entries, unread } = await readJournal(host);
    for (const path of unread) {
      this.#sayOnce(log, `the journal's entry ${path} cannot be read, and is kept as it is`);
    }
    this.#forgetAllBut(entries);
    if (!entries.some((entry) => this.#isDue(entry))) return [];
    await (this.#deaths ??= readDeaths(host).then((deaths) => {
      for (const { id } of entries) {
        const seen = deaths.get(id);
        if (seen !== undefined) this.#seen.set(id, seen);
      }
    }));
    const sections = await storages.sections();
    for (const { storage, details: { op }, zvol } of entries) {
      if (sections.some(({ id }) => id === storage)) continue;
      this.#sayOnce(
        log,
        `${op} of "${zvol}", which was stopped, is left as it is: this node has no storage "${storage}"`,
      );
    }
    return sections.flatMap((section) => {
      const running = this.#running.get(section.id);
      if (running !== undefined) return [running];
      const isOwn = (entry: JournalEntry) => entry.storage === section.id && this.#isDue(entry);
      if (!entries.some(isOwn) || this.#running.size >= AT_ONCE) return [];
      const work = this.#recover(section, isOwn)
        .finally(() => this.#running.delete(section.id));
      this.#running.set(section.id, work);
      return [work];
    });
  }

  /** One storage's entries, in their order. Never rejects. */
  async #recover(
    section: Parameters<Storages["open"]>[0],
    isDue: (entry: JournalEntry) => boolean,
  ): Promise<readonly Recovered[]> {
    const { log, storages, settleMs } = this.options;
    const { signal } = this.#end;
    const found: Recovered[] = [];
    try {
      const storage = await storages.open(section, STORAGE_MS);
      const leave = () =>
        storage.deadline.expire(
          new TnblockError("timeout", "Cannot go on: the daemon was told to end"),
        );
      signal.addEventListener("abort", leave, { once: true });
      try {
        if (signal.aborted) leave();
        found.push(
          ...await recoverStorage(storage, {
            isDue,
            seen: this.#seen,
            ...(settleMs === undefined ? {} : { settleMs }),
          }),
        );
      } finally {
        signal.removeEventListener("abort", leave);
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
    for (const one of found) this.#note(one);
    await this.#keepDeaths();
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

  async #keepDeaths(): Promise<void> {
    const ids = [...this.#seen.keys()].sort().join();
    if (ids === this.#kept) return;
    this.#kept = ids;
    await writeDeaths(this.options.host, this.#seen);
  }

  /** What is kept here is bounded by what the journal holds. */
  #forgetAllBut(entries: readonly JournalEntry[]): void {
    const ids = new Set(entries.map(({ id }) => id));
    for (const id of this.#items.keys()) if (!ids.has(id)) this.#items.delete(id);
    for (const id of this.#last.keys()) if (!ids.has(id)) this.#last.delete(id);
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
  }

  #sayOnce(log: Log, text: string): void {
    if (this.#said.has(text)) return;
    if (this.#said.size >= MOST_SAID) this.#said.clear();
    this.#said.add(text);
    log.warning(text);
  }
}
