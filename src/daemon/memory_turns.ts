/** The reads of a memory one after the other, for those who wait for one. */
import type { TnblockError } from "../common/error.ts";

/** Tells how a read ended; true when it is the one that was waited for. */
type Waiter = (number: number, error: TnblockError | undefined) => boolean;

/** Counts the reads and wakes who waits. */
export class Turns {
  readonly #waiters = new Set<Waiter>();
  #begun = 0;

  /** Reads begun so far. */
  get begun(): number {
    return this.#begun;
  }

  /** Whether somebody waits for a read. */
  get isAwaited(): boolean {
    return this.#waiters.size > 0;
  }

  /** Begins a read; gives its number. */
  begin(): number {
    return ++this.#begun;
  }

  /** A read has ended. */
  end(number: number, error: TnblockError | undefined): void {
    for (const waiter of [...this.#waiters]) {
      if (waiter(number, error)) this.#waiters.delete(waiter);
    }
  }

  /**
   * Waits for a read that succeeds, or one that begins from now on and fails: one under way may fail for
   * what is over by now.
   *
   * @param over ends the wait.
   * @returns the read's error, or that of `over`.
   */
  async next(over: Promise<TnblockError>): Promise<TnblockError | undefined> {
    const before = this.#begun;
    const { promise, resolve } = Promise.withResolvers<TnblockError | undefined>();
    const waiter: Waiter = (number, error) => {
      const isIt = error === undefined || number > before;
      if (isIt) resolve(error);
      return isIt;
    };
    this.#waiters.add(waiter);
    try {
      return await Promise.race([promise, over]);
    } finally {
      this.#waiters.delete(waiter);
    }
  }
}
