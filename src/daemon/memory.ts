/**
 * What the daemon remembers of one storage: read once, kept true by events, by this node's own writes, and
 * by a read of everything now and then. What is read when, which of two reads counts and how long an answer
 * is believed is decided in `memory_agenda.ts`, `memory_picture.ts` and `memory_trust.ts`.
 */
import { Deadline } from "../common/deadline.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { ArrayCall, MemorizedStorage } from "../pve/hook.ts";
import type { Caller } from "../truenas/caller.ts";
import type { Pool } from "../truenas/pools.ts";
import type { ArrayEvent, Session } from "../truenas/session.ts";
import { unexported } from "../volumes/list.ts";
import { readJournal } from "../volumes/journal.ts";
import type { StorageMemory, VolumeListing } from "../volumes/memory.ts";
import type { StorageStatus } from "../volumes/status.ts";
import { decideNext, type MemoryTiming, periodOf, STORM_MS } from "./memory_agenda.ts";
import { MemoryContent } from "./memory_content.ts";
import { collectionsOf, type SharedEvents } from "./memory_events.ts";
import { type Kept, readKept, type Space } from "./memory_file.ts";
import { Keeping } from "./memory_keeping.ts";
import { countedCaller, faultOf, readPart, readWhole } from "./memory_read.ts";
import { classOf, decideTrust, type Trust, TRUST_MS } from "./memory_trust.ts";
import { Turns } from "./memory_turns.ts";
import { Voice } from "./memory_voice.ts";

/** What a memory needs of the link to its array. */
export interface MemoryLink {
  session(deadline: Deadline): Promise<Session>;
  /** Told of each new session, and at once when one is up. */
  onSession(listener: (session: Session) => void): () => void;
  onDown(listener: (error: TnblockError) => void): () => void;
  /** Somebody needs the link kept up. */
  keepUp(): () => void;
}

/** What a memory is made of. */
export interface MemoryParts {
  readonly storage: MemorizedStorage;
  /** Asked once, when it begins. */
  readonly link: () => MemoryLink;
  readonly events: SharedEvents;
  readonly timing: MemoryTiming;
  /** Told each array call. */
  readonly onArrayCall?: ((call: ArrayCall) => void) | undefined;
}

/** Longest time for a read: one of 10,000 volumes over a slow line. */
const READ_MS = 30_000;
/** How long a first question waits for the first read, when nothing is known at all. */
const FIRST_MS = 1_000;
/** How long a listing waits for a read while there is one that would do. */
const RATHER_LIVE_MS = 3_000;
/** Between two looks whether a portal answers, while the API does not. */
const PROBE_MS = 10_000;

/** What a memory says of itself. */
export interface MemoryReport {
  readonly storage: string;
  readonly trust: Trust["kind"];
  /** Milliseconds; undefined when it is not good. */
  readonly ageMs: number | undefined;
  /** Exported zvols below the dataset. */
  readonly volumes: number;
  /** Whether the array tells of changes. */
  readonly followed: boolean;
  /** How long the last read of everything took. */
  readonly lastReadMs: number | undefined;
  /** Reads begun. */
  readonly reads: number;
  /** What keeps the array from answering, or the storage from being used. */
  readonly failure: TnblockError | undefined;
  readonly space: Space | undefined;
  /** As it was at the last full read; undefined when the key may not read pools. */
  readonly pool: Pool | undefined;
}

/** The memory of one storage. */
export class Memory implements StorageMemory {
  readonly #parts: MemoryParts;
  readonly #voice: Voice;
  readonly #content: MemoryContent;
  readonly #keeping: Keeping;
  readonly #turns = new Turns();
  readonly #leave: (() => void)[] = [];
  #beginning: Promise<void> | undefined;
  #running: Promise<void> | undefined;
  #isStopped = false;
  /** Ends the pause before the next read. */
  #alarm: AbortController | undefined;
  /** Of the read under way. */
  #reading: Deadline | undefined;

  #urgent = false;
  #jitter = 0.5;
  #lastMs: number | undefined;
  #all: { readonly endMs: number; readonly tookMs: number } | undefined;
  #failures = 0;
  #storm = 0;
  #lastToldReadMs = -Infinity;

  /** The session that was read by last, and the one whose events are heard. */
  #session: Session | undefined;
  #following: { readonly session: Session; readonly isWhole: boolean } | undefined;

