/** What the checks that compare nodes share: what each node tells of itself. */
import type { TnblockError } from "../common/error.ts";
import type { Cluster } from "../pve/cluster.ts";
import type { NodeContext } from "./node_context.ts";
import type { NodeFacts } from "./node_facts.ts";
import type { StorageContext } from "./storage_context.ts";

/** What one node of the cluster told. */
export interface NodeReport {
  readonly name: string;
  /** What it told, or why it did not. */
  readonly told: NodeFacts | TnblockError;
  /**
   * The node's clock less this one's, in milliseconds: up to a second too little, for the answer's way; undefined
   * when it did not tell.
   */
  readonly clockAheadMs: number | undefined;
}

/** The cluster. */
export interface ClusterContext {
  readonly node: NodeContext;
  readonly cluster: Cluster;
  /** The storages of this node that can be opened. */
  readonly storages: readonly StorageContext[];
  /** All nodes, this one first. */
  readonly reports: readonly NodeReport[];
}
