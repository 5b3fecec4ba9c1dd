/**
 * Running this program, or copying a file, on another node of the cluster: over the ssh that Proxmox VE has set
 * up between its nodes (pve-cluster, `src/PVE/SSHInfo.pm`), which knows each node's host key by its name.
 */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Bounds, Host, ProgramResult } from "../host/host.ts";
import type { ClusterNode } from "./cluster.ts";

const SSH = "/usr/bin/ssh";
const SCP = "/usr/bin/scp";

/** ssh's own status for a connection that failed (ssh(1), EXIT STATUS). */
const NO_CONNECTION = 255;

/** Seconds until a node that does not answer is given up. */
const CONNECT_SECONDS = 10;

/** The remote shell splits at blanks and interprets: nothing but these characters reaches it. */
const WORD = /^[A-Za-z0-9_.\/:=,@%+-]+$/;

/**
 * Runs a command on another node; its words are taken as they are.
 *
 * @param words without blanks or anything that a shell interprets; a text for the program goes into `input`.
 * @throws TnblockError `unreachable` when ssh cannot connect or log in, `timeout` at the deadline.
 */
export async function runOnNode(
  host: Host,
  node: ClusterNode,
  words: readonly string[],
  bounds: Bounds & { readonly input?: string },
): Promise<ProgramResult> {
  const wrong = words.find((word) => !WORD.test(word));
  if (wrong !== undefined) {
    throw new TnblockError(
      "internal",
      `Cannot run "${wrong}" on node ${node.name}: not a plain word`,
    );
  }
  const args = [...await sshOptions(host, node), `root@${addressOf(node)}`, "--", ...words];
  const doing = `Cannot run ${words[0]} on node ${node.name}`;
  const result = await attempt(doing, () => host.run(SSH, args, bounds));
  if (result.status === NO_CONNECTION) throw unreachable(doing, node, result);
  return result;
}

/**
 * Copies a file of this node to another one.
 *
 * @throws TnblockError as {@link runOnNode}; `host-fault` when the file could not be copied.
 */
export async function copyToNode(
  host: Host,
  node: ClusterNode,
  from: string,
  to: string,
  bounds: Bounds,
): Promise<void> {
  const address = addressOf(node);
  const place = address.includes(":") ? `[${address}]` : address;
  const args = [...await sshOptions(host, node), "-q", "--", from, `root@${place}:${to}`];
  const doing = `Cannot copy ${from} to node ${node.name}`;
  const result = await attempt(doing, () => host.run(SCP, args, bounds));
  if (result.status === NO_CONNECTION) throw unreachable(doing, node, result);
  if (result.status !== 0) {
    throw new TnblockError("host-fault", `${doing}: ${lastLine(result.stderr)}`);
  }
}

/** Never asks; the key of a node is looked up by its name, in the file that PVE keeps for it when it keeps one. */
async function sshOptions(host: Host, { name }: ClusterNode): Promise<string[]> {
  const known = `/etc/pve/nodes/${name}/ssh_known_hosts`;
  const hasOwn = await host.files.status(known) !== undefined;
  return [
    ...["-o", "BatchMode=yes", "-o", `ConnectTimeout=${CONNECT_SECONDS}`],
    ...["-o", `HostKeyAlias=${name}`],
    ...(hasOwn ? ["-o", `UserKnownHostsFile=${known}`, "-o", "GlobalKnownHostsFile=none"] : []),
  ];
}

function addressOf({ name, address }: ClusterNode): string {
  if (address !== undefined && /^[0-9a-fA-F.:]+$/.test(address)) return address;
  throw new TnblockError(
    "unreachable",
    `Cannot reach node ${name}: the cluster has no address of it`,
  );
}

function unreachable(
  doing: string,
  { name }: ClusterNode,
  { stderr }: ProgramResult,
): TnblockError {
  return new TnblockError("unreachable", `${doing}: ${lastLine(stderr)}`, {
    hint: `Try: ssh ${name} true, as root on this node; pvecm updatecerts sets up missing keys`,
  });
}

function lastLine(text: string): string {
  const line = text.trim().split("\n").at(-1) ?? "";
  return line === "" ? "ssh says nothing more" : line.slice(0, 300);
}