  #startedMs = 0;
  #isKept = false;
  #failing: { readonly sinceMs: number; readonly error: TnblockError } | undefined;
  #fault: TnblockError | undefined;
  #space: Space | undefined;
  #pool: Pool | undefined;
  #probe: { readonly atMs: number; readonly answers: boolean | undefined } | undefined;

  constructor(parts: MemoryParts) {
    const { storage } = parts;
    this.#parts = parts;
    this.#voice = new Voice(storage.log, storage.settings.id);
    this.#content = new MemoryContent(storage.settings.dataset);
    this.#keeping = new Keeping(storage, (error) => this.#voice.sayUnkept(error));
  }

  /** Begins to read and to follow; resolves when what was kept from before has been looked for. */
  begin(): Promise<void> {
    this.#beginning ??= this.#begin();
    return this.#beginning;
  }

  /** Ends it. @param isKept whether what is remembered is to be written down. */
  async stop(isKept: boolean): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#alarm?.abort();
    this.#reading?.expire(new TnblockError("timeout", "Cannot go on: the daemon ends"));
    for (const leave of this.#leave) leave();
    if (this.#following !== undefined) {
      this.#parts.events.leave(this.#following.session, this.#onEvent);
    }
    await this.#running;
    await this.#keeping.end(isKept && this.#all !== undefined ? this.#toKeep() : undefined);
  }

