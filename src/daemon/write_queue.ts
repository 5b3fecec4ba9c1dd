/**
 * The order of the writes on one array. Each write to iSCSI or NVMe-oF ends in a reload of its service,
 * and the array does one at a time: more of them at once would only wait in its lock, holding places of the
 * session and time of their deadlines. So they wait here, where a caller who gives up takes his write back
 * unsent. Storages that share the array get their turns in rotation.
 */
import { READ_DEADLINE_MS, WRITE_DEADLINE_MS } from "../truenas/caller.ts";
import { after, type WaitingClock } from "../truenas/clock.ts";
import { ArrayError, doingOf, type ErrorContext } from "../truenas/errors.ts";

/** What the array does one thing after the other in; ZFS has a few places. */
export type WriteService = "iscsi" | "nvmet" | "zfs" | "other";

/** Writes of a service at once: 25.x has 5 processes for ZFS, of which one is left to others. */
const PLACES: Readonly<Record<WriteService, number>> = { iscsi: 1, nvmet: 1, zfs: 4, other: 1 };

/** Writes that may wait, all services together: a clone burst of all guests of a node fits. */
const MOST = 512;

/** What a write is and how it is bound. */
export interface WriteTicket {
  readonly service: WriteService;
  /** Whose it is: a storage. */
  readonly owner: string;
  readonly context: ErrorContext;
  /** How long it may wait to be sent. */
  readonly sendBy: { readonly deadlineMs: number; readonly signal?: AbortSignal };
  /** How long the caller waits for the answer, from the moment that it was sent. */
  readonly answerBy: { readonly deadlineMs: number; readonly signal?: AbortSignal };
}

/** A write whose turn it is. */
export interface Turn {
  /** Said right before it is sent; false when the caller has gone: then it must not be. */
  send(): boolean;
}

interface Waiting {
  readonly ticket: WriteTicket;
  begin(): void;
  refuse(error: ArrayError): void;
}

/** The service that a write goes to. */
export function serviceOf(method: string, params: readonly unknown[]): WriteService {
  if (method === "core.bulk" && typeof params[0] === "string") return serviceOf(params[0], []);
  // Sets properties of the zvol and saves a row; it reloads nothing (`iscsi_/extents.py`).
  if (method === "iscsi.extent.create") return "zfs";
  if (method.startsWith("iscsi.")) return "iscsi";
  if (method.startsWith("nvmet.")) return "nvmet";
  return /^(pool|zfs)\./.test(method) ? "zfs" : "other";
}

