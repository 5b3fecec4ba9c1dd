/**
 * The product in the VM: the simulated array with its API and its kernel data side, a node that is set
 * up as `tnblock install` and `setup` leave it, and the hook and the Perl plugin called as PVE does.
 */

import { assertEquals, fail } from "@std/assert";
import { compileProgram } from "./compile.ts";
import { forgetEverything, HOST_ID, HOST_NQN } from "./initiator.ts";
import type { VmCase } from "./suite.ts";
import { PORTALS, type Vm } from "./vm.ts";
import type { ReadyLine } from "../../../src/simulator/simulator.ts";

const CLUSTER_ID = "b6a5ec1e-4d0f-4c39-8f57-9a1de0a3c7f4";
const READY_FILE = "/run/simulator.ready";

/** Of the disks that the cases make. */
export const SIZE_KIB = 64 * 1024;

export type Transport = "iscsi" | "nvme-tcp";

const TRANSPORTS: readonly Transport[] = ["nvme-tcp", "iscsi"];

/** Mutual CHAP. */
export interface ChapSecrets {
  readonly user: string;
  readonly secret: string;
  readonly peerUser: string;
  readonly peerSecret: string;
}

/** A storage's section, as PVE parsed it. */
export type StorageConfig = Readonly<Record<string, unknown>>;

/** What the hook answers. */
export type HookAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: { readonly code: string; readonly message: string } };

/** A node with one storage on a fresh array. */
export class Node {
  readonly vm: Vm;
  readonly array: ReadyLine;
  readonly storage = "san";
  readonly config: StorageConfig;
  #requests = 0;
  #lastLog = "";

  constructor(vm: Vm, array: ReadyLine, config: StorageConfig) {
    this.vm = vm;
    this.array = array;
    this.config = config;
  }

  /** What the hook's last call wrote into its log. */
  get lastLog(): string {
    return this.#lastLog;
  }

