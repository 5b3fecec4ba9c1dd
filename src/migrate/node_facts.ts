/** What each node tells of itself before a section changes its type: `tnblock migrate STORAGE --node-facts`. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { DAEMON_SOCKET } from "../daemon/serve.ts";
import { parseState, STATUS_METHOD } from "../daemon/state.ts";
import { PROGRAM } from "../daemon/unit.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import type { Cluster, ClusterNode } from "../pve/cluster.ts";
import { runOnNode } from "../pve/remote.ts";
import { runningTasks } from "../pve/running_tasks.ts";
import { SHIM } from "../pve/shim/shim.ts";
import type { Dialect } from "./perl_options.ts";

/** The path is fixed in Proxmox VE's `PVE/Storage.pm`. */
const PLUGINS = "/usr/share/perl5/PVE/Storage/Custom";
const SHIM_FILE = `${PLUGINS}/TnblockPlugin.pm`;

const SYSTEMCTL = "/usr/bin/systemctl";

/** Who holds the plugins loaded for its whole life; those that `tnblock install` reloads. */
const SERVICES = ["pvedaemon", "pveproxy", "pvestatd", "pvescheduler", "pve-ha-lrm"];

/** Milliseconds for one look. */
const LOOK_MS = 10_000;
/** Milliseconds for another node to answer. */
const NODE_MS = 30_000;
/** Bytes of what the daemon says of itself. */
const MAX_STATE = 16 * 1024 * 1024;

const plugin = v.object({
  file: v.string(),
  sha256: v.string(),
  /** Milliseconds since the epoch when it came to its place. */
  sinceMs: v.number(),
});

const schema = v.object({
  schemaVersion: v.literal(1),
  node: v.string(),
  version: v.string(),
  /** Our plugin; null where there is none. */
  shim: v.nullable(plugin),
  /** The Perl plugin; null where there is none. */
  perl: v.nullable(v.object({ ...plugin.entries, dialect: v.picklist(["1.x", "2.x"]) })),
  /** PVE's services that run, each with the moment of its last start or reload; null when systemd does not say. */
  services: v.array(v.object({ name: v.string(), loadedMs: v.nullable(v.number()) })),
  /** The daemon's version; null when none answers. */
  daemon: v.nullable(v.string()),
  /** Tasks that may touch a volume, e.g. `qmclone 100`. */
  tasks: v.array(v.string()),
});

/** What one node tells. */
export type NodeFacts = v.InferOutput<typeof schema>;

/** A node that was asked, or why it could not be. */
export interface AskedNode {
  readonly node: ClusterNode;
  readonly facts: NodeFacts | TnblockError;
}

/** This node's own. Changes nothing. */
export async function gatherNodeFacts(host: Host, version: string): Promise<NodeFacts> {
  return await attempt("Cannot look at the node", async () => {
    const [shim, perl, services, daemon, tasks] = await Promise.all([
      readPlugin(host, SHIM_FILE),
      readPerlPlugin(host),
      Promise.all(SERVICES.map((name) => readService(host, name))),
      askDaemon(host),
      runningTasks(host),
    ]);
    return {
      ...{ schemaVersion: 1 as const, node: host.nodeName, version, shim: shim?.plugin ?? null },
      ...{ perl, services: services.filter((one) => one !== undefined), daemon },
      tasks: tasks.map(({ type, id }) => `${type} ${id}`.trim()),
    };
  });
}

async function readPlugin(host: Host, file: string) {
  const [text, status] = await Promise.all([host.files.readText(file), host.files.status(file)]);
  if (text === undefined || status === undefined) return undefined;
  const sha256 = createHash("sha256").update(text).digest("hex");
  return { text, plugin: { file, sha256, sinceMs: status.modifiedMs } };
}

async function readPerlPlugin(host: Host): Promise<NodeFacts["perl"]> {
  for (const name of await host.files.list(PLUGINS) ?? []) {
    if (!name.endsWith(".pm")) continue;
    const found = await readPlugin(host, `${PLUGINS}/${name}`);
    // sub type { return 'truenasplugin'; }
    if (!/sub\s+type\s*(\(\)\s*)?\{[^}]*['"]truenasplugin['"]/.test(found?.text ?? "")) continue;
    if (found === undefined) continue;
    const dialect: Dialect = found.text.includes("tn_api_host") ? "2.x" : "1.x";
    return { ...found.plugin, dialect };
  }
  return null;
}

/** Undefined for one that does not run, and loads what is there when it starts. */
async function readService(host: Host, name: string) {
  const { stdout } = await host.run(
    SYSTEMCTL,
    // A reload leaves the time of the start, and sets that of the last change of state.
    [
      "show",
      "--property=ActiveState,StateChangeTimestamp",
      "--timestamp=us+utc",
      `${name}.service`,
    ],
    { deadlineMs: LOOK_MS },
  );
  const values = new Map(
    stdout.split("\n").map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)] as const;
    }),
  );
  if (["inactive", "failed"].includes(values.get("ActiveState") ?? "")) return undefined;
  return { name, loadedMs: parseTimestamp(values.get("StateChangeTimestamp") ?? "") ?? null };
}

