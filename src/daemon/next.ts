/** Something that is tried again and again: those who wait are told what the next try comes to. */
import { asTnblockError, type TnblockError } from "../common/error.ts";
import { after, type WaitingClock } from "../truenas/clock.ts";

/** The next try's outcome. */
export class Next<T> {
  #outcome = pending<T>();

  /** From now on another try is waited for. */
  begin(): void {
    this.#outcome = pending();
  }

  succeed(value: T): void {
    this.#outcome.resolve(value);
  }

  /** Those who wait are told; whoever comes waits for the try after this one. */
  fail(error: TnblockError): void {
    const { reject } = this.#outcome;
    this.begin();
    reject(error);
  }

  /**
   * Waits for at most `ms` milliseconds.
   *
   * @param late what it fails with then.
   * @throws what the try failed with, or the signal's reason.
   */
  async wait(
    clock: WaitingClock,
    ms: number,
    signal: AbortSignal | undefined,
    late: () => TnblockError,
  ): Promise<T> {
    const end = Promise.withResolvers<never>();
    const leave = () => end.reject(asTnblockError(signal?.reason));
    const stop = after(clock, ms, () => end.reject(late()));
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([this.#outcome.promise, end.promise]);
    } finally {
      stop();
      signal?.removeEventListener("abort", leave);
    }
  }
}

function pending<T>(): PromiseWithResolvers<T> {
  const outcome = Promise.withResolvers<T>();
  // Nobody may be waiting.
  outcome.promise.catch(() => {});
  return outcome;
}
