/** What a check is, and what comes of one. */
import type { ArrayContext } from "./array_context.ts";
import type { ClusterContext } from "./cluster_context.ts";
import type { Guide } from "./guide.ts";
import type { NodeContext } from "./node_context.ts";
import type { StorageContext } from "./storage_context.ts";

/** `error`: something does not work or is in danger; `warning`: it works less well or less safely than it should. */
export type Severity = "error" | "warning";

/** One thing that is not as it should be, as a check tells it. */
export interface Problem {
  readonly severity: Severity;
  /** One sentence without a final stop. */
  readonly text: string;
  readonly guide: Guide;
}

/** What each kind of check is given; see the contexts. */
export interface Needs {
  /** This node alone, once. */
  readonly node: NodeContext;
  /** Each storage of this node whose settings can be read. */
  readonly storage: StorageContext;
  /** Each storage whose array can be asked. */
  readonly array: ArrayContext;
  /** All nodes of the cluster, with `--cluster` only. */
  readonly cluster: ClusterContext;
}

/** A check that needs one kind of context. It changes nothing, and rejects only when it is broken. */
export interface CheckOf<K extends keyof Needs> {
  /** Never changes: people and scripts know it. */
  readonly id: string;
  /** What holds when nothing is found. */
  readonly title: string;
  readonly needs: K;
  /** A check that does not apply here finds nothing. */
  run(context: Needs[K]): Promise<readonly Problem[]>;
}

/** A check of any kind. */
export type Check = { [K in keyof Needs]: CheckOf<K> }[keyof Needs];

/** A problem, and where it is. */
export interface Finding extends Problem {
  readonly check: string;
  readonly node: string;
  /** Null for what is no storage's alone. */
  readonly storage: string | null;
}

/** What became of one check. */
export interface CheckResult {
  readonly id: string;
  readonly title: string;
  readonly node: string;
  readonly storage: string | null;
  /** `broken`: the check itself failed or hung, which is a finding too. */
  readonly outcome: "ok" | "found" | "skipped" | "broken";
  /** Why it was skipped. */
  readonly note: string | null;
  readonly milliseconds: number;
  readonly findings: readonly Finding[];
}

/** Thrown by a check that cannot say anything because of something that another check tells. */
export class Skipped extends Error {
  override readonly name = "Skipped";
}

/** Rules a check for its type, so that a table of checks needs no annotations. */
export function check<K extends keyof Needs>(one: CheckOf<K>): CheckOf<K> {
  return one;
}
