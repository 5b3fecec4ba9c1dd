/**
 * How far a memory can be believed: pure functions of when the array last answered, and what has kept it
 * from answering since.
 */
import type { ErrorCode, TnblockError } from "../common/error.ts";

/** Milliseconds after which what was remembered, and not confirmed since, is an answer no more. */
export const TRUST_MS = 60_000;

/** What is known of the array. Times in milliseconds of a clock that never jumps. */
export interface Contact {
  /** When the memory began. */
  readonly startedMs: number;
  /** When everything was last read; undefined before the first time. */
  readonly readMs: number | undefined;
  /** When the array last said anything on its session; undefined where that is not known (REST). */
  readonly heardMs: number | undefined;
  /** Whether the array tells of changes meanwhile. */
  readonly followed: boolean;
  /** How long after a read of everything the next one is due. */
  readonly periodMs: number;
  /** Since when, and why, the array does not answer: its last word, where that is known; undefined while it does. */
  readonly failing: { readonly sinceMs: number; readonly error: TnblockError } | undefined;
  /** The array's own word that the storage cannot be used: its dataset is gone, its pool is faulted. */
  readonly fault: TnblockError | undefined;
  /** Whether something was kept from before the start. */
  readonly kept: boolean;
}

/** What a memory is worth. */
export type Trust =
  /** The array agrees, or did so a moment ago; `ageMs` is how long it has not been known to. */
  | { readonly kind: "good"; readonly ageMs: number }
  /** From before the start: to be shown, while the array is being asked. */
  | { readonly kind: "kept" }
  | { readonly kind: "none"; readonly why: TnblockError | undefined };

/** Decides what a memory is worth now. */
export function decideTrust(contact: Contact, nowMs: number): Trust {
  const { readMs, failing, fault } = contact;
  if (fault !== undefined) return { kind: "none", why: fault };
  if (readMs === undefined) {
    return contact.kept && nowMs - contact.startedMs <= TRUST_MS
      ? { kind: "kept" }
      : { kind: "none", why: failing?.error };
  }
  // Until then the array was heard, or the next read had not failed yet: a line that goes dead does not say so.
  const untilMs = failing?.sinceMs ?? contact.heardMs ?? nowMs;
  // A read that is overdue without failing is stuck.
  if (untilMs - readMs > 2 * contact.periodMs + TRUST_MS) {
    return { kind: "none", why: failing?.error };
  }
  const lastMs = contact.followed ? untilMs : readMs;
  if (nowMs - untilMs > TRUST_MS) return { kind: "none", why: failing?.error };
  return { kind: "good", ageMs: nowMs - lastMs };
}

/** Of what kind a failure is: who can do something about it. */
export type FailureClass = "connectivity" | "configuration" | "unknown";

const CONNECTIVITY: readonly ErrorCode[] = ["unreachable", "timeout", "rate-limited", "busy"];
const CONFIGURATION: readonly ErrorCode[] = [
  "auth",
  "denied",
  "config",
  "tls",
  "not-found",
  "not-ours",
  "unsupported",
];

export function classOf(error: TnblockError): FailureClass {
  if (CONNECTIVITY.includes(error.code)) return "connectivity";
  return CONFIGURATION.includes(error.code) ? "configuration" : "unknown";
}
