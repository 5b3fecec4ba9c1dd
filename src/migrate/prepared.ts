/** A migration that was looked at, of which nothing is begun. */
import type { Attached } from "./attach.ts";
import type { Finding } from "./findings.ts";

/** Milliseconds for marking all volumes, and all else. */
export const WORK_MS = 1_800_000;

/** What is to be done, all of it looked at, nothing of it begun. */
export interface Prepared {
  readonly storage: string;
  readonly findings: readonly Finding[];
  /** What will be done, one line each. */
  readonly steps: readonly string[];
  /** What a person should know besides. */
  readonly notes: readonly string[];
  /** Does it; nothing is left of it when it fails. */
  readonly carryOut: () => Promise<Done>;
}

/** What came of it. */
export interface Done {
  /** What each node's running guests got; empty for the way back. */
  readonly attached: readonly Attached[];
}
