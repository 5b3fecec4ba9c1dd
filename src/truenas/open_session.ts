/** A session that is open: its calls, its jobs and its events, over one connection. */
import * as v from "valibot";
import type { Endpoint } from "./address.ts";
import { type CallOptions, READ_DEADLINE_MS, WRITE_DEADLINE_MS } from "./caller.ts";
import type { WaitingClock } from "./clock.ts";
import type { Release } from "./dialect.ts";
import { ArrayError } from "./errors.ts";
import { JobWatch } from "./jobs.ts";
import { checked } from "./request.ts";
import type { Rpc } from "./rpc.ts";
import type { ArrayEvent, Session } from "./session.ts";

const updateSchema = v.looseObject({
  collection: v.string(),
  msg: v.optional(v.string()),
  id: v.optional(v.union([v.string(), v.number()])),
  fields: v.optional(v.unknown()),
});

/** The calls, jobs and events of one connection that is logged in. */
export class OpenSession implements Session {
  readonly release: Release;
  readonly address: string;
  readonly #rpc: Rpc;
  readonly #clock: WaitingClock;
  #jobs: Promise<JobWatch> | undefined;

  constructor(rpc: Rpc, endpoint: Endpoint, release: Release, clock: WaitingClock) {
    this.#rpc = rpc;
    this.address = endpoint.text;
    this.release = release;
    this.#clock = clock;
  }

  get isOpen(): boolean {
    return this.#rpc.isOpen;
  }

  get closed(): Promise<ArrayError> {
    return this.#rpc.closed;
  }

  get heardMs(): number {
    return this.#rpc.heardMs;
  }

  async call(
    method: string,
    params: readonly unknown[],
    options?: CallOptions,
  ): Promise<unknown> {
    try {
      return await this.#rpc.call(method, params, options);
    } catch (error) {
      // The array has forgotten who we are: this session is of no more use to others.
      if (error instanceof ArrayError && error.code === "auth") this.#rpc.retire(error);
      throw error;
    }
  }

  async callJob(
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> {
    if (this.release.can.jobResults) return await this.call(method, params, options);
    const started = this.#clock.monotonicMs();
    const deadlineMs = options.deadlineMs ??
      (options.lane === "read" ? READ_DEADLINE_MS : WRITE_DEADLINE_MS);
    const context = options.doing === undefined ? { method } : { method, doing: options.doing };
    const jobs = await this.#watchJobs();
    const answer = await this.call(method, params, { ...options, deadlineMs });
    const id = checked(v.number(), answer, { method, params, doing: options.doing ?? method });
    return await jobs.result(id, context, {
      deadlineMs: Math.max(1, deadlineMs - (this.#clock.monotonicMs() - started)),
      clock: this.#clock,
      ended: this.#rpc.closed,
      ...(options.signal ? { signal: options.signal } : {}),
    });
  }

  async subscribe(
    collection: string,
    listener: (event: ArrayEvent) => void,
    options?: CallOptions,
  ): Promise<() => Promise<void>> {
    // Listening begins before the array is asked: an event may overtake the answer.
    const stopListening = this.#rpc.onNotification((method, params) => {
      const event = eventOf(method, params);
      if (event?.collection === collection) listener(event);
    });
    try {
      const id = await this.call("core.subscribe", [collection], {
        doing: `Cannot follow the changes of "${collection}"`,
        ...options,
      });
      return async () => {
        stopListening();
        if (this.isOpen) await this.call("core.unsubscribe", [id], options);
      };
    } catch (error) {
      stopListening();
      throw error;
    }
  }

  close(): void {
    this.#rpc.close();
  }

  /** Follows the jobs from the first job on; a failed attempt is made again with the next job. */
  #watchJobs(): Promise<JobWatch> {
    this.#jobs ??= (async () => {
      const jobs = new JobWatch();
      const stop = this.#rpc.onNotification((_method, params) => jobs.notice(params));
      try {
        await this.call("core.subscribe", ["core.get_jobs"], {
          doing: "Cannot follow the jobs of TrueNAS",
        });
      } catch (error) {
        stop();
        this.#jobs = undefined;
        throw error;
      }
      return jobs;
    })();
    return this.#jobs;
  }
}

function eventOf(method: string, params: unknown): ArrayEvent | undefined {
  const update = v.safeParse(updateSchema, params);
  if (!update.success) return undefined;
  const { collection, msg, id, fields } = update.output;
  if (method === "notify_unsubscribed") {
    return { kind: "unsubscribed", collection, id: undefined, fields: undefined };
  }
  return { kind: msg ?? "", collection, id, fields };
}