/** The writes of one array. */
export class WriteQueue {
  readonly #clock: WaitingClock;
  readonly #most: number;
  /** By service, then by owner in the order of their turns. */
  readonly #waiting: Readonly<Record<WriteService, Map<string, Waiting[]>>> = {
    iscsi: new Map(),
    nvmet: new Map(),
    zfs: new Map(),
    other: new Map(),
  };
  readonly #running: Record<WriteService, number> = { iscsi: 0, nvmet: 0, zfs: 0, other: 0 };
  #length = 0;
  #end: ArrayError | undefined;

  constructor(clock: WaitingClock, most: number = MOST) {
    this.#clock = clock;
    this.#most = most;
  }

  /** Writes that wait, by service. */
  queued(): Record<WriteService, number> {
    const count = (service: WriteService) =>
      [...this.#waiting[service].values()].reduce((sum, { length }) => sum + length, 0);
    return {
      iscsi: count("iscsi"),
      nvmet: count("nvmet"),
      zfs: count("zfs"),
      other: count("other"),
    };
  }

  /** Writes whose turn it is, those included whose callers have gone. */
  get writing(): number {
    return Object.values(this.#running).reduce((sum, count) => sum + count, 0);
  }

  /**
   * Does `work` when it is its turn. A write that was sent keeps its place until it ends, also when its
   * caller has gone, because the array is still at it.
   *
   * @throws ArrayError what `work` throws; `busy` when too many wait; `timeout` with the outcome `not-sent`
   *   or, once it was sent, `unknown`.
   */
  run<T>(ticket: WriteTicket, work: (turn: Turn) => Promise<T>): Promise<T> {
    const { context, sendBy, answerBy } = ticket;
    const refusal = this.#refusal(ticket);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      let sent = false;
      let over = false;
      let unbind = () => {};
      const settle = (act: () => void) => {
        if (over) return;
        over = true;
        unbind();
        act();
      };
      const giveUp = (why: string, cause?: unknown) => {
        this.#remove(waiting);
        const outcome = sent ? "unknown" : "not-sent";
        settle(() => reject(failure("timeout", context, why, outcome, cause)));
      };
      const bind = (bounds: WriteTicket["sendBy"], what: string) => {
        const { signal, deadlineMs } = bounds;
        const onAbort = () => giveUp("the caller gave up", signal?.reason);
        const stop = after(
          this.#clock,
          deadlineMs,
          () => giveUp(`${what} within ${Math.round(deadlineMs)} ms`),
        );
        signal?.addEventListener("abort", onAbort, { once: true });
        unbind = () => {
          stop();
          signal?.removeEventListener("abort", onAbort);
        };
        if (signal?.aborted) onAbort();
      };
      const send = () => {
        if (!over && !sent) {
          sent = true;
          unbind();
          bind(answerBy, "no answer");
        }
        return !over;
      };
      const waiting: Waiting = {
        ticket,
        begin: () => {
          work({ send }).then(
            (result) => settle(() => resolve(result)),
            (error) => settle(() => reject(error)),
          ).finally(() => this.#leave(ticket.service));
        },
        refuse: (error) => settle(() => reject(error)),
      };
      bind(sendBy, "it was not its turn");
      if (over) return;
      this.#add(waiting);
      this.#pump(ticket.service);
    });
  }

  /** Nothing gets its turn any more; what runs goes on. */
  end(error: ArrayError): void {
    this.#end ??= error;
    for (const owners of Object.values(this.#waiting)) {
      const all = [...owners.values()].flat();
      owners.clear();
      this.#length -= all.length;
      for (const waiting of all) {
        waiting.refuse(
          failure(error.code, waiting.ticket.context, error.message, "not-sent", error),
        );
      }
    }
  }

  #refusal({ context, sendBy }: WriteTicket): ArrayError | undefined {
    if (this.#end !== undefined) {
      return failure(this.#end.code, context, this.#end.message, "not-sent", this.#end);
    }
    if (sendBy.signal?.aborted) {
      const { reason } = sendBy.signal;
      return failure("timeout", context, "the caller gave up", "not-sent", reason);
    }
    if (this.#length < this.#most) return undefined;
    return failure("busy", context, `${this.#most} writes are waiting already`, "not-sent");
  }

  #add(waiting: Waiting): void {
    const owners = this.#waiting[waiting.ticket.service];
    const own = owners.get(waiting.ticket.owner);
    if (own === undefined) owners.set(waiting.ticket.owner, [waiting]);
    else own.push(waiting);
    this.#length++;
  }

  #remove(waiting: Waiting): void {
    const { service, owner } = waiting.ticket;
    const own = this.#waiting[service].get(owner);
    const index = own?.indexOf(waiting) ?? -1;
    if (own === undefined || index === -1) return;
    own.splice(index, 1);
    if (own.length === 0) this.#waiting[service].delete(owner);
    this.#length--;
  }

  /** The next write: the oldest of the owner whose turn it is, who then stands last. */
  #next(service: WriteService): Waiting | undefined {
    const owners = this.#waiting[service];
    const [first] = owners;
    if (first === undefined) return undefined;
    const [owner, own] = first;
    const next = own.shift();
    owners.delete(owner);
    if (own.length > 0) owners.set(owner, own);
    this.#length--;
    return next;
  }

  #pump(service: WriteService): void {
    while (this.#running[service] < PLACES[service]) {
      const next = this.#next(service);
      if (next === undefined) return;
      this.#running[service]++;
      next.begin();
    }
  }

  #leave(service: WriteService): void {
    this.#running[service]--;
    this.#pump(service);
  }
}

/** The bounds that a call has by its options, as the session itself would take them. */
export function answerBounds(
  options: { deadlineMs?: number; signal?: AbortSignal; lane?: "read" | "write" },
): { deadlineMs: number; signal?: AbortSignal } {
  const longest = options.lane === "write" ? WRITE_DEADLINE_MS : READ_DEADLINE_MS;
  return {
    deadlineMs: options.deadlineMs ?? longest,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
}

function failure(
  code: ArrayError["code"],
  context: ErrorContext,
  why: string,
  outcome: "not-sent" | "unknown",
  cause?: unknown,
): ArrayError {
  return new ArrayError(code, `${doingOf(context)}: ${why}`, {
    outcome,
    method: context.method,
    ...(cause === undefined ? {} : { cause }),
  });
}
