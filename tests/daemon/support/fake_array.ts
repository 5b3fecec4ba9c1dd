/** An array behind a link for tests on the fake clock: sessions that do what a test tells them. */
import type { TnblockError } from "../../../src/common/error.ts";
import { Deadline } from "../../../src/common/deadline.ts";
import { lineLog } from "../../../src/common/log.ts";
import { ArrayLink } from "../../../src/daemon/link.ts";
import type { LinkDriver } from "../../../src/daemon/link_driver.ts";
import type { CallOptions } from "../../../src/truenas/caller.ts";
import { parseRelease, type Release } from "../../../src/truenas/dialect.ts";
import { ArrayError } from "../../../src/truenas/errors.ts";
import type { Session } from "../../../src/truenas/session.ts";
import { LoginsUsedUp } from "../../../src/pve/login_budget.ts";
import { FakeClock } from "../../support/fake_clock.ts";

/** How a call ends. */
export type Answer = (method: string, session: FakeSession) => unknown;

/** One session with it. */
export class FakeSession implements Session {
  readonly address = "nas:443";
  readonly #closed = Promise.withResolvers<ArrayError>();
  /** Calls as they were sent. */
  readonly calls: { readonly method: string; readonly options: CallOptions }[] = [];
  isOpen = true;

  constructor(readonly release: Release, readonly array: FakeArray) {}

  get closed(): Promise<ArrayError> {
    return this.#closed.promise;
  }

  async call(method: string, _params: readonly unknown[], options: CallOptions = {}) {
    if (!this.isOpen) throw lost("not-sent");
    this.calls.push({ method, options });
    this.array.calls.push(method);
    try {
      return await Promise.race([
        this.array.answer(method, this),
        this.#closed.promise.then(() => {
          throw lost("unknown");
        }),
      ]);
    } catch (error) {
      // As the real one does: nobody may use it any more.
      if (error instanceof ArrayError && error.code === "auth") this.isOpen = false;
      throw error;
    }
  }

  callJob(method: string, params: readonly unknown[], options?: CallOptions) {
    return this.call(method, params, options);
  }

  async subscribe(): Promise<() => Promise<void>> {
    await this.call("core.subscribe", []);
    return () => Promise.resolve();
  }

  /** The connection breaks. */
  drop(why = "the connection was closed"): void {
    this.isOpen = false;
    this.#closed.resolve(
      new ArrayError("unreachable", `Cannot go on: ${why}`, { outcome: "unknown" }),
    );
  }

  close(): void {
    this.drop("closed by tnblock");
  }
}

/** What a call fails with when the connection has ended. */
export function lost(outcome: "unknown" | "not-sent"): ArrayError {
  return new ArrayError("unreachable", "Cannot go on: the connection was closed", { outcome });
}

/** The array no longer knows who we are. */
export function forgotten(): ArrayError {
  return new ArrayError("auth", "Cannot call: Not authenticated", {
    outcome: "answered",
    errno: 207,
  });
}

/** The array, the clock, and a link between them. */
export class FakeArray {
  readonly clock = new FakeClock();
  readonly log: string[] = [];
  readonly sessions: FakeSession[] = [];
  /** Times of all tries to connect. */
  readonly tries: number[] = [];
  /** Methods of all calls. */
  calls: string[] = [];
  bootId: string | undefined = "boot-1";
  version = "25.10.6";
  /** What the next tries fail with. */
  failure: TnblockError | undefined;
  /** How long a try takes. */
  connectMs = 0;
  random = 0;
  idle = 0;
  answer: Answer = (method) => Promise.resolve(method);
  readonly link: ArrayLink;

  constructor() {
    const driver: LinkDriver = {
      clock: this.clock,
      log: lineLog((line) => this.log.push(line), () => 2),
      random: () => this.random,
      open: async (_preferred, signal, onLogin) => {
        this.tries.push(this.clock.monotonicMs());
        if (this.connectMs > 0) await this.clock.wait(this.connectMs, signal);
        if (this.failure !== undefined) throw this.failure;
        onLogin();
        const dialect = this.version.startsWith("26") ? "v26.0.0" : "v25.10.0";
        const session = new FakeSession(parseRelease(this.version, dialect), this);
        this.sessions.push(session);
        return session;
      },
      bootId: () => Promise.resolve(this.bootId),
      ask: async (session) => void await session.call("auth.me", [], { deadlineMs: 15_000 }),
      allowedInMs: (error) => error instanceof LoginsUsedUp ? error.allowedInMs : undefined,
      onIdle: () => void this.idle++,
    };
    this.link = new ArrayLink(driver);
  }

  /** The session that was opened last. */
  get last(): FakeSession {
    const last = this.sessions.at(-1);
    if (last === undefined) throw new Error("no session was opened");
    return last;
  }

  deadline(ms = 45_000): Deadline {
    return new Deadline(this.clock, ms);
  }

  /** Lets time pass in steps, and everybody do what is due. */
  async pass(ms: number, step = Math.max(1, ms / 200)): Promise<void> {
    await turns();
    for (let left = ms; left > 0; left -= step) {
      await this.clock.pass(Math.min(step, left));
      await turns();
    }
  }
}

/** Lets everybody go on who can. */
export async function turns(): Promise<void> {
  for (let turn = 0; turn < 40; turn++) await Promise.resolve();
}
