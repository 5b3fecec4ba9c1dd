/** What each node of the cluster is to an array, and whether it has the plugin: `tnblock setup --node-facts`. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { PROGRAM } from "../daemon/unit.ts";
import type { Host } from "../host/host.ts";
import { hostIdentity } from "../host/nvme_identity.ts";
import { scanNvmeControllers } from "../host/scan/nvme.ts";
import { type Cluster, type ClusterNode, readCluster } from "../pve/cluster.ts";
import { runOnNode } from "../pve/remote.ts";
import { SHIM } from "../pve/shim/shim.ts";
import type { SetupWorld } from "./world.ts";

/** The path is fixed in Proxmox VE's `PVE/Storage.pm`. */
const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/** Milliseconds for another node to answer. */
const NODE_MS = 30_000;

const schema = v.object({
  schemaVersion: v.literal(1),
  node: v.string(),
  version: v.string(),
  /** SHA-256 of the plugin that is installed there. */
  shim: v.nullable(v.string()),
  hostNqn: v.nullable(v.string()),
  initiator: v.nullable(v.string()),
});

/** What one node tells of itself; null is what is not there. */
export type NodeFacts = v.InferOutput<typeof schema>;

/** A node that was asked, or why it could not be. */
export interface AskedNode {
  readonly node: ClusterNode;
  readonly facts: NodeFacts | TnblockError;
}

/** All nodes. */
export interface ClusterFacts {
  readonly cluster: Cluster;
  readonly asked: readonly AskedNode[];
}

/** This node's own. Changes nothing, unless the NVMe identity is to be made where it is missing. */
export async function gatherNodeFacts(
  { host, version }: Pick<SetupWorld, "host" | "version">,
  options: { readonly makeIdentity: boolean } = { makeIdentity: false },
): Promise<NodeFacts> {
  const [shim, initiators] = await Promise.all([
    host.files.readText(SHIM_FILE),
    host.files.readText("/etc/iscsi/initiatorname.iscsi"),
  ]);
  const hostNqn = options.makeIdentity ? (await hostIdentity(host)).hostNqn : await nqnOf(host);
  return {
    ...{ schemaVersion: 1, node: host.nodeName, version },
    shim: shim === undefined ? null : digest(shim),
    hostNqn,
    initiator: /^\s*InitiatorName\s*=\s*(\S+)/m.exec(initiators ?? "")?.[1] ?? null,
  };
}

/** That of a live connection first, as the kernel allows no other one beside it. */
async function nqnOf(host: Host): Promise<string | null> {
  const live = (await scanNvmeControllers(host.files)).find((one) => one.hostNqn !== undefined);
  const text = live?.hostNqn ?? (await host.files.readText("/etc/nvme/hostnqn"))?.trim();
  return text === undefined || text === "" ? null : text;
}

/** Asks every node of the cluster; one that is offline is not tried. */
export async function askNodes(world: SetupWorld): Promise<ClusterFacts> {
  const cluster = await readCluster(world.host);
  const asked = await Promise.all(cluster.nodes.map(async (node): Promise<AskedNode> => {
    try {
      return { node, facts: await askNode(world, node) };
    } catch (error) {
      return { node, facts: asTnblockError(error) };
    }
  }));
  return { cluster, asked };
}

/** Asks one node, this one or another. */
export async function askNode(
  world: SetupWorld,
  node: ClusterNode,
  options: { readonly makeIdentity: boolean } = { makeIdentity: false },
): Promise<NodeFacts> {
  if (node.isThis) return await gatherNodeFacts(world, options);
  if (!node.isOnline) {
    throw new TnblockError("unreachable", `Cannot ask node ${node.name}: it is offline`);
  }
  const words = [
    ...[PROGRAM, "setup", "--node-facts"],
    ...(options.makeIdentity ? ["--make-identity"] : []),
  ];
  const { stdout, stderr } = await runOnNode(world.host, node, words, { deadlineMs: NODE_MS });
  const facts = parse(stdout);
  if (facts !== undefined) return facts;
  const said = stderr.trim().split("\n").at(-1) ?? "";
  throw new TnblockError(
    "host-fault",
    `Cannot ask node ${node.name}: ${said === "" ? `there is no ${PROGRAM}` : said.slice(0, 200)}`,
    { hint: "Run: tnblock install --all-nodes" },
  );
}

/** Nodes that are online have not this version's plugin. */
export class PluginMissing extends TnblockError {
  /** @param lacking the nodes, each with what is wrong. */
  constructor(lacking: readonly string[]) {
    super(
      "unsupported",
      `Cannot add a storage before all nodes have this version's plugin; missing on: ${
        lacking.join("; ")
      }`,
      { hint: "Run: tnblock install --all-nodes" },
    );
  }
}

/**
 * Refuses while a node that is online has not this very plugin: at the next change of any storage there, Proxmox VE
 * would drop our sections for the whole cluster, or the options that it does not know.
 *
 * @returns warnings about nodes that are offline.
 */
export function checkPlugin({ cluster, asked }: ClusterFacts): string[] {
  if (!cluster.isQuorate) {
    throw new TnblockError("busy", "Cannot add a storage: the cluster has no quorum", {
      hint: "See pvecm status",
    });
  }
  const wanted = digest(SHIM);
  const lacking = asked.filter(({ node }) => node.isOnline).flatMap(({ node, facts }) => {
    if (facts instanceof TnblockError) return [`${node.name} (${facts.message})`];
    if (facts.shim === null) return [`${node.name} (it is not installed)`];
    return facts.shim === wanted ? [] : [`${node.name} (it is of another version)`];
  });
  if (lacking.length > 0) {
    throw new PluginMissing(lacking);
  }
  return asked.filter(({ node }) => !node.isOnline).map(({ node }) =>
    `node ${node.name} is offline: install tnblock there before anything else when it is back`
  );
}

function parse(text: string): NodeFacts | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
