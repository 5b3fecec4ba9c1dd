/**
 * Links for the disks of guests that run: `tnblock migrate STORAGE --node-attach`, on every node after the section has
 * changed. The disks are attached already, by the Perl plugin; activating finds them and makes the links.
 */
import * as v from "valibot";
import { asTnblockError } from "../common/error.ts";
import { PROGRAM } from "../daemon/unit.ts";
import { sectionsNaming } from "../host/guest_configs.ts";
import { readGuestStates } from "../host/guest_states.ts";
import type { Host } from "../host/host.ts";
import type { ClusterNode } from "../pve/cluster.ts";
import { answer, type HookWorld } from "../pve/hook.ts";
import { runOnNode } from "../pve/remote.ts";

/** Milliseconds for one disk. */
const DISK_MS = 45_000;
/** Milliseconds for a node. */
const NODE_MS = 600_000;

const schema = v.object({
  schemaVersion: v.literal(1),
  node: v.string(),
  linked: v.array(v.string()),
  failed: v.array(v.object({ volname: v.string(), why: v.string() })),
});

/** What came of one node. */
export type Attached = v.InferOutput<typeof schema>;

/** Links the disks of this node's guests that run, or may run. */
export async function attachHere(
  world: HookWorld,
  storage: string,
  config: Readonly<Record<string, string>>,
): Promise<Attached> {
  const { host } = world;
  const linked: string[] = [];
  const failed: { volname: string; why: string }[] = [];
  for (const volname of await runningVolnames(host, storage)) {
    const request = {
      ...{ protocol: 1, id: "migrate", method: "activate_volume", storage, config },
      ...{ args: { volname }, deadlineMs: DISK_MS, node: host.nodeName, pveApi: 13 },
    };
    try {
      const { reply, settled, delivered } = answer(JSON.stringify(request), world);
      const { text } = await reply;
      await Promise.all([delivered(), settled]);
      const { ok, error } = JSON.parse(text) as { ok: boolean; error?: { message?: string } };
      if (ok) linked.push(volname);
      else failed.push({ volname, why: error?.message ?? "no reason was given" });
    } catch (error) {
      failed.push({ volname, why: asTnblockError(error).message });
    }
  }
  return { schemaVersion: 1, node: host.nodeName, linked, failed };
}

/** Volumes that the present configurations of this node's guests name, those that are stopped left out. */
async function runningVolnames(host: Host, storage: string): Promise<string[]> {
  const states = await readGuestStates(host);
  const found = new Set<string>();
  for (const folder of ["qemu-server", "lxc"]) {
    const path = `/etc/pve/nodes/${host.nodeName}/${folder}`;
    for (const name of await host.files.list(path) ?? []) {
      const vmid = /^([1-9][0-9]*)\.conf$/.exec(name)?.[1];
      if (vmid === undefined || states.get(Number(vmid)) === false) continue;
      const text = await host.files.readText(`${path}/${name}`) ?? "";
      // Only what stands above the first heading is attached.
      const present = text.split(/^\[/m)[0] ?? "";
      const used = present.split("\n").filter((line) => !/^(?:unused\d+:|#)/.test(line)).join("\n");
      sectionsNaming(used, storage, (volname) => {
        found.add(volname);
        return false;
      });
    }
  }
  return [...found];
}

/** The same on another node. */
export async function attachOnNode(
  host: Host,
  node: ClusterNode,
  storage: string,
): Promise<Attached> {
  const words = [PROGRAM, "migrate", storage, "--node-attach"];
  try {
    const { status, stdout, stderr } = await runOnNode(host, node, words, { deadlineMs: NODE_MS });
    const parsed = v.safeParse(schema, JSON.parse(status === 0 ? stdout : "null"));
    if (parsed.success) return parsed.output;
    throw new Error(stderr.trim().split("\n").at(-1) || `status ${status}`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return {
      ...{ schemaVersion: 1, node: node.name, linked: [] },
      failed: [{ volname: "all", why }],
    };
  }
}