  /** One `tnblock hook`, without PVE around it. */
  async hook(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<HookAnswer> {
    const request = await this.vm.file(
      JSON.stringify({
        protocol: 1,
        id: `vm-${this.#requests++}`,
        method,
        storage: this.storage,
        config: this.config,
        args,
        deadlineMs: 120_000,
        node: "vm",
        pveApi: 13,
      }) + "\n",
    );
    const { stdout, stderr } = await this.vm.try(`tnblock hook <${request}`, {
      timeoutSeconds: 180,
    });
    this.#lastLog = stderr;
    if (!stdout.startsWith("{")) fail(`the hook answered "${stdout}" to ${method}; ${stderr}`);
    return JSON.parse(stdout) as HookAnswer;
  }

  /** As {@link hook}; fails unless the method succeeds. */
  async must(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = await this.hook(method, args);
    if (!answer.ok) fail(`${method}: ${answer.error.code}: ${answer.error.message}`);
    return answer.result;
  }

  /** The code of the error that a method ends with; fails when it succeeds. */
  async refusal(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return (await this.complaint(method, args)).code;
  }

  /** As {@link refusal}, the whole error. */
  async complaint(
    method: string,
    args: Readonly<Record<string, unknown>> = {},
  ): Promise<{ readonly code: string; readonly message: string }> {
    const answer = await this.hook(method, args);
    if (answer.ok) fail(`${method} succeeded with ${JSON.stringify(answer.result)}`);
    return answer.error;
  }

  /** One call of the Perl plugin; fails unless it succeeds. */
  async perl(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = await this.vm.perl(method, this.storage, this.config, args);
    if (!answer.ok) fail(`${method}: ${answer.error}`);
    return answer.result;
  }

  /** The path that PVE gives to QEMU. */
  async path(volname: string, snapshot?: string): Promise<string> {
    const args = { volname, ...snapshot === undefined ? {} : { snapshot } };
    const result = await this.must("path", args) as { path: string };
    return result.path;
  }

  /** A new disk of 64 MiB that is active; answers with its volume name and PVE's path to it. */
  async activeDisk(vmid = 100): Promise<{ volname: string; path: string }> {
    const args = { vmid, format: "raw", sizeKiB: SIZE_KIB };
    const volname = String(await this.must("alloc_image", args));
    await this.must("activate_volume", { volname });
    // As the hook's `path` says, which a case of its own asks: a start of the product less.
    const path = `/dev/tnblock/${this.storage}/${zvolOf(volname)}`;
    assertEquals(await this.vm.sh(`blockdev --getsize64 ${path}`), String(SIZE_KIB * 1024));
    return { volname, path };
  }

  /** Frees a volume for good. */
  async free(volname: string): Promise<void> {
    await this.must("free_image", { volname, isBase: false, finish: true });
  }

  /** How many paths of a disk carry commands. */
  async livePaths(path: string): Promise<number> {
    return Number(
      await this.vm.sh(
        `disk=$(basename $(readlink -f ${path}))
         case $disk in
           nvme*) grep -lx live /sys/class/nvme/nvme*/state | wc -l ;;
           *) multipathd show paths format '%m %t' | grep -c "^$(cat /sys/block/$disk/dm/name) active" ;;
         esac`,
      ),
    );
  }

  /** Makes these the storage's secrets, beside the API key. */
  async setSecrets(secrets: Readonly<Record<string, string>>): Promise<void> {
    const file = await this.vm.file(
      JSON.stringify({ "tnb-api-key": this.array.apiKey, ...secrets }),
    );
    await this.vm.sh(`install -m 600 ${file} /etc/pve/priv/storage/${this.storage}.tnblock`);
  }

  /** The same node with other options of the storage. */
  with(change: StorageConfig): Node {
    return new Node(this.vm, this.array, { ...this.config, ...change });
  }

  /** Has two zvols' LUNs or NSIDs change places on the array, behind everybody's back. */
  async swap(one: string, other: string): Promise<void> {
    await this.#changeArray("swap", [one, other].map((zvol) => `${this.array.dataset}/${zvol}`));
  }

  /** Has a zvol's namespace made again under the same NSID. */
  async remake(zvol: string): Promise<void> {
    await this.#changeArray("remake", [`${this.array.dataset}/${zvol}`]);
  }

  /** Has the target ask for mutual CHAP. */
  async requireChap(chap: ChapSecrets): Promise<void> {
    const { user, secret, peerUser, peerSecret } = chap;
    await this.#changeArray("chap", [user, secret, peerUser, peerSecret]);
  }

  /** Has the subsystem let this node in only, with DH-HMAC-CHAP both ways. */
  async requireDhchap(key: string, controllerKey: string): Promise<void> {
    await this.#changeArray("dhchap", [HOST_NQN, key, controllerKey]);
  }

  async #changeArray(what: string, words: readonly string[]): Promise<void> {
    const response = await fetch(`http://127.0.0.1:${this.vm.machine.forwardedPort}/${what}`, {
      method: "POST",
      body: JSON.stringify(words),
      signal: AbortSignal.timeout(60_000),
    });
    assertEquals(await response.json(), { done: true });
  }

