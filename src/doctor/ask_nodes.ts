/** Asks all nodes of the cluster what they are, by running this program there. */
import { asTnblockError, TnblockError } from "../common/error.ts";
import { type ClusterNode, readCluster } from "../pve/cluster.ts";
import { runOnNode } from "../pve/remote.ts";
import type { ClusterContext, NodeReport } from "./cluster_context.ts";
import { type NodeContext, PROGRAM } from "./node_context.ts";
import { type NodeFacts, parseFacts } from "./node_facts.ts";

/** For one node: ssh, and its own checks, each of which has its deadline. */
const NODE_MS = 45_000;

/**
 * Asks all other nodes at once; of this one the facts are given.
 *
 * @throws TnblockError as `readCluster` does.
 */
export async function askNodes(
  node: NodeContext,
  own: () => Promise<NodeFacts>,
): Promise<Omit<ClusterContext, "storages">> {
  const cluster = await readCluster(node.host);
  const reports = await Promise.all(cluster.nodes.map((one) => askNode(node, one, own)));
  return { node, cluster, reports };
}

async function askNode(
  node: NodeContext,
  one: ClusterNode,
  own: () => Promise<NodeFacts>,
): Promise<NodeReport> {
  const { host } = node;
  const report = (told: NodeReport["told"], clockAheadMs: number | undefined): NodeReport => ({
    name: one.name,
    told,
    clockAheadMs,
  });
  try {
    if (one.isThis) return report(await own(), 0);
    if (!one.isOnline) {
      throw new TnblockError("unreachable", `the cluster says that node ${one.name} is offline`);
    }
    const bounds = { deadlineMs: NODE_MS };
    const { status, stdout, stderr } = await runOnNode(
      host,
      one,
      [PROGRAM, "doctor", "--node-facts"],
      bounds,
    );
    const ended = host.now();
    const facts = parseFacts(stdout);
    if (facts !== undefined) return report(facts, facts.timeMs - ended);
    const said = stderr.trim().split("\n").at(-1) ?? "";
    throw new TnblockError(
      "host-fault",
      status === 127
        ? `there is no ${PROGRAM} on node ${one.name}`
        : `tnblock on node ${one.name} does not tell how it is: ${said || `status ${status}`}`,
    );
  } catch (error) {
    return report(asTnblockError(error), undefined);
  }
}
