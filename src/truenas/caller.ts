/** What every resource file needs of a session, and no more: the release and a way to call. */
import type { Release } from "./dialect.ts";

/**
 * Which queue a call waits in. Reads never wait behind queued writes; of the eight calls that may
 * run at once, at most six are writes, so that a row of slow writes leaves room for reads.
 */
export type Lane = "read" | "write";

/** How long a call may take, and who may end it. */
export interface CallOptions {
  /**
   * Milliseconds from now, the time in the queue included. Default: {@link READ_DEADLINE_MS} for
   * reads, {@link WRITE_DEADLINE_MS} for writes.
   */
  readonly deadlineMs?: number;
  /** Ends the wait for the answer; a call that was sent runs on at the array (outcome `unknown`). */
  readonly signal?: AbortSignal;
  readonly lane?: Lane;
  /** What the call is for, as an error says it: `Cannot create zvol "tank/pve/vm-1"`. */
  readonly doing?: string;
  /**
   * For how long a write may wait to be sent, where writes wait for each other (the daemon); that time is
   * not part of {@link deadlineMs}. Sessions of one request send at once and know nothing of it.
   */
  readonly sendBy?: { readonly deadlineMs: number; readonly signal?: AbortSignal };
  /** Whose write it is: those who share an array get their turns in rotation. */
  readonly owner?: string;
}

/** The options that a caller of a resource function chooses. */
export type Wait = Pick<CallOptions, "deadlineMs" | "signal">;

/** Reads answer within milliseconds; some walk all datasets of the box. */
export const READ_DEADLINE_MS = 15_000;

/**
 * Writes end in a reload that the array itself gives up after 120 s (`service.control`, option
 * `timeout`), and wait for the reloads before them.
 */
export const WRITE_DEADLINE_MS = 150_000;

/** After this a write is over at the array, whether anybody still waits for its answer or not. */
export const LONGEST_WRITE_MS = 300_000;

/** One side of a session: calls on a TrueNAS of a known release. */
export interface Caller {
  readonly release: Release;
  /**
   * Calls a method with positional parameters and gives its result.
   *
   * @throws ArrayError with `outcome` `not-sent`, `unknown` or `answered`.
   */
  call(method: string, params: readonly unknown[], options?: CallOptions): Promise<unknown>;
  /** Calls a job method and waits for the job's own result. */
  callJob(method: string, params: readonly unknown[], options?: CallOptions): Promise<unknown>;
}