/** `Sun 2026-11-22 17:25:13.123456 UTC` in milliseconds since the epoch. */
export function parseTimestamp(text: string): number | undefined {
  const [, day, time] = /^\w{3} (\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?) UTC$/
    .exec(text.trim()) ?? [];
  if (day === undefined || time === undefined) return undefined;
  const ms = Date.parse(`${day}T${time.slice(0, 12)}Z`);
  return Number.isNaN(ms) ? undefined : ms;
}

async function askDaemon(host: Host): Promise<string | null> {
  const request = { protocol: 1, id: STATUS_METHOD, method: STATUS_METHOD, deadlineMs: LOOK_MS };
  try {
    const text = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      ...{ takenMs: 2_000, deadlineMs: LOOK_MS, maxLine: MAX_STATE },
    });
    const { ok, result } = JSON.parse(text) as { ok?: unknown; result?: unknown };
    return ok === true ? parseState(result).daemon?.version ?? null : null;
  } catch {
    return null;
  }
}

/** Asks all nodes at once; one that cannot be asked says why. */
export async function askNodes(
  host: Host,
  version: string,
  cluster: Cluster,
  storage: string,
): Promise<AskedNode[]> {
  return await Promise.all(cluster.nodes.map(async (node) => {
    try {
      const facts = node.isThis
        ? await gatherNodeFacts(host, version)
        : await askNode(host, node, storage);
      return { node, facts };
    } catch (error) {
      return { node, facts: asTnblockError(error) };
    }
  }));
}

async function askNode(host: Host, node: ClusterNode, storage: string): Promise<NodeFacts> {
  const doing = `Cannot ask node ${node.name}`;
  if (!node.isOnline) throw new TnblockError("unreachable", `${doing}: it is offline`);
  const words = [PROGRAM, "migrate", storage, "--node-facts"];
  const { status, stdout, stderr } = await runOnNode(host, node, words, { deadlineMs: NODE_MS });
  const facts = parseFacts(stdout);
  if (facts?.node === node.name) return facts;
  const said = stderr.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
  const why = facts !== undefined
    ? `another node answered, ${facts.node}`
    : status === 127
    ? `there is no ${PROGRAM} on it`
    : status === 2
    ? "its tnblock is of another version"
    : said || `status ${status}`;
  throw new TnblockError("host-fault", `${doing}: ${why}`, {
    hint: "Run: tnblock install --all-nodes",
  });
}

function parseFacts(text: string): NodeFacts | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** What is in the way on the nodes, one sentence each; empty when all may go on. */
export function nodeProblems(
  asked: readonly AskedNode[],
  version: string,
  direction: "to-tnblock" | "to-perl",
): string[] {
  const wanted = createHash("sha256").update(SHIM).digest("hex");
  return asked.flatMap(({ node: { name }, facts }) => {
    if (facts instanceof TnblockError) return [facts.message];
    const { shim, perl, services, daemon, tasks } = facts;
    const found: string[] = [];
    const late = (loaded: { readonly sinceMs: number } | null, what: string) => {
      for (const { name: service, loadedMs } of loaded === null ? [] : services) {
        if (loadedMs !== null && loaded !== null && loadedMs > loaded.sinceMs) continue;
        const why = loadedMs === null
          ? "systemd does not say when it loaded"
          : "was not reloaded since it got";
        found.push(`on ${name} ${service} ${why} ${what}`);
      }
    };
    if (facts.version !== version) {
      found.push(`${name} has tnblock ${facts.version}, this node ${version}`);
    }
    if (direction === "to-tnblock") {
      if (shim === null) found.push(`${name} has no plugin of tnblock`);
      else if (shim.sha256 !== wanted) {
        found.push(`the plugin of tnblock on ${name} is another one`);
      } else late(shim, "the plugin of tnblock");
      if (daemon === null) found.push(`the daemon of tnblock does not answer on ${name}`);
      else if (daemon !== version) {
        found.push(`the daemon on ${name} is still that of tnblock ${daemon}`);
      }
    } else if (perl === null) found.push(`${name} has no Perl plugin`);
    else late(perl, "the Perl plugin");
    if (tasks.length > 0) found.push(`tasks run on ${name}: ${tasks.slice(0, 3).join(", ")}`);
    return found;
  });
}

/** The generation of the Perl plugin, the same on all nodes. */
export function dialectOf(asked: readonly AskedNode[]): Dialect | undefined {
  const found = asked.map(({ facts }) =>
    facts instanceof TnblockError ? undefined : facts.perl?.dialect
  );
  const [first] = found;
  return found.every((one) => one === first) ? first : undefined;
}
