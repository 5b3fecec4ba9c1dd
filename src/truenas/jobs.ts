/**
 * Waiting for jobs on TrueNAS 25.04, where a job method answers with a number and the result comes as
 * an event of `core.get_jobs` (later releases answer with the result, see `legacy_jobs`).
 */
import * as v from "valibot";
import { after, type WaitingClock } from "./clock.ts";
import { fromFailedJob } from "./error_mapping.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";

const eventSchema = v.looseObject({
  collection: v.literal("core.get_jobs"),
  id: v.number(),
  fields: v.looseObject({ state: v.string(), result: v.optional(v.unknown()) }),
});

type JobRow = v.InferOutput<typeof eventSchema>["fields"];

const FINAL_STATES = ["SUCCESS", "FAILED", "ABORTED"];
/** An event may come before the answer that tells the job's number: the last ones are kept. */
const KEPT = 64;

/** Jobs that have ended, and calls that wait for one. */
export class JobWatch {
  readonly #ended = new Map<number, JobRow>();
  readonly #waiting = new Map<number, (row: JobRow) => void>();

  /** Takes the parameters of any `collection_update`. */
  notice(params: unknown): void {
    const event = v.safeParse(eventSchema, params);
    if (!event.success || !FINAL_STATES.includes(event.output.fields.state)) return;
    const { id, fields } = event.output;
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) return waiting(fields);
    this.#ended.set(id, fields);
    const oldest = this.#ended.keys().next();
    if (this.#ended.size > KEPT && !oldest.done) this.#ended.delete(oldest.value);
  }

  /**
   * The result of a job.
   *
   * @throws ArrayError what the job failed with; `timeout` with the outcome `unknown` when it has not ended in time.
   */
  async result(
    id: number,
    context: ErrorContext,
    bounds: {
      readonly deadlineMs: number;
      readonly clock: WaitingClock;
      readonly ended: Promise<ArrayError>;
      readonly signal?: AbortSignal;
    },
  ): Promise<unknown> {
    const row = this.#ended.get(id) ?? await this.#next(id, context, bounds);
    this.#ended.delete(id);
    if (row.state !== "SUCCESS") throw fromFailedJob(row, context);
    return row.result;
  }

  async #next(
    id: number,
    context: ErrorContext,
    bounds: Parameters<JobWatch["result"]>[2],
  ): Promise<JobRow> {
    const lost = (why: string, code: "timeout" | "unreachable", cause?: unknown) =>
      new ArrayError(code, `${doingOf(context)}: job ${id} runs on, but ${why}`, {
        outcome: "unknown",
        method: context.method,
        cause,
      });
    const row = Promise.withResolvers<JobRow>();
    this.#waiting.set(id, row.resolve);
    const onAbort = () => row.reject(lost("the caller gave up", "timeout", bounds.signal?.reason));
    const stop = after(
      bounds.clock,
      bounds.deadlineMs,
      () => row.reject(lost("it did not end in time", "timeout")),
    );
    if (bounds.signal?.aborted) onAbort();
    bounds.signal?.addEventListener("abort", onAbort, { once: true });
    bounds.ended.then((error) => row.reject(lost("the connection ended", "unreachable", error)));
    try {
      return await row.promise;
    } finally {
      stop();
      bounds.signal?.removeEventListener("abort", onAbort);
      this.#waiting.delete(id);
    }
  }
}
