/** How long a link waits before it connects again. Pure. */
import type { ErrorCode } from "../common/error.ts";

/**
 * What a failure to connect is: the array is `away` and may be back at any moment; it `refused` us, and
 * somebody has to change something first; or it is `locked` for a while because of too many logins.
 */
export type FailureKind = "away" | "refused" | "locked";

/** The first pause after the array went away ... */
const AWAY_FIRST_MS = 250;
/** ... and the longest. */
const AWAY_LONGEST_MS = 30_000;
/** A refused login costs the array 1 to 2 s each, and counts: slowly. */
const REFUSED_FIRST_MS = 60_000;
const REFUSED_LONGEST_MS = 300_000;
/** TrueNAS counts logins in windows of 60 s, and those that it refuses too (`utils/rate_limit/cache.py`). */
export const LOCKED_MS = 60_000;
/** All nodes are locked out alike: they come back one after the other. */
const LOCKED_SPREAD_MS = 10_000;

const KIND_BY_CODE: Partial<Readonly<Record<ErrorCode, FailureKind>>> = {
  "rate-limited": "locked",
  auth: "refused",
  denied: "refused",
  config: "refused",
  tls: "refused",
  unsupported: "refused",
  invalid: "refused",
};

/** Of what kind a failure is, by its code. */
export function failureKind(code: ErrorCode): FailureKind {
  return KIND_BY_CODE[code] ?? "away";
}

/** What the pause depends on. */
export interface Pause {
  readonly kind: FailureKind;
  /** Failures in a row before this one. */
  readonly before: number;
  /** From 0 up to, not including, 1: nodes that lost one array at one moment come back spread. */
  readonly random: number;
  /** Milliseconds until the next login is allowed, when that is known. */
  readonly allowedInMs?: number;
}

/** Milliseconds until the next try. */
export function pauseMs({ kind, before, random, allowedInMs }: Pause): number {
  const doubled = (first: number, longest: number) =>
    Math.min(longest, first * 2 ** Math.min(before, 20));
  switch (kind) {
    case "away":
      return doubled(AWAY_FIRST_MS, AWAY_LONGEST_MS) * (0.5 + random / 2);
    case "refused":
      return doubled(REFUSED_FIRST_MS, REFUSED_LONGEST_MS) * (1 + random / 4);
    case "locked":
      return allowedInMs === undefined
        ? LOCKED_MS + random * LOCKED_SPREAD_MS
        : allowedInMs + random * Math.min(1_000, allowedInMs);
  }
}