  /** Talks to the simulator's control port; answers with the body. */
  async control(method: "GET" | "POST", path: string, body = ""): Promise<unknown> {
    const { hostname, port } = new URL(this.array.control);
    const request = await this.vm.file(
      `${method} ${path} HTTP/1.0\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    const answer = await this.vm.sh(`socat -t 30 - TCP:${hostname}:${port} <${request}`);
    const at = answer.indexOf("\r\n\r\n");
    const text = answer.slice(at + 4).trim();
    return text === "" ? null : JSON.parse(text);
  }
}

/**
 * Runs a case on a node with a fresh array; afterwards everything is taken back, and of the disks
 * nothing may be left.
 */
export async function withNode(
  vm: Vm,
  transport: Transport,
  run: (node: Node) => Promise<void>,
  more: StorageConfig = {},
): Promise<void> {
  const array = await startSimulator(vm);
  try {
    await setUpNode(vm, array);
    const config = storageConfig(array, transport, more);
    if (transport === "iscsi" && config["tnb-use-multipath"] === 1) await startMultipathd(vm);
    await run(new Node(vm, array, config));
  } finally {
    await vm.sh("rm -rf /run/tnblock/links/san");
    await forgetEverything(vm);
    await stopSimulator(vm);
  }
  assertEquals(await vm.leftovers(), []);
}

/** One case for each transport. */
export function forEachTransport(name: string, run: (node: Node) => Promise<void>): VmCase[] {
  return TRANSPORTS.map((transport) => ({
    name: `${transport}: ${name}`,
    run: ({ vm }) => withNode(vm, transport, run),
  }));
}

const compiled = new WeakSet<Vm>();

async function startSimulator(vm: Vm): Promise<ReadyLine> {
  if (!compiled.has(vm)) {
    const source = new URL("kernel_simulator.ts", import.meta.url);
    await compileProgram(source, `${vm.machine.sharedFolder}/kernel-simulator`);
    await vm.sh("cp /shared/kernel-simulator /run/");
    compiled.add(vm);
  }
  await vm.sh(`rm -f ${READY_FILE}
    /run/kernel-simulator 25.10 /data tgt ${PORTALS.join(" ")} \
      >${READY_FILE} 2>/run/simulator.log </dev/null &
    echo $! >/run/simulator.pid`);
  await vm.until(
    `grep -q '}$' ${READY_FILE} || ! kill -0 $(cat /run/simulator.pid) 2>/dev/null`,
    60,
  );
  const line = await vm.sh(`cat ${READY_FILE}`);
  if (line === "") fail(`the simulator did not start: ${await vm.sh("cat /run/simulator.log")}`);
  return JSON.parse(line) as ReadyLine;
}

async function stopSimulator(vm: Vm): Promise<void> {
  await vm.sh("kill $(cat /run/simulator.pid)");
  await vm.until("! kill -0 $(cat /run/simulator.pid) 2>/dev/null", 60);
}

/** What `tnblock install` and `setup` leave on a node, where the product reads it. */
async function setUpNode(vm: Vm, array: ReadyLine): Promise<void> {
  const secrets = await vm.file(JSON.stringify({ "tnb-api-key": array.apiKey }));
  await vm.sh(`set -e
    mkdir -p /etc/nvme /etc/pve/priv/storage /etc/pve/priv/tnblock
    echo ${HOST_NQN} >/etc/nvme/hostnqn
    echo ${HOST_ID} >/etc/nvme/hostid
    echo ${CLUSTER_ID} >/etc/pve/priv/tnblock/cluster-id
    install -m 600 ${secrets} /etc/pve/priv/storage/san.tnblock
    pidof iscsid >/dev/null || iscsid`);
}

/** The zvol in a volume's name, `vol-ZVOL-TAG`. */
export function zvolOf(volname: string): string {
  const [, zvol] = /^vol-(.+)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(volname) ?? [];
  return zvol ?? fail(`"${volname}" is no volume's name`);
}

/** As a Proxmox VE node is set up for multipath. */
async function startMultipathd(vm: Vm): Promise<void> {
  await vm.sh(`cat >/etc/multipath.conf <<'END'
defaults {
  find_multipaths no
  user_friendly_names no
  no_path_retry queue
}
blacklist { devnode "^(loop|vd)" }
END
    multipathd >/dev/null 2>&1 </dev/null`);
  await vm.until("multipathd show status");
}

function storageConfig(array: ReadyLine, transport: Transport, more: StorageConfig): StorageConfig {
  const common = {
    type: "tnblock",
    content: "images,rootdir",
    shared: 1,
    "tnb-api-host": array.host,
    "tnb-api-port": array.port,
    "tnb-api-user": array.user,
    "tnb-tls-fingerprint": array.fingerprint,
    "tnb-dataset": array.dataset,
    "tnb-sparse": 1,
    "tnb-transport-mode": transport,
  };
  const portals = array.portals[transport === "iscsi" ? "iscsi" : "nvme"].join(",");
  const own = transport === "iscsi"
    ? {
      "tnb-target-iqn": array.targetIqn,
      "tnb-discovery-portal": array.portals.iscsi[0] ?? `${PORTALS[0]}:3260`,
      "tnb-portals": portals,
      "tnb-use-multipath": 1,
    }
    : {
      "tnb-subsystem-nqn": array.subsystemNqn,
      "tnb-discovery-portal": array.portals.nvme[0] ?? `${PORTALS[0]}:4420`,
      "tnb-portals": portals,
    };
  return { ...common, ...own, ...more };
}