  async listing(deadline: Deadline): Promise<VolumeListing> {
    await this.begin();
    // What this node wrote up to now is in the answer; what it writes meanwhile may be.
    const asked = this.#content.moment;
    for (;;) {
      const trust = this.#trust();
      const isOwing = this.#content.owes(asked);
      const isGood = trust.kind === "good";
      if (isGood && !isOwing && !this.#content.isToldBy(asked)) return this.#content.listing();
      // What another node has just changed, or what is from before the start, is better than nothing.
      const isAnswer = trust.kind !== "none" && !isOwing;
      const error = await this.#nextRead(deadline, isAnswer ? RATHER_LIVE_MS : undefined);
      if (error === undefined && this.#trust().kind === "good") continue;
      const isExcused = error === undefined || isGood || classOf(error) === "connectivity";
      if (isAnswer && isExcused && this.#fault === undefined) return this.#content.listing();
      const why = error ?? this.#why();
      if (why !== undefined) throw why;
    }
  }

  async begun(): Promise<void> {
    await this.begin();
    const isNew = this.#all === undefined && !this.#isKept && this.#why() === undefined;
    const leftMs = this.#startedMs + FIRST_MS - this.#now();
    if (!isNew || leftMs <= 0) return;
    await this.#nextRead(new Deadline(this.#parts.storage.host, leftMs), leftMs);
  }

  status(): StorageStatus {
    this.begin().catch(() => {});
    const trust = this.#trust();
    this.#saySo(trust);
    if (this.#space === undefined) return { total: 0, available: 0, used: 0, active: 0 };
    const { available, used } = this.#space;
    return { total: available + used, available, used, active: trust.kind === "none" ? 0 : 1 };
  }

  has(volume: VolumeRef): boolean | undefined {
    this.begin().catch(() => {});
    if (this.#trust().kind !== "good") return undefined;
    return this.#content.has(this.#pathOf(volume.zvol), volume.tag);
  }

  isReachable(): boolean {
    this.begin().catch(() => {});
    const failing = this.#failing;
    if (failing === undefined || classOf(failing.error) !== "connectivity") return true;
    const nowMs = this.#now();
    if (nowMs - failing.sinceMs <= TRUST_MS) return true;
    if (this.#probe === undefined || nowMs - this.#probe.atMs >= PROBE_MS) this.#lookAtPortals();
    return this.#probe?.answers !== false;
  }

  changed(zvols: readonly string[]): void {
    // Nothing is remembered yet that could be wrong.
    if (this.#beginning === undefined || zvols.length === 0) return;
    this.#content.wrote(zvols.map((zvol) => this.#pathOf(zvol)), this.#now());
    this.#alarm?.abort();
  }

  /** What is to be known of it from outside; nothing secret. */
  report(): MemoryReport {
    const trust = this.#trust();
    return {
      storage: this.#parts.storage.settings.id,
      trust: trust.kind,
      ageMs: trust.kind === "good" ? Math.round(trust.ageMs) : undefined,
      volumes: this.#content.listing().exports.length,
      followed: this.#following?.isWhole === true && this.#following.session.isOpen,
      lastReadMs: this.#all?.tookMs,
      reads: this.#turns.begun,
      failure: this.#why(),
      space: this.#space,
      pool: this.#pool,
    };
  }

  async #begin(): Promise<void> {
    const { storage } = this.#parts;
    this.#startedMs = this.#now();
    const kept = await readKept(storage.host.files, storage).catch(() => undefined);
    if (this.#isStopped) return;
    if (kept !== undefined) {
      this.#isKept = true;
      this.#space = kept.space;
      this.#content.takeKept(kept.found);
    }
    const link = this.#parts.link();
    this.#leave.push(
      link.keepUp(),
      link.onSession((session) => {
        // It may be the one that was read by already.
        if (session !== this.#session) this.#content.wantAll(this.#now());
        // It answers again: no reason to go on waiting for the next try.
        this.#failures = 0;
        this.#alarm?.abort();
      }),
      link.onDown((error) => this.#fails(error)),
    );
    this.#running = this.#run(link);
  }

  async #run(link: MemoryLink): Promise<void> {
    while (!this.#isStopped) {
      const nowMs = this.#now();
      const step = decideNext({
        ...this.#content.agenda(),
        timing: this.#parts.timing,
        jitter: this.#jitter,
        lastMs: this.#lastMs,
        all: this.#all,
        failures: this.#failures,
        storm: this.#storm,
        urgent: this.#urgent,
      }, nowMs);
      if (step.atMs > nowMs) await this.#pause(step.atMs - nowMs);
      else await this.#read(step.what, link);
    }
  }

  async #pause(ms: number): Promise<void> {
    this.#alarm = new AbortController();
    await this.#parts.storage.host.wait(ms, this.#alarm.signal).catch(() => {});
    this.#alarm = undefined;
  }

  async #read(what: "all" | "some", link: MemoryLink): Promise<void> {
    const { storage, onArrayCall } = this.#parts;
    const { host } = storage;
    const number = this.#turns.begin();
    this.#urgent = false;
    const deadline = new Deadline(host, READ_MS);
    this.#reading = deadline;
    const over = new AbortController();
    host.wait(READ_MS, over.signal).then(() => deadline.expire(tooLong(storage)), () => {});
    let error: TnblockError | undefined;
    try {
      const session = await link.session(deadline);
      this.#session = session;
      await this.#follow(session, deadline);
      const array = countedCaller(session, host, onArrayCall);
      if (what === "all") await this.#readAll(array, deadline);
      else await this.#readSome(array, deadline);
      this.#failures = 0;
      this.#failing = undefined;
    } catch (thrown) {
      error = asTnblockError(thrown);
      this.#failures++;
      // The array's own word, when it is the dataset that is not there; else it may be anything.
      if (error.code === "not-found") this.#fault = error;
      else this.#fails(error);
    } finally {
      over.abort();
      this.#reading = undefined;
    }
    this.#lastMs = this.#now();
    this.#jitter = host.randomInteger(1_000) / 1_000;
    if (!this.#isStopped) {
      this.#saySo(this.#trust());
      if (error === undefined && this.#all !== undefined) this.#keeping.keep(() => this.#toKeep());
    }
    this.#turns.end(number, error);
    this.#urgent = this.#turns.isAwaited;
  }

  async #readAll(array: Caller, deadline: Deadline): Promise<void> {
    const { storage } = this.#parts;
    const began = this.#content.begin();
    const beganMs = this.#now();
    const read = await readWhole(storage, array, deadline);
    const endMs = this.#now();
    const stayed = new Set(this.#content.takeAll(read.found, began, endMs));
    this.#all = { endMs, tookMs: endMs - beganMs };
    this.#isKept = false;
    this.#space = read.parent;
    this.#pool = read.pool;
    this.#fault = faultOf(storage, read);
    const lost = unexported(storage, this.#content.listing()).filter((path) => stayed.has(path));
    const underWay = lost.length === 0 ? new Set<string>() : await this.#underWay();
    this.#voice.sayUnexported(lost, underWay, endMs);
  }

  /** Full paths that an operation of this node is making or changing; none when the journal cannot be read. */
  async #underWay(): Promise<Set<string>> {
    const { host, settings: { dataset } } = this.#parts.storage;
    const { entries } = await readJournal(host).catch(() => ({ entries: [] }));
    return new Set(
      entries.filter((entry) => entry.dataset === dataset).map(({ zvol }) => this.#pathOf(zvol)),
    );
  }

  async #readSome(array: Caller, deadline: Deadline): Promise<void> {
    const began = this.#content.begin();
    const { isTold } = this.#content;
    const asked = this.#content.duePaths();
    const read = await readPart(this.#parts.storage, array, asked, deadline);
    this.#content.takeSome(asked, read.paths, read.found, began);
    this.#space = read.parent;
    if (!isTold) return;
    const nowMs = this.#now();
    this.#storm = nowMs - this.#lastToldReadMs < STORM_MS ? this.#storm + 1 : 0;
    this.#lastToldReadMs = nowMs;
  }

  /** Follows a session's events; called before it is read by, so that nothing changes in between unseen. */
  async #follow(session: Session, deadline: Deadline): Promise<void> {
    if (this.#following?.session === session) return;
    const { storage, events } = this.#parts;
    const refused: string[] = [];
    await Promise.all(
      collectionsOf(storage.transport.kind).map(async (collection) => {
        try {
          await within(events.follow(session, collection, this.#onEvent), deadline);
        } catch (error) {
          if (asTnblockError(error).code === "unreachable") throw error;
          refused.push(collection);
        }
      }),
    );
    // A pool's state is read with everything else; without the others changes are found late.
    const isWhole = refused.every((collection) => collection === "pool.query");
    this.#following = { session, isWhole };
    if (!isWhole) this.#voice.sayUnfollowed(refused);
  }

  readonly #onEvent = (event: ArrayEvent | undefined): void => {
    if (this.#isStopped) return;
    if (event === undefined) {
      this.#following = undefined;
      this.#content.wantAll(this.#now());
    } else this.#content.heard(event, this.#now());
    this.#alarm?.abort();
  };

  #fails(error: TnblockError): void {
    // A line that went dead is found out late: what the array did since its last word is not known.
    const sinceMs = this.#failing?.sinceMs ?? this.#session?.heardMs ?? this.#now();
    this.#failing = { sinceMs, error };
  }

  #trust(): Trust {
    const { timing } = this.#parts;
    return decideTrust({
      startedMs: this.#startedMs,
      readMs: this.#all?.endMs,
      heardMs: this.#session?.heardMs,
      followed: this.#following?.isWhole === true,
      periodMs: periodOf({ timing, all: this.#all }),
      failing: this.#failing,
      fault: this.#fault,
      kept: this.#isKept,
    }, this.#now());
  }

  #saySo(trust: Trust): void {
    if (trust.kind !== "none") this.#voice.say(undefined);
    else if (trust.why !== undefined) this.#voice.say(trust.why);
  }

  /** Why the memory is no answer, as far as that is known. */
  #why(): TnblockError | undefined {
    return this.#fault ?? this.#failing?.error;
  }

  /** Has a read made now; its error when it failed, or why it did not end in time. */
  async #nextRead(deadline: Deadline, mostMs = Infinity): Promise<TnblockError | undefined> {
    const { storage } = this.#parts;
    const over = new AbortController();
    const signal = AbortSignal.any([deadline.signal, over.signal]);
    const end = storage.host.wait(Math.min(deadline.leftMs(), mostMs), signal).catch(() => {})
      .then(() => this.#why() ?? tooLong(storage));
    const next = this.#turns.next(end);
    this.#urgent = true;
    this.#alarm?.abort();
    try {
      return await next;
    } finally {
      over.abort();
    }
  }

  #lookAtPortals(): void {
    this.#probe = { atMs: this.#now(), answers: this.#probe?.answers };
    this.#parts.storage.transport.anyPortalAnswers().then((answers) => {
      this.#probe = { atMs: this.#now(), answers };
    }, () => {});
  }

  #toKeep(): Kept {
    const { available = 0, used = 0 } = this.#space ?? {};
    return { found: this.#content.listing(), space: { available, used } };
  }

  #pathOf(zvol: string): string {
    return `${this.#parts.storage.settings.dataset}/${zvol}`;
  }

  #now(): number {
    return this.#parts.storage.host.monotonicMs();
  }
}

function tooLong({ settings }: MemorizedStorage): TnblockError {
  return new TnblockError(
    "timeout",
    `Cannot read the volumes of storage "${settings.id}": the array has not answered in time`,
  );
}

/** Waits for what goes on without us; rejects with the deadline's reason. */
async function within<T>(work: Promise<T>, { signal }: Deadline): Promise<T> {
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => {});
  const leave = () => over.reject(asTnblockError(signal.reason));
  if (signal.aborted) leave();
  signal.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
    work.catch(() => {});
  }
}
