/**
 * JSON-RPC 2.0 over one socket: many calls at once, told apart by their ids.
 *
 * TrueNAS runs 10 calls of a connection at a time, holds 10 more and refuses the 21st
 * (`ws_handler/rpc.py`), so at most 8 are sent and the rest wait here, where a deadline can still
 * take them back. Two queues: reads go first, in their order, and at most 6 of the 8 may be writes.
 * A call whose deadline passes after it was sent keeps its place until it is answered: the array is
 * still at work on it.
 */
import { type CallOptions, type Lane, READ_DEADLINE_MS, WRITE_DEADLINE_MS } from "./caller.ts";
import { after, type WaitingClock } from "./clock.ts";
import { fromRpcError } from "./error_mapping.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";
import { parseMessage } from "./message.ts";
import type { Socket } from "./socket.ts";

/** What the server says without being asked: `method` is `collection_update`, as a rule. */
export type NotificationListener = (method: string, params: unknown) => void;

/** Limits and times; the defaults are right for TrueNAS, tests shrink them. */
export interface RpcOptions {
  readonly clock: WaitingClock;
  readonly maxInFlight?: number;
  readonly maxWritesInFlight?: number;
  /** Calls that may wait; one more is refused with `busy`. */
  readonly maxQueued?: number;
  /** Milliseconds between pings; nginx of 25.x hangs up after 60 s in which the server said nothing. */
  readonly pingEveryMs?: number;
}

/** Characters of a request that TrueNAS takes after the login, and before (`utils/limits.py`). */
const MAX_REQUEST = 65_536;
const MAX_ANONYMOUS_REQUEST = 8_192;

/** What was sent when the connection was retired has this long to be answered: longer than any reload. */
const RETIRED_MS = 300_000;

/** Four times what a read may take by default: its answer was lost. */
const ANSWER_LOST_MS = 60_000;

interface Pending {
  readonly id: number;
  readonly text: string;
  readonly lane: Lane;
  readonly context: ErrorContext;
  settled: boolean;
  sent: boolean;
  /** When it was sent, by the monotonic clock. */
  sentMs: number;
  resolve(result: unknown): void;
  reject(error: ArrayError): void;
}

/** Calls over one connection. */
export class Rpc {
  readonly #socket: Socket;
  readonly #clock: WaitingClock;
  readonly #limits: Required<Omit<RpcOptions, "clock">>;
  readonly #queues: Readonly<Record<Lane, Pending[]>> = { read: [], write: [] };
  readonly #inFlight = new Map<number, Pending>();
  readonly #listeners = new Set<NotificationListener>();
  readonly #closed = Promise.withResolvers<ArrayError>();
  #writesInFlight = 0;
  #nextId = 1;
  #authenticated = false;
  #end: ArrayError | undefined;
  #retired: ArrayError | undefined;
  #alive = true;
  #heardMs: number;
  #stopPing = () => {};

