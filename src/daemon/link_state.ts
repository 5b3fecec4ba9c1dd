/** What a link is doing, as others see it, and what it decides by the clock. All pure. */
import { type ErrorCode, TnblockError } from "../common/error.ts";
import type { WriteService } from "./write_queue.ts";

/**
 * `idle`: nobody needs it. `connecting`: a try is under way. `up`: there is a session. `down`: it waits for the
 * next try.
 */
export type LinkKind = "idle" | "connecting" | "up" | "down";

/** A link as `tnblock status` and the memories see it. Nothing in it is secret. */
export interface LinkState {
  readonly kind: LinkKind;
  /**
   * Since when it has been up; or since when it has not been, whatever was tried meanwhile. A time of the
   * node's monotonic clock.
   */
  readonly sinceMs: number;
  /** Where it is connected to, or was last. */
  readonly address?: string;
  /** The array's release, as it says it; of the last session. */
  readonly release?: string;
  /** Of the last session; undefined where the array does not tell (25.04). */
  readonly bootId?: string;
  /** What the last try failed with, or the last session ended with; undefined when up. */
  readonly error?: { readonly code: ErrorCode; readonly message: string; readonly hint?: string };
  /** When the next try begins, by the monotonic clock; only when down. */
  readonly nextTryMs?: number;
  /** Logins tried since the start. */
  readonly logins: number;
  /** Sessions opened since the start. */
  readonly sessions: number;
  /** Calls sent since the start. */
  readonly calls: number;
  /** Writes that wait for their turn, by service. */
  readonly queued: Readonly<Record<WriteService, number>>;
  /** Writes that the array is at work on. */
  readonly writing: number;
}

/** The times that a link goes by, in milliseconds. */
export interface LinkTimes {
  /** A session on which nothing was answered for so long is asked who it is. */
  readonly healthEveryMs: number;
  /** A link that nobody keeps, and that no request used for so long, is closed. */
  readonly idleMs: number;
  /** A session that lived shorter did not prove that the array is well: the back-off goes on. */
  readonly stableMs: number;
  /** A request gives an array that is known to be away no more than this. */
  readonly patienceMs: number;
}

export const LINK_TIMES: LinkTimes = {
  // TrueNAS ends a session after 30 days without closing its socket: only a call that needs a login finds out.
  healthEveryMs: 60_000,
  idleMs: 600_000,
  stableMs: 30_000,
  // Guests start without the API, disk after disk: each waits for this long at worst.
  patienceMs: 5_000,
};

/** What waiting for a session depends on. */
export interface Waiting {
  /** Tries that failed since there was a session, or since somebody asked for the first. */
  readonly failedTries: number;
  /** Milliseconds until the next try begins; 0 while one is under way. */
  readonly nextInMs: number;
  /** How long the last try took; 0 while one is under way. */
  readonly takesMs: number;
  /** What the request has left. */
  readonly leftMs: number;
}

/** For how long a request waits for a session; 0 when it is told the last failure at once. */
export function waitForSession(waiting: Waiting, times: LinkTimes): number {
  const { failedTries, nextInMs, takesMs, leftMs } = waiting;
  const patience = failedTries === 0 ? leftMs : Math.min(leftMs, times.patienceMs);
  return failedTries > 0 && nextInMs + takesMs > patience ? 0 : patience;
}

/**
 * Why an array is known not to answer; undefined while there is a session, none was wanted, or it has been without
 * one for so short that the next try may have it. What the array said itself (a key that it refuses, a lock-out) and
 * a certificate that is not its own are no absence.
 *
 * @param nowMs by the monotonic clock.
 */
export function whyAway(
  state: Pick<LinkState, "kind" | "sinceMs" | "error">,
  patienceMs: number,
  nowMs: number,
): TnblockError | undefined {
  const { kind, sinceMs, error } = state;
  if (kind === "up" || kind === "idle" || error === undefined) return undefined;
  if (error.code !== "unreachable" && error.code !== "timeout") return undefined;
  if (nowMs - sinceMs < patienceMs) return undefined;
  const { code, message, hint } = error;
  return new TnblockError(code, message, hint === undefined ? {} : { hint });
}

/** What deciding about a session that is up depends on; times of the monotonic clock. */
export interface UpSession {
  readonly nowMs: number;
  /** When the array last answered anything on it. */
  readonly answeredMs: number;
  /** When its health was last asked for. */
  readonly askedMs: number;
  /** When a request last used the link. */
  readonly usedMs: number;
  /** Whether somebody needs it kept, or writes are under way. */
  readonly isKept: boolean;
}

/** What is to be done about a session that is up. */
export type Upkeep =
  | { readonly do: "close" }
  | { readonly do: "ask" }
  | { readonly do: "wait"; readonly ms: number };

export function decideUpkeep(up: UpSession, times: LinkTimes): Upkeep {
  const idleIn = up.usedMs + times.idleMs - up.nowMs;
  if (!up.isKept && idleIn <= 0) return { do: "close" };
  const askIn = Math.max(up.answeredMs, up.askedMs) + times.healthEveryMs - up.nowMs;
  if (askIn <= 0) return { do: "ask" };
  // Somebody who keeps it may stop to.
  return { do: "wait", ms: idleIn > 0 ? Math.min(askIn, idleIn) : askIn };
}

/**
 * Whether the array may have been rebooted between two sessions: whatever was remembered of it is to be read
 * again, and events were lost. Without boot ids nobody knows.
 */
export function isReboot(
  before: { readonly bootId: string | undefined } | undefined,
  bootId: string | undefined,
): boolean {
  return before !== undefined && (bootId === undefined || bootId !== before.bootId);
}
