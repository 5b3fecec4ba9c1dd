/**
 * The session that a link gives out: everybody's, so its writes wait for each other, and what was lost
 * before it was sent, or refused because the array had forgotten who we are, goes to the link's next session.
 */
import { asTnblockError } from "../common/error.ts";
import type { Bounds } from "../host/host.ts";
import type { CallOptions } from "../truenas/caller.ts";
import { LONGEST_WRITE_MS } from "../truenas/caller.ts";
import type { Release } from "../truenas/dialect.ts";
import { ArrayError, doingOf, type ErrorContext } from "../truenas/errors.ts";
import { refuseOtherRelease } from "../truenas/release_changed.ts";
import type { ArrayEvent, Session } from "../truenas/session.ts";
import { answerBounds, serviceOf, type Turn, type WriteQueue } from "./write_queue.ts";

/** What a session needs of its link. */
export interface SessionSource {
  readonly writes: WriteQueue;
  /** The open session; waits for it within the bounds. */
  current(bounds: Bounds): Promise<Session>;
  /** The array has forgotten who we are on this session: nobody shall use it any more. */
  forgotten(session: Session, error: ArrayError): void;
  /** A call goes out. */
  calling(): void;
  /** The array has answered a call. */
  answered(session: Session): void;
}

/** What a session is asked to do: a call or a job. */
type Act = (session: Session, options: CallOptions) => Promise<unknown>;

/** One session as those who share it see it. */
export class LinkSession implements Session {
  readonly #inner: Session;
  readonly #source: SessionSource;

  constructor(inner: Session, source: SessionSource) {
    this.#inner = inner;
    this.#source = source;
  }

  get release(): Release {
    return this.#inner.release;
  }

  get address(): string {
    return this.#inner.address;
  }

  get isOpen(): boolean {
    return this.#inner.isOpen;
  }

  get closed(): Promise<ArrayError> {
    return this.#inner.closed;
  }

  get heardMs(): number | undefined {
    return this.#inner.heardMs;
  }

  call(method: string, params: readonly unknown[], options: CallOptions = {}): Promise<unknown> {
    return this.#perform(
      method,
      params,
      options,
      (session, own) => session.call(method, params, own),
    );
  }

  callJob(
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> {
    return this.#perform(
      method,
      params,
      options,
      (session, own) => session.callJob(method, params, own),
    );
  }

  /** Events are those of this very session: after it whoever listens subscribes anew. */
  async subscribe(
    collection: string,
    listener: (event: ArrayEvent) => void,
    options?: CallOptions,
  ): Promise<() => Promise<void>> {
    this.#source.calling();
    try {
      return await this.#inner.subscribe(collection, listener, options);
    } catch (error) {
      if (isForgotten(error)) this.#source.forgotten(this.#inner, error);
      throw error;
    }
  }

  /** Nothing: the session is not this caller's alone. */
  close(): void {}

  #perform(
    method: string,
    params: readonly unknown[],
    options: CallOptions,
    act: Act,
  ): Promise<unknown> {
    const { sendBy, owner, ...own } = options;
    const context: ErrorContext = own.doing === undefined
      ? { method }
      : { method, doing: own.doing };
    const answerBy = answerBounds(own);
    if (own.lane !== "write") {
      return this.#send(context, answerBy, (session) => act(session, own), () => true);
    }
    const { signal: _, ...unbound } = own;
    const longest = { ...unbound, deadlineMs: LONGEST_WRITE_MS };
    const ticket = {
      service: serviceOf(method, params),
      owner: owner ?? "",
      context,
      sendBy: sendBy ?? answerBy,
      answerBy,
    };
    return this.#source.writes.run(
      ticket,
      (turn: Turn) =>
        this.#send(context, ticket.sendBy, (session) => act(session, longest), () => turn.send()),
    );
  }

  /** Sends it, at most twice: the second time when the first was certainly not carried out. */
  async #send(
    context: ErrorContext,
    bounds: Bounds,
    act: (session: Session) => Promise<unknown>,
    maySend: () => boolean,
  ): Promise<unknown> {
    const once = async (session: Session): Promise<unknown> => {
      if (!maySend()) throw notSent(context, "the caller gave up");
      this.#source.calling();
      try {
        const result = await act(session);
        this.#source.answered(session);
        return result;
      } catch (error) {
        if (isForgotten(error)) this.#source.forgotten(session, error);
        else if (error instanceof ArrayError && error.outcome === "answered") {
          this.#source.answered(session);
        }
        throw error;
      }
    };
    const first = this.#inner.isOpen ? this.#inner : await this.#next(context, bounds);
    try {
      return await once(first);
    } catch (error) {
      if (!isNotDone(error, first)) throw error;
      return await once(await this.#next(context, bounds));
    }
  }

  /** The link's next session; one of another release is not for what was decided for this one. */
  async #next(context: ErrorContext, bounds: Bounds): Promise<Session> {
    let next: Session;
    try {
      next = await this.#source.current(bounds);
    } catch (cause) {
      const error = asTnblockError(cause);
      throw new ArrayError(error.code, `${doingOf(context)}: ${error.message}`, {
        outcome: "not-sent",
        method: context.method,
        cause: error,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        ...(error.field === undefined ? {} : { field: error.field }),
      });
    }
    refuseOtherRelease(this.release, next.release, context);
    return next;
  }
}

/** The array has forgotten the login (30 days, a restart of its middleware): it carried nothing out. */
export function isForgotten(error: unknown): error is ArrayError {
  return error instanceof ArrayError && error.code === "auth" && error.outcome !== "unknown";
}

/** Whether a call was certainly not carried out because of its session, not because of itself. */
function isNotDone(error: unknown, session: Session): boolean {
  if (isForgotten(error)) return true;
  return error instanceof ArrayError && error.outcome === "not-sent" &&
    error.code === "unreachable" && !session.isOpen;
}

function notSent(context: ErrorContext, why: string): ArrayError {
  return new ArrayError("timeout", `${doingOf(context)}: ${why}`, {
    outcome: "not-sent",
    method: context.method,
  });
}