  constructor(socket: Socket, options: RpcOptions) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#heardMs = options.clock.monotonicMs();
    this.#limits = {
      maxInFlight: options.maxInFlight ?? 8,
      maxWritesInFlight: options.maxWritesInFlight ?? 6,
      maxQueued: options.maxQueued ?? 256,
      pingEveryMs: options.pingEveryMs ?? 25_000,
    };
    socket.listen({
      onText: (text) => this.#receive(text),
      onGarbage: (what) => this.#distrust(what),
      onPong: () => this.#hear(),
      onClosed: (error) => this.#die(error),
    });
    this.#schedulePing();
  }

  /** Resolves, with the reason, when the connection has ended. */
  get closed(): Promise<ArrayError> {
    return this.#closed.promise;
  }

  /** Whether it takes calls. */
  get isOpen(): boolean {
    return this.#end === undefined && this.#retired === undefined;
  }

  /** When the array last said anything, be it a pong; by the clock's `monotonicMs`. */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** From now on requests may have the full length. */
  setAuthenticated(): void {
    this.#authenticated = true;
  }

  /** Tells of every notification until the returned function is called. */
  onNotification(listener: NotificationListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Calls a method and gives its result.
   *
   * @throws ArrayError; its `outcome` says whether the array may have acted.
   */
  call(method: string, params: readonly unknown[], options: CallOptions = {}): Promise<unknown> {
    const context: ErrorContext = options.doing === undefined
      ? { method }
      : { method, doing: options.doing };
    const lane = options.lane ?? "read";
    const id = this.#nextId++;
    const text = JSON.stringify({ jsonrpc: "2.0", id, method, params });
    const refusal = this.#refusal(text, context, options.signal);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const deadlineMs = options.deadlineMs ??
        (lane === "read" ? READ_DEADLINE_MS : WRITE_DEADLINE_MS);
      const onAbort = () => this.#giveUp(pending, "the caller gave up", options.signal?.reason);
      const stop = after(this.#clock, deadlineMs, () =>
        this.#giveUp(
          pending,
          `${pending.sent ? "no answer" : "no free place"} within ${deadlineMs} ms`,
        ));
      const settle = (act: () => void) => {
        if (pending.settled) return;
        pending.settled = true;
        stop();
        options.signal?.removeEventListener("abort", onAbort);
        act();
      };
      const pending: Pending = {
        id,
        text,
        lane,
        context,
        settled: false,
        sent: false,
        sentMs: 0,
        resolve: (result) => settle(() => resolve(result)),
        reject: (error) => settle(() => reject(error)),
      };
      options.signal?.addEventListener("abort", onAbort, { once: true });
      this.#queues[lane].push(pending);
      this.#pump();
    });
  }

  /**
   * Takes no more calls, and ends the connection when what was sent has been answered: hanging up at once
   * would leave writes with an unknown outcome, and 26 stops them half-way.
   */
  retire(reason: ArrayError): void {
    if (!this.isOpen) return;
    this.#retired = reason;
    const waiting = [...this.#queues.read.splice(0), ...this.#queues.write.splice(0)];
    for (const pending of waiting) pending.reject(during(reason, pending.context, "not-sent"));
    if (this.#inFlight.size === 0) return this.#hangUp(reason);
    const stop = after(this.#clock, RETIRED_MS, () => this.#hangUp(reason));
    this.closed.then(stop);
  }

  /** Ends the connection; what was sent and not answered has the outcome `unknown`. */
  close(): void {
    this.#hangUp(
      new ArrayError("unreachable", "Cannot go on: the connection was closed by tnblock", {
        outcome: "unknown",
      }),
    );
  }

  #hangUp(reason: ArrayError): void {
    this.#socket.close();
    this.#die(reason);
  }

  /** A reason not to take a call on at all. */
  #refusal(
    text: string,
    context: ErrorContext,
    signal: AbortSignal | undefined,
  ): ArrayError | undefined {
    const details = { outcome: "not-sent" as const, method: context.method };
    const limit = this.#authenticated ? MAX_REQUEST : MAX_ANONYMOUS_REQUEST;
    const end = this.#end ?? this.#retired;
    if (end !== undefined) return during(end, context, "not-sent");
    if (signal?.aborted) {
      return new ArrayError("timeout", `${doingOf(context)}: the caller gave up`, {
        ...details,
        cause: signal.reason,
      });
    }
    if (text.length > limit) {
      return new ArrayError(
        "invalid",
        `${doingOf(context)}: the request has ${text.length} characters, TrueNAS takes ${limit}`,
        details,
      );
    }
    if (this.#queues.read.length + this.#queues.write.length >= this.#limits.maxQueued) {
      return new ArrayError(
        "busy",
        `${doingOf(context)}: ${this.#limits.maxQueued} calls are waiting already`,
        details,
      );
    }
    return undefined;
  }

  #pump(): void {
    while (this.#end === undefined && this.#inFlight.size < this.#limits.maxInFlight) {
      const next = this.#queues.read.shift() ??
        (this.#writesInFlight < this.#limits.maxWritesInFlight
          ? this.#queues.write.shift()
          : undefined);
      if (next === undefined) return;
      next.sent = true;
      next.sentMs = this.#clock.monotonicMs();
      this.#inFlight.set(next.id, next);
      if (next.lane === "write") this.#writesInFlight++;
      this.#socket.send(next.text);
    }
  }

  #giveUp(pending: Pending, why: string, cause?: unknown): void {
    const queue = this.#queues[pending.lane];
    const index = queue.indexOf(pending);
    if (index !== -1) queue.splice(index, 1);
    pending.reject(
      new ArrayError("timeout", `${doingOf(pending.context)}: ${why}`, {
        outcome: pending.sent ? "unknown" : "not-sent",
        method: pending.context.method,
        cause,
      }),
    );
  }

  /**
   * Whether a read that nobody waits for any more keeps its place for an answer that will hardly come: with eight of
   * them the connection would be of no use, and look well. Never while a write is under way: 26 would cancel it.
   */
  #isAnswerLost(): boolean {
    const sentBefore = this.#clock.monotonicMs() - ANSWER_LOST_MS;
    return this.#writesInFlight === 0 &&
      [...this.#inFlight.values()].some((pending) =>
        pending.settled && pending.lane === "read" && pending.sentMs <= sentBefore
      );
  }

  #hear(): void {
    this.#alive = true;
    this.#heardMs = this.#clock.monotonicMs();
  }

  #receive(text: string): void {
    this.#hear();
    const message = parseMessage(text);
    if (message === undefined) return this.#distrust("a message that is no JSON-RPC");
    if (message.kind === "notification") {
      return this.#notify(message.method, message.params);
    }
    // An answer to nothing we can name: the server could not read one of our requests.
    if (message.id === null) return this.#distrust("an answer without an id");
    const pending = this.#inFlight.get(message.id);
    if (pending === undefined) return;
    this.#inFlight.delete(message.id);
    if (pending.lane === "write") this.#writesInFlight--;
    if (message.kind === "error") pending.reject(fromRpcError(message.error, pending.context));
    else pending.resolve(message.result);
    if (this.#retired !== undefined && this.#inFlight.size === 0) {
      return this.#hangUp(this.#retired);
    }
    this.#pump();
  }

  /** A listener's defect must be seen, and must not end the process from within the socket's event. */
  #notify(method: string, params: unknown): void {
    try {
      for (const listener of this.#listeners) listener(method, params);
    } catch (error) {
      this.#die(
        new ArrayError("internal", "Cannot go on with TrueNAS: an event could not be taken in", {
          outcome: "unknown",
          cause: error,
        }),
      );
      this.#socket.terminate();
    }
  }

  /** What cannot be understood may have been an answer: nobody should wait for it until its deadline. */
  #distrust(what: string): void {
    this.#die(
      new ArrayError("array-fault", `Cannot go on with TrueNAS: it sent ${what}`, {
        outcome: "unknown",
      }),
    );
    this.#socket.terminate();
  }

  #die(error: ArrayError): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    this.#stopPing();
    const waiting = [...this.#queues.read.splice(0), ...this.#queues.write.splice(0)];
    const sent = [...this.#inFlight.values()];
    this.#inFlight.clear();
    for (const pending of sent) pending.reject(during(error, pending.context, "unknown"));
    for (const pending of waiting) pending.reject(during(error, pending.context, "not-sent"));
    this.#listeners.clear();
    this.#closed.resolve(error);
  }

  /** Pings, and hangs up when neither a pong nor anything else came since the last one. */
  #schedulePing(): void {
    this.#stopPing = after(this.#clock, this.#limits.pingEveryMs, () => {
      if (!this.#alive) {
        this.#die(
          new ArrayError(
            "unreachable",
            `Cannot go on with TrueNAS: it has been silent for ${this.#limits.pingEveryMs} ms`,
            { outcome: "unknown" },
          ),
        );
        return this.#socket.terminate();
      }
      if (this.#isAnswerLost()) {
        this.#die(
          new ArrayError(
            "unreachable",
            `Cannot go on with TrueNAS: it has not answered a read for ${ANSWER_LOST_MS} ms`,
            { outcome: "unknown" },
          ),
        );
        return this.#socket.terminate();
      }
      this.#alive = false;
      this.#socket.ping();
      this.#schedulePing();
    });
  }
}

/** The end of a connection as the failure of one call. */
function during(
  end: ArrayError,
  context: ErrorContext,
  outcome: "not-sent" | "unknown",
): ArrayError {
  return new ArrayError(end.code, `${doingOf(context)}: ${end.message}`, {
    outcome,
    method: context.method,
    cause: end,
    ...(end.hint === undefined ? {} : { hint: end.hint }),
    ...(end.reason === undefined ? {} : { reason: end.reason }),
  });
}
