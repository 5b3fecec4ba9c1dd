/** A point in time by which a caller wants its answer; reads and waits end there, writes on the array do not. */
import { TnblockError } from "./error.ts";

/** The clock that a deadline is measured by. */
export interface Clock {
  monotonicMs(): number;
}

/** How far work is that a deadline ends no more. */
export interface GoingOn {
  /** What is known of it, as the end of a sentence: `the array was told to grow it`. */
  readonly known: string;
  /** What to do about it. */
  readonly hint: string;
}

/** The caller's deadline. */
export class Deadline {
  readonly #clock: Clock;
  readonly #at: number;
  readonly #controller = new AbortController();
  #goingOn: GoingOn | undefined;

  /** @param ms milliseconds from now. */
  constructor(clock: Clock, ms: number) {
    this.#clock = clock;
    this.#at = clock.monotonicMs() + ms;
  }

  /** Aborted when the deadline has passed or the caller is gone. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Milliseconds that are left, at least 0. */
  leftMs(): number {
    return this.signal.aborted ? 0 : Math.max(0, this.#at - this.#clock.monotonicMs());
  }

  /** Bounds for a wait of at most `ms`, and never past the deadline. */
  bounds(ms: number = Number.MAX_SAFE_INTEGER): { deadlineMs: number; signal: AbortSignal } {
    return { deadlineMs: Math.min(ms, this.leftMs()), signal: this.signal };
  }

  /**
   * What a caller is told whose deadline passes now. A verb that is finished rather than undone (free, delete a
   * snapshot, resize, roll back) says it before its first write, and again when it knows more: "timeout" alone
   * would read as if nothing had been done.
   */
  get goingOn(): GoingOn | undefined {
    return this.#goingOn;
  }

  /** See {@link goingOn}. */
  goesOn(known: string, hint: string): void {
    this.#goingOn = { known, hint };
  }

  /** Ends everything that waits under this deadline. */
  expire(reason: TnblockError): void {
    this.#controller.abort(reason);
  }

  /** Throws when the deadline has passed: called between two writes, where stopping is safe. */
  check(): void {
    if (this.signal.aborted) throw this.signal.reason;
    if (this.leftMs() === 0) {
      throw new TnblockError("timeout", "Cannot go on: the deadline has passed");
    }
  }
}
