/** Letting go of a disk that was written a moment ago: udev looks into it once more after the last close. */
import { TnblockError } from "../common/error.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import { LastingUse } from "./lasting_use.ts";
import type { Storage } from "./storage.ts";

/** Least time that is kept for telling the caller, in ms: on a busy node a try may take longer than the one before. */
const TELL_MS = 250;

/**
 * Repeats work that is refused as `in-use`, which must touch nothing then, for at most `ms` and never
 * past the caller's deadline. What cannot end within the wait is told at once ({@link LastingUse}).
 *
 * @throws what the work throws; `in-use` by somebody on this node once the time is over.
 */
export async function onceUnused<T>(
  storage: Storage,
  ms: number,
  work: () => Promise<T>,
): Promise<T> {
  const { host, deadline } = storage;
  const end = host.monotonicMs() + ms;
  for (let attempt = 1;; attempt++) {
    const start = host.monotonicMs();
    try {
      return await work();
    } catch (error) {
      // Another try takes as long as this one, and the caller must hear of it in time.
      const took = 2 * (host.monotonicMs() - start);
      const pause = BACK_OFF_MS[Math.min(attempt, BACK_OFF_MS.length - 1)] ?? 250;
      const left = Math.min(end - host.monotonicMs(), deadline.leftMs() - TELL_MS);
      if (!(error instanceof TnblockError) || error.code !== "in-use") throw error;
      if (error instanceof LastingUse) throw error;
      if (pause + took >= left) throw error;
      await host.wait(pause, deadline.signal);
    }
  }
}
