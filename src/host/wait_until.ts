/** Waiting for a condition of the node: eager at first, then patient, never past the deadline. */
import { BACK_OFF_MS } from "../common/timing.ts";
import type { Bounds, Host } from "./host.ts";

/** What was waited for, and what it took. */
export interface Awaited<T> {
  readonly value: T;
  /** How often was looked, from 1. */
  readonly attempts: number;
  /** Milliseconds from the first look to the value. */
  readonly ms: number;
}

/**
 * Looks until `probe` gives something else than undefined. The first look comes at once, and one
 * last look is always taken at the deadline.
 *
 * @returns undefined when the deadline passed; a failure of the probe and the reason of an abort are thrown.
 */
export async function waitUntil<T>(
  host: Pick<Host, "wait" | "monotonicMs">,
  bounds: Bounds,
  probe: (attempt: number) => Promise<T | undefined>,
): Promise<Awaited<T> | undefined> {
  const start = host.monotonicMs();
  for (let attempt = 1;; attempt++) {
    const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length) - 1] ?? 0;
    const left = start + bounds.deadlineMs - host.monotonicMs();
    if (attempt > 1 && left <= 0) return undefined;
    bounds.signal?.throwIfAborted();
    if (pause > 0) await host.wait(Math.min(pause, left), bounds.signal);
    const value = await probe(attempt);
    if (value !== undefined) return { value, attempts: attempt, ms: host.monotonicMs() - start };
  }
}
