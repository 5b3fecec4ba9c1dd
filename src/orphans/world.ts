/** All that is read before anything is called an orphan. */
import type { Replication } from "../truenas/replications.ts";
import type { Extent } from "../truenas/extents.ts";
import type { Namespace } from "../truenas/namespaces.ts";
import type { Snapshot } from "../truenas/snapshots.ts";
import type { TargetExtent } from "../truenas/target_extents.ts";
import type { Zvol } from "../truenas/zvols.ts";
import type { Storage } from "../volumes/storage.ts";
import type { NodeFacts } from "./node_facts.ts";
import type { References } from "./references.ts";

/** Younger things may be being made just now (design section 3, and issue 5). */
export const AGE_FLOOR_MS = 24 * 3_600_000;

/** Clocks that differ by more say nothing of ages: one of them may have been set since. */
export const MOST_SKEW_MS = 3_600_000;

/** The array, in one round of reads. */
export interface ArrayView {
  /** The array's own clock, in milliseconds since the epoch; undefined when it does not tell. */
  readonly nowMs: number | undefined;
  /** Why the dataset is not to be worked in; undefined when it is this storage's. */
  readonly refusal: string | undefined;
  /** What is directly below the dataset. */
  readonly zvols: readonly Zvol[];
  /** Names of file systems there. */
  readonly filesystems: readonly string[];
  /** All of the array, foreign ones too. */
  readonly extents: readonly Extent[];
  /** All of the array. */
  readonly mappings: readonly TargetExtent[];
  /** All of the array. */
  readonly namespaces: readonly Namespace[];
  /** Row id of the storage's target or subsystem; undefined when it is not there. */
  readonly parent: number | undefined;
  /** IQNs of all targets; undefined over NVMe/TCP, where they are not read. */
  readonly targets: readonly string[] | undefined;
  /** Everything of the pool that is a clone. */
  readonly clones: readonly { readonly name: string; readonly origin: string }[];
  /** Of what {@link suspects} names, by path. */
  readonly snapshots: ReadonlyMap<string, readonly Snapshot[]>;
  /** Names of who is connected to the target or subsystem, or why that cannot be told. */
  readonly connected: readonly string[] | string;
  /** All tasks, or why they cannot be read. */
  readonly replications: readonly Replication[] | string;
}

/** What one node of the cluster told. */
export interface NodeView {
  readonly name: string;
  /** What it told, or why it did not. */
  readonly told: NodeFacts | string;
}

/** All of it. */
export interface World {
  readonly storage: Pick<Storage, "settings" | "clusterId">;
  readonly array: ArrayView;
  /** This node's clock, in milliseconds since the epoch. */
  readonly nodeNowMs: number;
  readonly isQuorate: boolean;
  /** All nodes of the cluster. */
  readonly nodes: readonly NodeView[];
  readonly references: References;
}
