/** The nodes of the cluster, as pmxcfs tells them. */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import type { Host } from "../host/host.ts";

/** Written by pmxcfs on every node (pve-cluster, `src/pmxcfs/status.c`); a node alone has no list in it. */
const MEMBERS = "/etc/pve/.members";

const schema = v.object({
  nodename: v.string(),
  cluster: v.optional(v.object({ name: v.string(), quorate: v.number() })),
  nodelist: v.optional(
    v.record(v.string(), v.object({ online: v.number(), ip: v.optional(v.string()) })),
  ),
});

/** One node. */
export interface ClusterNode {
  readonly name: string;
  /** Its address in the cluster's network; undefined while the cluster does not know it. */
  readonly address: string | undefined;
  readonly isOnline: boolean;
  /** Whether it is this one. */
  readonly isThis: boolean;
}

/** All nodes. */
export interface Cluster {
  /** Undefined for a node alone. */
  readonly name: string | undefined;
  /** Whether pmxcfs can be written. */
  readonly isQuorate: boolean;
  /** This node first, then the others by name. */
  readonly nodes: readonly ClusterNode[];
}

/**
 * Reads the nodes of the cluster.
 *
 * @throws TnblockError `host-fault` when pmxcfs is not there or tells something else: who are all nodes is not
 *   known then.
 */
export async function readCluster(host: Host): Promise<Cluster> {
  const refused = (why: string, cause?: unknown) =>
    new TnblockError("host-fault", `Cannot tell which nodes the cluster has: ${why}`, {
      hint: "See that pve-cluster runs: systemctl status pve-cluster",
      cause,
    });
  let text: string | undefined;
  try {
    text = await host.files.readText(MEMBERS);
  } catch (error) {
    throw refused(`${MEMBERS} cannot be read`, error);
  }
  if (text === undefined) throw refused(`${MEMBERS} is not there`);
  const members = parseMembers(text);
  if (members === undefined) throw refused(`${MEMBERS} does not hold the members`);
  const { nodename, cluster, nodelist } = members;
  if (nodelist === undefined) {
    const alone = { name: nodename, address: undefined, isOnline: true, isThis: true };
    return { name: undefined, isQuorate: true, nodes: [alone] };
  }
  const nodes = Object.entries(nodelist).map(([name, { online, ip }]) => ({
    name,
    address: ip,
    isOnline: online === 1,
    isThis: name === nodename,
  }));
  if (!nodes.some(({ isThis }) => isThis)) throw refused(`${MEMBERS} does not name "${nodename}"`);
  return {
    name: cluster?.name,
    isQuorate: cluster?.quorate === 1,
    nodes: nodes.sort((a, b) => Number(b.isThis) - Number(a.isThis) || (a.name < b.name ? -1 : 1)),
  };
}

function parseMembers(text: string): v.InferOutput<typeof schema> | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}
