/**
 * The link to one array: one session for all, opened once for whoever waits, replaced when it is lost,
 * asked now and then whether the array still knows us, and closed when nobody needs it any more.
 */
import type { Deadline } from "../common/deadline.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Bounds } from "../host/host.ts";
import { ArrayError } from "../truenas/errors.ts";
import type { Session } from "../truenas/session.ts";
import { failureKind, pauseMs } from "./back_off.ts";
import type { LinkDriver, SessionInfo } from "./link_driver.ts";
import { isForgotten, LinkSession } from "./link_session.ts";
import {
  decideUpkeep,
  isReboot,
  LINK_TIMES,
  type LinkKind,
  type LinkState,
  type LinkTimes,
  waitForSession,
} from "./link_state.ts";
import { Listeners } from "./listeners.ts";
import { Next } from "./next.ts";
import { WriteQueue } from "./write_queue.ts";

/** A session in use. */
interface Held {
  readonly inner: Session;
  readonly session: LinkSession;
  readonly openedMs: number;
  answeredMs: number;
  askedMs: number;
  /** Health calls that were not answered since anything was. */
  unanswered: number;
  /** Told to listeners with the session; undefined until the boot id was asked for. */
  info: SessionInfo | undefined;
  readonly gone: PromiseWithResolvers<void>;
}

/** An API that answers no health call so often, while pings are answered, gets a new connection. */
const UNANSWERED = 3;

/** The link to one array. */
export class ArrayLink {
  readonly #driver: LinkDriver;
  readonly #times: LinkTimes;
  readonly #writes: WriteQueue;
  readonly #ending = new AbortController();
  readonly #onSession: Listeners<[Session, SessionInfo]>;
  readonly #onDown: Listeners<[TnblockError]>;
  readonly #next = new Next<Held>();
  #wake = new AbortController();
  #held: Held | undefined;
  #before: { readonly bootId: string | undefined } | undefined;
  #address: string | undefined;
  #release: string | undefined;
  #kind: LinkKind = "idle";
  #isRunning = false;
  #keepers = 0;
  #sinceMs: number;
  #usedMs: number;
  #nextTryMs: number;
  #tryTookMs = 0;
  #failedTries = 0;
  /** Sessions in a row that did not last. */
  #flaps = 0;
  #error: TnblockError | undefined;
  #logins = 0;
  #sessions = 0;
  #calls = 0;

  constructor(driver: LinkDriver, times: Partial<LinkTimes> = {}) {
    this.#driver = driver;
    this.#times = { ...LINK_TIMES, ...times };
    this.#writes = new WriteQueue(driver.clock);
    this.#onSession = new Listeners(driver.log);
    this.#onDown = new Listeners(driver.log);
    this.#sinceMs = this.#usedMs = this.#nextTryMs = driver.clock.monotonicMs();
  }

