/**
 * The places of a REST session: as many calls at once as over the WebSocket (8, of them 6 writes),
 * reads before writes, and no more waiting than can be told apart from an endless queue. TrueNAS
 * itself limits nothing here, but every call costs it a check of the key.
 */
import { type Lane, READ_DEADLINE_MS, WRITE_DEADLINE_MS } from "./caller.ts";
import type { CallOptions } from "./caller.ts";
import { after, type WaitingClock } from "./clock.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";

const MAX_IN_FLIGHT = 8;
const MAX_WRITES_IN_FLIGHT = 6;
const MAX_QUEUED = 256;

/** A call's place, from the moment that it has one. */
export class Place {
  #sent = false;
  #givenUp = false;

  /** Whether the request has left us: from then on the array may have acted. */
  get sent(): boolean {
    return this.#sent;
  }

  /** Asked right before the request is written; false when the caller has gone meanwhile. */
  readonly maySend = (): boolean => {
    if (!this.#givenUp) this.#sent = true;
    return this.#sent;
  };

  /** The caller has gone. */
  giveUp(): void {
    this.#givenUp = true;
  }
}

interface Waiting {
  readonly lane: Lane;
  start(): void;
  refuse(end: ArrayError): void;
}

/** Gives calls their places. */
export class Lanes {
  readonly #clock: WaitingClock;
  readonly #maxQueued: number;
  readonly #queues: Readonly<Record<Lane, Waiting[]>> = { read: [], write: [] };
  #inFlight = 0;
  #writesInFlight = 0;
  #end: ArrayError | undefined;

  constructor(clock: WaitingClock, maxQueued: number = MAX_QUEUED) {
    this.#clock = clock;
    this.#maxQueued = maxQueued;
  }

  /**
   * Does `work` as soon as there is a place for it. When the deadline passes or the signal is raised
   * the caller is told at once; work that was sent keeps its place until it ends, because the array
   * is still at it.
   *
   * @throws ArrayError what `work` throws; `timeout` with the outcome `not-sent` or `unknown`;
   *   `busy` when too many wait already.
   */
  run<T>(
    work: (place: Place) => Promise<T>,
    context: ErrorContext,
    options: Pick<CallOptions, "deadlineMs" | "signal" | "lane">,
  ): Promise<T> {
    const lane = options.lane ?? "read";
    const { signal } = options;
    const deadlineMs = options.deadlineMs ??
      (lane === "read" ? READ_DEADLINE_MS : WRITE_DEADLINE_MS);
    const refusal = this.#refusal(context, signal);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      let place: Place | undefined;
      const settle = (act: () => void) => {
        stop();
        signal?.removeEventListener("abort", onAbort);
        act();
      };
      const giveUp = (why: string, cause?: unknown) => {
        place?.giveUp();
        this.#remove(waiting);
        const outcome = place?.sent === true ? "unknown" : "not-sent";
        settle(() => reject(timeout(context, why, outcome, cause)));
      };
      const onAbort = () => giveUp("the caller gave up", signal?.reason);
      const stop = after(this.#clock, deadlineMs, () =>
        giveUp(
          `${place === undefined ? "no free place" : "no answer"} within ${
            Math.round(deadlineMs)
          } ms`,
        ));
      const waiting: Waiting = {
        lane,
        start: () => {
          place = new Place();
          work(place).then(
            (result) => settle(() => resolve(result)),
            (error) => settle(() => reject(error)),
          ).finally(() => this.#leave(lane));
        },
        refuse: (end) => settle(() => reject(ended(end, context))),
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queues[lane].push(waiting);
      this.#pump();
    });
  }

  /** No call gets a place any more; those that have one go on. */
  end(error: ArrayError): void {
    this.#end ??= error;
    const waiting = [...this.#queues.read.splice(0), ...this.#queues.write.splice(0)];
    for (const call of waiting) call.refuse(error);
  }

  #refusal(context: ErrorContext, signal: AbortSignal | undefined): ArrayError | undefined {
    if (this.#end !== undefined) return ended(this.#end, context);
    if (signal?.aborted) return timeout(context, "the caller gave up", "not-sent", signal.reason);
    if (this.#queues.read.length + this.#queues.write.length < this.#maxQueued) return undefined;
    return new ArrayError(
      "busy",
      `${doingOf(context)}: ${this.#maxQueued} calls are waiting already`,
      { outcome: "not-sent", method: context.method },
    );
  }

  #pump(): void {
    while (this.#inFlight < MAX_IN_FLIGHT) {
      const next = this.#queues.read.shift() ??
        (this.#writesInFlight < MAX_WRITES_IN_FLIGHT ? this.#queues.write.shift() : undefined);
      if (next === undefined) return;
      this.#inFlight++;
      if (next.lane === "write") this.#writesInFlight++;
      next.start();
    }
  }

  #leave(lane: Lane): void {
    this.#inFlight--;
    if (lane === "write") this.#writesInFlight--;
    this.#pump();
  }

  #remove(waiting: Waiting): void {
    const queue = this.#queues[waiting.lane];
    const index = queue.indexOf(waiting);
    if (index !== -1) queue.splice(index, 1);
  }
}

function timeout(
  context: ErrorContext,
  why: string,
  outcome: "not-sent" | "unknown",
  cause?: unknown,
): ArrayError {
  return new ArrayError("timeout", `${doingOf(context)}: ${why}`, {
    outcome,
    method: context.method,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The end of the session as the failure of a call that was not sent. */
function ended(end: ArrayError, context: ErrorContext): ArrayError {
  return new ArrayError(end.code, `${doingOf(context)}: ${end.message}`, {
    outcome: "not-sent",
    method: context.method,
    cause: end,
    ...(end.hint === undefined ? {} : { hint: end.hint }),
    ...(end.reason === undefined ? {} : { reason: end.reason }),
  });
}
