/** Whether Proxmox VE works with the storage, on every node that has it: `pvesm status`. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import type { Cluster, ClusterNode } from "../pve/cluster.ts";
import { runOnNode } from "../pve/remote.ts";

const PVESM = "/usr/sbin/pvesm";

/** Milliseconds for one `pvesm status`. */
const ONCE_MS = 60_000;
/** Milliseconds until a storage must be active: sessions may have to be made. */
const ALL_MS = 90_000;
const PAUSE_MS = 2_000;

/** What must be shown. */
export interface Wanted {
  readonly storage: string;
  readonly type: string;
  readonly options: Readonly<Record<string, string>>;
}

/**
 * Waits until it is active on every node that the section is for; a disabled one only has to be known.
 *
 * @throws TnblockError that names the first node where it is not, with what pvesm says.
 */
export async function checkEverywhere(
  host: Host,
  cluster: Cluster,
  { storage, type, options }: Wanted,
  tell: (line: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  const only = options["nodes"]?.split(",").map((one) => one.trim()).filter((one) => one !== "");
  const isDisabled = !["0", undefined].includes(options["disable"]);
  for (const node of cluster.nodes) {
    const isFor = only === undefined || only.length === 0 || only.includes(node.name);
    const wanted = isFor && !isDisabled ? "active" : "disabled";
    const until = host.monotonicMs() + ALL_MS;
    for (;;) {
      const said = await statusOn(host, node, storage);
      if (said.type === type && (said.status === wanted || wanted === "disabled")) break;
      signal?.throwIfAborted();
      if (host.monotonicMs() >= until) {
        throw new TnblockError(
          "host-fault",
          `Cannot use storage "${storage}" on node ${node.name}: ${said.words}`,
        );
      }
      await host.wait(PAUSE_MS, signal);
    }
    tell(`${node.name}: pvesm status shows ${storage} as ${wanted}`);
  }
}

interface Said {
  readonly type?: string;
  readonly status?: string;
  readonly words: string;
}

async function statusOn(host: Host, node: ClusterNode, storage: string): Promise<Said> {
  const args = ["status", "--storage", storage];
  const { status, stdout, stderr } = node.isThis
    ? await attempt(
      `Cannot run pvesm status on node ${node.name}`,
      () => host.run(PVESM, args, { deadlineMs: ONCE_MS }),
    )
    : await runOnNode(host, node, [PVESM, ...args], { deadlineMs: ONCE_MS });
  // san     tnblock     active       104857600        1048576       103809024    1.00%
  const row = stdout.split("\n").map((line) => line.trim().split(/\s+/))
    .find(([name]) => name === storage);
  const last = stderr.trim().split("\n").at(-1)?.slice(0, 300) ?? "";
  if (row === undefined) {
    return { words: last || `pvesm status does not show it (status ${status})` };
  }
  const [, type = "", state = ""] = row;
  const words = last || `pvesm status shows it as ${state} and of type ${type}`;
  return { type, status: state, words };
}
