/** A clock that stands still until a test moves it. */
interface Timer {
  readonly at: number;
  readonly fire: () => void;
}

/** Fits `WaitingClock` and the clock part of `Host`. */
export class FakeClock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  monotonicMs(): number {
    return this.#now;
  }

  /** How many waits are pending: none must be left behind. */
  get pending(): number {
    return this.#timers.size;
  }

  wait(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const timer: Timer = {
        at: this.#now + ms,
        fire: () => {
          this.#timers.delete(timer);
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = () => {
        this.#timers.delete(timer);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#timers.add(timer);
    });
  }

  /** Lets time pass; due waits end in their order. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    while (true) {
      const due = [...this.#timers].filter((timer) => timer.at <= end)
        .sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#now = Math.max(this.#now, due.at);
      due.fire();
      // Whoever waited goes on before the next one is due.
      await new Promise<void>((resolve) => queueMicrotask(resolve));
      await Promise.resolve();
    }
    this.#now = end;
  }
}
