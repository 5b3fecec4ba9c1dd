/** What the daemon did at the array between two looks at it. */
import { BACK_OFF_MS } from "../../src/common/timing.ts";
import { type DaemonCalls, isWrite, type Stage } from "./stage.ts";

/** What happened in between. */
export interface CallsBetween {
  /** Writes that the array did. */
  readonly writes: number;
  /** Tries that it refused: a zvol's device takes some time to appear. */
  readonly refusedWrites: number;
  /** Milliseconds in which the array had a write. */
  readonly writeMs: number;
  /** The longest read in ms, as the mean of its method. Reads of one operation run side by side. */
  readonly readMs: number;
}

/** Does something at a daemon, and tells which calls were made for it. */
export async function callsFor<T>(
  stage: Stage,
  work: () => Promise<T>,
  node = "pve1",
): Promise<CallsBetween & { readonly result: T }> {
  const before = await stage.daemonStatus(node);
  const result = await work();
  const after = await stage.daemonStatus(node);
  return { result, ...between(before.daemon.arrayCalls, after.daemon.arrayCalls) };
}

/**
 * How long a single operation paused in all between its tries, while the array had not yet made the zvol's
 * device: after each refusal so long as `device_node.ts` does.
 */
export function pausesMs(refusals: number): number {
  const pauses = Array.from(
    { length: refusals },
    (_, attempt) => BACK_OFF_MS[Math.min(attempt + 1, BACK_OFF_MS.length - 1)] ?? 0,
  );
  return pauses.reduce((sum, pause) => sum + pause, 0);
}

/** What was called between two reports of one daemon. */
export function between(
  before: readonly DaemonCalls[],
  after: readonly DaemonCalls[],
): CallsBetween {
  const changes = after.map((now) => {
    const then = before.find(({ method }) => method === now.method);
    return {
      method: now.method,
      count: now.count - (then?.count ?? 0),
      failed: now.failed - (then?.failed ?? 0),
      ms: (now.seconds - (then?.seconds ?? 0)) * 1000,
    };
  }).filter(({ count }) => count > 0);
  const writes = changes.filter(({ method }) => isWrite(method));
  const reads = changes.filter(({ method }) => !isWrite(method));
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return {
    writes: sum(writes.map(({ count, failed }) => count - failed)),
    refusedWrites: sum(writes.map(({ failed }) => failed)),
    writeMs: sum(writes.map(({ ms }) => ms)),
    readMs: Math.max(0, ...reads.map(({ ms, count }) => ms / count)),
  };
}
