/**
 * Jobs over REST: a job method answers with the job's number, whatever the release, and there are no
 * events, so the job is asked for until it has ended. `core.bulk` is not offered at all and is done by
 * hand, one call after another, with the same result.
 */
import * as v from "valibot";
import type { CallOptions } from "./caller.ts";
import type { WaitingClock } from "./clock.ts";
import { fromFailedJob } from "./error_mapping.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";
import { checked, rows } from "./request.ts";

/** A call with what is left of the caller's time. */
type Call = (
  method: string,
  params: readonly unknown[],
  more?: CallOptions,
) => Promise<unknown>;

/** Each look costs the array a check of the key, and jobs take seconds as a rule. */
const PAUSES_MS: readonly number[] = [100, 250, 500, 1000];

const jobRow = v.looseObject({ state: v.string(), result: v.optional(v.unknown()) });

/**
 * Waits for a job and gives its result.
 *
 * @throws ArrayError what the job failed with; `timeout` with the outcome `unknown` when it has not
 *   ended in time, `array-fault` when the array has forgotten it.
 */
export async function jobResult(
  id: number,
  context: ErrorContext,
  bounds: {
    readonly call: Call;
    readonly clock: WaitingClock;
    readonly left: () => number;
    readonly signal: AbortSignal | undefined;
  },
): Promise<unknown> {
  const lost = (code: "timeout" | "array-fault", why: string, cause?: unknown) =>
    new ArrayError(code, `${doingOf(context)}: ${why}`, {
      outcome: "unknown",
      method: context.method,
      ...(cause === undefined ? {} : { cause }),
    });
  const request = {
    method: "core.get_jobs",
    params: [[["id", "=", id]], {}],
    doing: doingOf(context),
  };
  for (let look = 0;; look++) {
    const pause = PAUSES_MS[Math.min(look, PAUSES_MS.length - 1)] ?? 1000;
    if (bounds.left() <= pause) throw lost("timeout", `job ${id} runs on, it did not end in time`);
    try {
      await bounds.clock.wait(pause, bounds.signal);
    } catch (cause) {
      throw lost("timeout", `job ${id} runs on, but the caller gave up`, cause);
    }
    const answer = await ask(bounds.call, request, lost, id);
    const [row] = checked(rows(jobRow), answer, request);
    if (row === undefined) throw lost("array-fault", `the array does not know job ${id} any more`);
    if (row.state === "SUCCESS") return row.result;
    if (row.state === "FAILED" || row.state === "ABORTED") throw fromFailedJob(row, context);
  }
}

/** One look; the job may go on although nobody can look at it. */
async function ask(
  call: Call,
  request: { readonly method: string; readonly params: readonly unknown[]; readonly doing: string },
  lost: (code: "timeout", why: string, cause: unknown) => ArrayError,
  id: number,
): Promise<unknown> {
  try {
    return await call(request.method, request.params, { lane: "read", doing: request.doing });
  } catch (cause) {
    throw lost("timeout", `job ${id} runs on, but cannot be asked for`, cause);
  }
}

/**
 * `core.bulk(method, [[args], ...])` by hand: a failure that the array answered is an entry of the
 * result, as there; any other ends the whole.
 */
export async function bulkByHand(params: readonly unknown[], call: Call): Promise<unknown> {
  const [method, lists] = params;
  const results: { result: unknown; error: string | null }[] = [];
  for (const list of Array.isArray(lists) ? lists : []) {
    try {
      const result = await call(String(method), Array.isArray(list) ? list : [list]);
      results.push({ result, error: null });
    } catch (error) {
      if (!(error instanceof ArrayError)) throw error;
      if (error.outcome !== "answered") throw results.length === 0 ? error : halfDone(error);
      results.push({ result: null, error: error.reason ?? error.message });
    }
  }
  return results;
}

/** What was done before is done, whatever became of the call that failed. */
function halfDone(error: ArrayError): ArrayError {
  return new ArrayError(error.code, error.message, {
    outcome: "unknown",
    cause: error,
    ...(error.method === undefined ? {} : { method: error.method }),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}