  /**
   * The session; waits for it as long as that makes sense. The deadline bounds the wait, not the opening,
   * which is everybody's.
   *
   * @throws what the last try failed with.
   */
  async session(deadline: Deadline): Promise<Session> {
    return (await this.#hold(deadline.bounds())).session;
  }

  /** What it is doing. */
  state(): LinkState {
    const error = this.#held === undefined ? this.#error : undefined;
    return {
      kind: this.#kind,
      sinceMs: this.#sinceMs,
      logins: this.#logins,
      sessions: this.#sessions,
      calls: this.#calls,
      queued: this.#writes.queued(),
      writing: this.#writes.writing,
      ...(this.#address === undefined ? {} : { address: this.#address }),
      ...(this.#release === undefined ? {} : { release: this.#release }),
      ...(this.#before?.bootId === undefined ? {} : { bootId: this.#before.bootId }),
      ...(this.#kind === "down" ? { nextTryMs: this.#nextTryMs } : {}),
      ...(error === undefined ? {} : {
        error: {
          code: error.code,
          message: error.message,
          ...(error.hint === undefined ? {} : { hint: error.hint }),
        },
      }),
    };
  }

  /**
   * Tells of each new session, and at once when there is one, until the returned function is called. Who
   * wants a session to be there keeps it up too.
   */
  onSession(listener: (session: Session, info: SessionInfo) => void): () => void {
    const held = this.#held;
    const now = held?.info === undefined ? undefined : [held.session, { rebooted: false }] as const;
    return this.#onSession.add(listener, now && [...now]);
  }

  /** Tells when the session was lost, and of each other reason why there is none; see {@link onSession}. */
  onDown(listener: (error: TnblockError) => void): () => void {
    return this.#onDown.add(listener);
  }

  /** Opens the session and keeps it open until the returned function is called. */
  keepUp(): () => void {
    this.#keepers++;
    this.#start();
    let kept = true;
    return () => {
      if (kept) this.#keepers--;
      kept = false;
    };
  }

  /** Tries at once, whatever the back-off: something was changed that may help. */
  retryNow(): void {
    if (this.#held !== undefined) return;
    this.#nextTryMs = this.#now();
    this.#start();
    this.#wake.abort();
  }

  /** Ends everything; what was sent has the outcome `unknown`. */
  close(): void {
    if (this.#ending.signal.aborted) return;
    const error = closedByUs();
    this.#writes.end(error);
    this.#ending.abort(error);
    this.#held?.inner.close();
    this.#held?.gone.resolve();
    this.#held = undefined;
    this.#kind = "idle";
    this.#next.fail(error);
    this.#wake.abort();
  }

  #now(): number {
    return this.#driver.clock.monotonicMs();
  }

  /** The open session, or the next one. */
  async #hold(bounds: Bounds): Promise<Held> {
    this.#usedMs = this.#now();
    if (this.#ending.signal.aborted) throw closedByUs();
    const held = this.#held;
    if (held?.inner.isOpen === true) return held;
    if (held !== undefined) this.#lose(held, lostError(held));
    if (bounds.signal?.aborted) throw asTnblockError(bounds.signal.reason);
    this.#start();
    const isTrying = this.#kind === "connecting";
    const ms = waitForSession({
      failedTries: this.#failedTries,
      nextInMs: isTrying ? 0 : Math.max(0, this.#nextTryMs - this.#now()),
      takesMs: isTrying ? 0 : this.#tryTookMs,
      leftMs: bounds.deadlineMs,
    }, this.#times);
    if (ms === 0 && this.#error !== undefined) throw this.#error;
    const late = () => this.#error ?? noSession(ms);
    return await this.#next.wait(this.#driver.clock, ms, bounds.signal, late);
  }

  #start(): void {
    if (this.#isRunning || this.#ending.signal.aborted) return;
    this.#isRunning = true;
    if (this.#kind === "idle") this.#next.begin();
    this.#run();
  }

  /** Opens, watches, opens again. Never rejects; the only one that opens, so no two logins run at once. */
  async #run(): Promise<void> {
    while (!this.#ending.signal.aborted && this.#isWanted()) {
      if (this.#held === undefined) await this.#open();
      else await this.#watch(this.#held);
    }
    this.#isRunning = false;
    if (this.#ending.signal.aborted) return;
    this.#rest();
  }

  #isWanted(): boolean {
    return this.#keepers > 0 || this.#writes.writing > 0 ||
      this.#now() - this.#usedMs < this.#times.idleMs;
  }

  /** Nobody needs it any more. */
  #rest(): void {
    const held = this.#held;
    this.#held = undefined;
    this.#setKind("idle");
    this.#failedTries = this.#flaps = 0;
    this.#error = undefined;
    this.#nextTryMs = this.#now();
    held?.inner.close();
    if (held !== undefined) this.#driver.log.info(`closed the idle session with ${this.#address}`);
    this.#driver.onIdle();
  }

  /** Waits out the pause, then tries once. */
  async #open(): Promise<void> {
    const { clock, log } = this.#driver;
    while (this.#nextTryMs > this.#now()) {
      this.#setKind("down");
      this.#wake = new AbortController();
      await clock.wait(this.#nextTryMs - this.#now(), this.#wake.signal).catch(() => {});
      if (this.#ending.signal.aborted || !this.#isWanted()) return;
    }
    this.#setKind("connecting");
    const began = this.#now();
    try {
      const inner = await this.#driver.open(
        this.#address,
        this.#ending.signal,
        () => this.#logins++,
      );
      if (this.#ending.signal.aborted) return inner.close();
      this.#tryTookMs = this.#now() - began;
      this.#use(inner);
      log.info(`connected to TrueNAS ${inner.release.text} at ${inner.address}`);
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      this.#tryTookMs = this.#now() - began;
      this.#fail(asTnblockError(error));
    }
  }

  /** A session is there. */
  #use(inner: Session): void {
    const now = this.#now();
    const held: Held = {
      inner,
      session: new LinkSession(inner, {
        writes: this.#writes,
        current: async (bounds) => (await this.#hold(bounds)).inner,
        forgotten: (session, error) => this.#forgotten(session, error),
        calling: () => {
          this.#calls++;
          this.#usedMs = this.#now();
        },
        answered: (session) => {
          if (this.#held?.inner === session) this.#answered(this.#held);
        },
      }),
      openedMs: now,
      answeredMs: now,
      askedMs: now,
      unanswered: 0,
      info: undefined,
      gone: Promise.withResolvers(),
    };
    this.#held = held;
    this.#sessions++;
    this.#failedTries = 0;
    this.#error = undefined;
    this.#address = inner.address;
    this.#release = inner.release.text;
    this.#setKind("up");
    this.#next.succeed(held);
    inner.closed.then((error) => this.#lose(held, error));
    this.#introduce(held);
  }

  /** Asks for the boot id, then tells of the session. */
  async #introduce(held: Held): Promise<void> {
    const bootId = await this.#driver.bootId(held.inner);
    if (this.#held !== held) return;
    const info = { rebooted: isReboot(this.#before, bootId) };
    this.#before = { bootId };
    held.info = info;
    if (info.rebooted && bootId !== undefined) {
      this.#driver.log.info(`TrueNAS at ${held.inner.address} has been booted since`);
    }
    this.#onSession.tell(held.session, info);
  }

  /** A try has failed. */
  #fail(error: TnblockError): void {
    const { log } = this.#driver;
    const kind = failureKind(error.code);
    const allowedInMs = this.#driver.allowedInMs(error);
    const pause = pauseMs({
      kind,
      before: this.#failedTries + this.#flaps,
      random: this.#driver.random(),
      ...(allowedInMs === undefined ? {} : { allowedInMs }),
    });
    const isNew = this.#failedTries === 0 || this.#error?.code !== error.code;
    this.#failedTries++;
    this.#nextTryMs = this.#now() + pause;
    this.#setKind("down");
    if (isNew) {
      const line = `${error.message}; trying again, next in ${Math.ceil(pause / 1000)} s`;
      if (kind === "refused") log.warning(line);
      else log.info(line);
    }
    this.#tellDown(error);
    this.#next.fail(error);
  }

  /** The session has ended. */
  #lose(held: Held, error: TnblockError): void {
    if (this.#held !== held) return;
    const now = this.#now();
    this.#held = undefined;
    this.#flaps = now - held.openedMs >= this.#times.stableMs ? 0 : this.#flaps + 1;
    // A forgotten login is no sign of trouble: everybody waits for the next one.
    const pause = isForgotten(error) && this.#flaps === 0 ? 0 : pauseMs({
      kind: "away",
      before: this.#flaps,
      random: this.#driver.random(),
    });
    this.#nextTryMs = now + pause;
    this.#next.begin();
    this.#setKind("down");
    held.gone.resolve();
    this.#driver.log.info(`the session with TrueNAS ended: ${error.message}`);
    this.#tellDown(error);
  }

  #forgotten(session: Session, error: ArrayError): void {
    const held = this.#held;
    if (held?.inner === session) this.#lose(held, error);
  }

  /** Waits until something is to be done about a session that is up, and does it. */
  async #watch(held: Held): Promise<void> {
    const upkeep = decideUpkeep({
      nowMs: this.#now(),
      answeredMs: held.answeredMs,
      askedMs: held.askedMs,
      usedMs: this.#usedMs,
      isKept: this.#keepers > 0 || this.#writes.writing > 0,
    }, this.#times);
    if (upkeep.do === "ask") return await this.#ask(held);
    // #run sees that nobody wants it.
    if (upkeep.do === "close") return;
    const over = new AbortController();
    const wait = this.#driver.clock.wait(upkeep.ms, over.signal).catch(() => {});
    await Promise.race([held.gone.promise, wait]);
    over.abort();
  }

  /** Asks whether the array still knows us. */
  async #ask(held: Held): Promise<void> {
    held.askedMs = this.#now();
    this.#calls++;
    try {
      await this.#driver.ask(held.inner);
      this.#answered(held);
    } catch (thrown) {
      const error = asTnblockError(thrown);
      if (isForgotten(error)) return this.#lose(held, error);
      if (error instanceof ArrayError && error.outcome === "answered") return this.#answered(held);
      held.unanswered++;
      // Hanging up would cut writes that the array is at work on.
      if (held.unanswered < UNANSWERED || this.#writes.writing > 0) return;
      this.#lose(held, error);
      held.inner.close();
    }
  }

  #answered(held: Held): void {
    held.answeredMs = this.#now();
    held.unanswered = 0;
  }

  #setKind(kind: LinkKind): void {
    const wasUp = this.#kind === "up";
    if (wasUp !== (kind === "up") || (kind === "idle") !== (this.#kind === "idle")) {
      this.#sinceMs = this.#now();
    }
    this.#kind = kind;
  }

  #tellDown(error: TnblockError): void {
    const isSame = this.#error?.code === error.code && this.#error.message === error.message;
    this.#error = error;
    if (!isSame) this.#onDown.tell(error);
  }
}

function closedByUs(): ArrayError {
  return new ArrayError("unreachable", "Cannot go on with TrueNAS: tnblock is ending", {
    outcome: "not-sent",
  });
}

function lostError(held: Held): TnblockError {
  return new TnblockError(
    "unreachable",
    `Cannot go on with "${held.inner.address}": the session has ended`,
  );
}

function noSession(ms: number): TnblockError {
  return new TnblockError(
    "timeout",
    `Cannot connect to TrueNAS: no session within ${Math.round(ms)} ms`,
  );
}
