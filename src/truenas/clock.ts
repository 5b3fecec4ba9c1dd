/** The time that deadlines are measured by; `Host` fits, tests bring their own. */
import { clearTimeout as stopTimer, setTimeout as startTimer } from "node:timers";
import type { Clock } from "../common/deadline.ts";

/** A clock that can also wait. */
export interface WaitingClock extends Clock {
  /** Waits; rejects with the signal's reason when it is aborted. */
  wait(ms: number, signal?: AbortSignal): Promise<void>;
}

/** The real time, for programs that have no `Host`. */
export const systemClock: WaitingClock = {
  monotonicMs: () => performance.now(),
  wait(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const timer = startTimer(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      const onAbort = () => {
        stopTimer(timer);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
};

/** Runs `then` after `ms`, unless the returned function is called first. */
export function after(clock: WaitingClock, ms: number, then: () => void): () => void {
  const controller = new AbortController();
  clock.wait(ms, controller.signal).then(then, () => {});
  return () => controller.abort();
}
