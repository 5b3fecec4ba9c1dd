/** A REST session that is open: its calls and its jobs, each call an exchange of its own. */
import * as v from "valibot";
import type { Endpoint } from "./address.ts";
import { type CallOptions, READ_DEADLINE_MS, WRITE_DEADLINE_MS } from "./caller.ts";
import type { Release } from "./dialect.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";
import { checked } from "./request.ts";
import { type RestCall, restCall } from "./rest_calls.ts";
import { fromRestAnswer, notJson } from "./rest_errors.ts";
import { notAsked } from "./rest_filters.ts";
import { bulkByHand, jobResult } from "./rest_jobs.ts";
import { Lanes, type Place } from "./rest_lanes.ts";
import type { Session, SessionOptions } from "./session.ts";
import { type HttpAnswer, Https } from "./socket_https.ts";

const CONNECT_DEADLINE_MS = 10_000;
/** The server takes bodies of 1 MiB (`client_max_size` of aiohttp's `web.Application`). */
const MAX_REQUEST = 1024 * 1024;
/** A call that nobody waits for any more is given this long to end by itself. */
const LONGEST_EXCHANGE_MS = WRITE_DEADLINE_MS;

/** The calls and jobs of one key at one address. */
export class RestSession implements Session {
  readonly address: string;
  readonly #options: SessionOptions;
  readonly #https: Https;
  readonly #lanes: Lanes;
  readonly #closed = Promise.withResolvers<ArrayError>();
  #release: Release | undefined;
  #open = true;

  constructor(endpoint: Endpoint, options: SessionOptions) {
    this.address = endpoint.text;
    this.#options = options;
    this.#lanes = new Lanes(options.clock, options.maxQueued);
    this.#https = new Https({
      endpoint,
      trust: options.trust ?? { kind: "verified" },
      connectDeadlineMs: options.connectDeadlineMs ?? CONNECT_DEADLINE_MS,
      clock: options.clock,
    });
  }

  get release(): Release {
    if (this.#release === undefined) throw new Error("the release is not known yet");
    return this.#release;
  }

  set release(release: Release) {
    this.#release = release;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get closed(): Promise<ArrayError> {
    return this.#closed.promise;
  }

  async call(
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> {
    const context = options.doing === undefined ? { method } : { method, doing: options.doing };
    const request = restCall(method, params);
    if (request === undefined) throw notOverRest(context);
    if (request.body !== undefined && request.body.length > MAX_REQUEST) {
      throw new ArrayError(
        "invalid",
        `${
          doingOf(context)
        }: the request has ${request.body.length} characters, TrueNAS takes ${MAX_REQUEST}`,
        { outcome: "not-sent", method },
      );
    }
    try {
      const answer = await this.#lanes.run(
        (place) => this.#exchange(request, context, place),
        context,
        options,
      );
      const wrong = request.verb === "GET" ? notAsked(answer, params[0], params[1]) : undefined;
      if (wrong === undefined) return answer;
      throw new ArrayError(
        "array-fault",
        `${doingOf(context)}: TrueNAS answered something else than was asked: ${wrong}`,
        {
          outcome: "answered",
          method,
          hint:
            "A proxy between here and TrueNAS may drop the body of GET requests: connect without it, or set tnb-api-transport ws",
        },
      );
    } catch (error) {
      this.#judge(error);
      throw error;
    }
  }

  async callJob(
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> {
    const { clock } = this.#options;
    const whole = options.deadlineMs ??
      (options.lane === "read" ? READ_DEADLINE_MS : WRITE_DEADLINE_MS);
    const end = clock.monotonicMs() + whole;
    const left = () => ({ ...options, deadlineMs: Math.max(1, end - clock.monotonicMs()) });
    const call = (name: string, args: readonly unknown[], more: CallOptions = {}) =>
      this.call(name, args, { ...left(), ...more });
    if (method === "core.bulk") return await bulkByHand(params, call);
    const context = options.doing === undefined ? { method } : { method, doing: options.doing };
    const id = await call(method, params);
    return await jobResult(
      checked(v.number(), id, { method, params, doing: doingOf(context) }),
      context,
      { call, clock, left: () => end - clock.monotonicMs(), signal: options.signal },
    );
  }

  subscribe(collection: string): Promise<() => Promise<void>> {
    return Promise.reject(
      notOverRest({
        method: "core.subscribe",
        doing: `Cannot follow the changes of "${collection}"`,
      }),
    );
  }

  close(): void {
    this.#end(
      new ArrayError("unreachable", "Cannot go on: the session was closed by tnblock", {
        outcome: "unknown",
      }),
    );
    this.#https.close();
  }

  /** What the failure of one call means for those to come. */
  #judge(error: unknown): void {
    if (!(error instanceof ArrayError)) return;
    // Nobody is there, or no longer who they were, or no longer knows us: another session may help.
    const noConnection = error.outcome === "not-sent" &&
      (error.code === "unreachable" || error.code === "tls");
    if (noConnection || error.code === "auth") this.#end(error);
  }

  #end(error: ArrayError): void {
    if (!this.#open) return;
    this.#open = false;
    this.#lanes.end(error);
    this.#https.retire();
    this.#closed.resolve(error);
  }

  async #exchange(
    request: RestCall,
    context: ErrorContext,
    place: Place,
  ): Promise<unknown> {
    let answer: HttpAnswer;
    try {
      answer = await this.#https.exchange({
        method: request.verb,
        path: `/api/v2.0/${request.path}`,
        headers: { authorization: `Bearer ${this.#options.apiKey}` },
        ...(request.body === undefined ? {} : { body: request.body }),
      }, { deadlineMs: LONGEST_EXCHANGE_MS, maySend: place.maySend });
    } catch (error) {
      throw error instanceof ArrayError ? during(error, context) : error;
    }
    // Whatever stands there, the key is not repeated.
    const text = answer.text.replaceAll(this.#options.apiKey, "********");
    if (answer.status !== 200) throw fromRestAnswer({ ...answer, text }, context);
    if (answer.contentType !== "application/json") throw notJson(context);
    try {
      return JSON.parse(text);
    } catch {
      throw notJson(context);
    }
  }
}

function notOverRest(context: ErrorContext): ArrayError {
  return new ArrayError(
    "unsupported",
    `${doingOf(context)}: the REST API has no "${context.method}"`,
    { outcome: "not-sent", method: context.method, hint: "Set tnb-api-transport ws" },
  );
}

/** A failure of the connection as the failure of one call. */
function during(error: ArrayError, context: ErrorContext): ArrayError {
  return new ArrayError(error.code, `${doingOf(context)}: ${error.message}`, {
    outcome: error.outcome,
    method: context.method,
    cause: error,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.reason === undefined ? {} : { reason: error.reason }),
  });
}
