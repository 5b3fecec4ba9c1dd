/** Asks every node of the cluster what it has of a storage, by running this program there. */
import { asTnblockError } from "../common/error.ts";
import type { Host } from "../host/host.ts";
import type { Cluster, ClusterNode } from "../pve/cluster.ts";
import { runOnNode } from "../pve/remote.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import { type NodeFacts, parseFacts, questionText } from "./node_facts.ts";
import type { NodeView } from "./world.ts";

/** Where install puts this program, on every node. */
const PROGRAM = "/usr/local/bin/tnblock";

/** For one node: ssh, and a look at what it has. */
const NODE_MS = 30_000;

/** What is asked. */
export interface NodeQuestion {
  readonly storage: string;
  readonly disks: readonly DiskIdentity[];
}

/**
 * Asks all nodes at once. Never rejects: a node that cannot be asked says why.
 *
 * @param own what this node tells.
 */
export async function askNodes(
  host: Host,
  cluster: Cluster,
  question: NodeQuestion,
  own: () => Promise<NodeFacts>,
): Promise<NodeView[]> {
  return await Promise.all(cluster.nodes.map(async (node) => {
    try {
      const told = node.isThis ? await own() : await askNode(host, node, question);
      return { name: node.name, told };
    } catch (error) {
      return { name: node.name, told: asTnblockError(error).message };
    }
  }));
}

async function askNode(
  host: Host,
  node: ClusterNode,
  { storage, disks }: NodeQuestion,
): Promise<NodeFacts | string> {
  if (!node.isOnline) return "it is offline";
  const { status, stdout, stderr } = await runOnNode(
    host,
    node,
    [PROGRAM, "cleanup-orphans", storage, "--node-facts"],
    { deadlineMs: NODE_MS, input: questionText(disks) },
  );
  const facts = status === 0 ? parseFacts(stdout) : undefined;
  if (facts?.node === node.name) return facts;
  if (facts !== undefined) return `another node answered, ${facts.node}`;
  if (status === 127) return `there is no ${PROGRAM} on it`;
  // As every mistake in usage: it knows no such command.
  if (status === 2) return "its tnblock is of another version: update all nodes";
  const said = stderr.trim().split("\n").at(-1) ?? "";
  return `its tnblock does not tell: ${said === "" ? `status ${status}` : said.slice(0, 300)}`;
}
