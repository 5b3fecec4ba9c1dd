/** Part of linux.ts: puts a deadline and an abort signal on something that has neither. */
import { type Bounds, HostError } from "./host.ts";

/** A timer takes no more; past it both runtimes fire at once. Nothing here waits for 24 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The length of a timer for a time that may be negative or without end. */
export function timerMs(ms: number): number {
  return Math.min(Math.max(0, ms), MAX_TIMER_MS);
}

/** Waits; rejects with the signal's reason when it is aborted. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, timerMs(ms));
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/**
 * The work's outcome, or `ETIMEDOUT` after the deadline, or the signal's reason; the work does not
 * begin when it is late already. Once begun it may still go on afterwards: what blocks in the kernel
 * cannot be called back.
 */
export async function within<T>(
  doing: string,
  bounds: Bounds,
  work: () => Promise<T>,
): Promise<T> {
  const { deadlineMs, signal } = bounds;
  signal?.throwIfAborted();
  const late = () => new HostError("ETIMEDOUT", `${doing}: no end within ${deadlineMs} ms`);
  if (deadlineMs <= 0) throw late();
  return await new Promise((resolve, reject) => {
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      finish();
    };
    const onAbort = () => settle(() => reject(signal?.reason));
    const timer = setTimeout(() => settle(() => reject(late())), timerMs(deadlineMs));
    signal?.addEventListener("abort", onAbort, { once: true });
    work().then((value) => settle(() => resolve(value)), (error) => settle(() => reject(error)));
  });
}
