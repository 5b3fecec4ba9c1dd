/** How late the program itself is: everything it does waits for one loop. */
import type { Host } from "../host/host.ts";

/** Milliseconds between two looks. */
const EVERY_MS = 1_000;

/** Looks that are remembered: a quarter of a minute, which is what the metrics are written for. */
const LOOKS = 15;

/** Measures until it is stopped. */
export interface LoopLag {
  /** Seconds; the longest of the last looks. */
  seconds(): number;
  stop(): void;
}

/** Starts measuring. */
export function measureLoopLag(host: Pick<Host, "monotonicMs" | "wait">): LoopLag {
  const over = new AbortController();
  let lags: number[] = [];
  const look = async () => {
    for (;;) {
      const before = host.monotonicMs();
      await host.wait(EVERY_MS, over.signal);
      lags = [...lags, Math.max(0, host.monotonicMs() - before - EVERY_MS)].slice(-LOOKS);
    }
  };
  look().catch(() => {});
  return {
    seconds: () => Math.max(0, ...lags) / 1000,
    stop: () => over.abort(),
  };
}
