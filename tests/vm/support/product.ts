/**
 * Where the product runs in the VM: the simulated array with its API and its kernel data side, and one
 * node or two that are set up as `tnblock install` and `setup` leave them.
 */

import { assertEquals, fail } from "@std/assert";
import { compileProgram } from "./compile.ts";
import { forgetEverything } from "./initiator.ts";
import { Node, type StorageConfig } from "./node.ts";
import type { VmCase } from "./suite.ts";
import { API_ADDRESS, PORTALS, type Vm } from "./vm.ts";
import type { ReadyLine } from "../../../src/simulator/simulator.ts";

const CLUSTER_ID = "b6a5ec1e-4d0f-4c39-8f57-9a1de0a3c7f4";
const READY_FILE = "/run/simulator.ready";

export type Transport = "iscsi" | "nvme-tcp";

const TRANSPORTS: readonly Transport[] = ["nvme-tcp", "iscsi"];

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
  await withNodes([vm], transport, async ([node]) => await run(node ?? fail("no node")), more);
}

/** As {@link withNode}, on several nodes of one cluster; the first machine is the array's. */
async function withNodes(
  vms: readonly Vm[],
  transport: Transport,
  run: (nodes: readonly Node[]) => Promise<void>,
  more: StorageConfig = {},
): Promise<void> {
  await withArray(vms, async (array) => {
    const config = storageConfig(array, transport, more);
    for (const vm of vms) {
      if (transport === "iscsi" && config["tnb-use-multipath"] === 1) await startMultipathd(vm);
    }
    await run(vms.map((vm) => new Node(vm, array, config)));
  });
}

/**
 * Runs a case on a node that has a storage on each transport, of one fresh array: two nodes, as it were, of one
 * name. Each storage has a dataset of its own.
 */
export async function withBothTransports(
  vm: Vm,
  run: (nodes: readonly Node[]) => Promise<void>,
): Promise<void> {
  await withArray([vm], async (array) => {
    await startMultipathd(vm);
    const nodes = [];
    for (const transport of TRANSPORTS) {
      const dataset = `${array.dataset}-${transport}`;
      const config = storageConfig(array, transport, { "tnb-dataset": dataset });
      const node = new Node(vm, array, config, `san-${transport}`);
      await node.makeDataset(dataset);
      await node.setSecrets({});
      nodes.push(node);
    }
    await run(nodes);
  });
}

/** Runs a case with a fresh array, with these machines set up for it; the first has it inside. */
async function withArray(
  vms: readonly Vm[],
  run: (array: ReadyLine) => Promise<void>,
): Promise<void> {
  const [arrayVm = fail("no machine")] = vms;
  const array = await startSimulator(arrayVm);
  try {
    for (const vm of vms) await setUpNode(vm, array);
    await run(array);
  } finally {
    for (const vm of vms) {
      await vm.sh("rm -rf /run/tnblock/links/*");
      await forgetEverything(vm);
    }
    await stopSimulator(arrayVm);
  }
  for (const vm of vms) assertEquals(await vm.leftovers(), []);
}

/** One case for each transport. */
export function forEachTransport(name: string, run: (node: Node) => Promise<void>): VmCase[] {
  return TRANSPORTS.map((transport) => ({
    name: `${transport}: ${name}`,
    run: ({ vm }) => withNode(vm, transport, run),
  }));
}

/** One case for each transport, or for those named, on two nodes of a cluster. */
export function forTwoNodes(
  name: string,
  run: (one: Node, other: Node) => Promise<void>,
  transports = TRANSPORTS,
): VmCase[] {
  return transports.map((transport) => ({
    name: `${transport}: ${name}`,
    run: async ({ vm, secondVm }) =>
      await withNodes([vm, await secondVm()], transport, async ([one, other]) => {
        if (one !== undefined && other !== undefined) await run(one, other);
      }),
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
    /run/kernel-simulator 25.10 ${API_ADDRESS} /data tgt ${PORTALS.join(" ")} \
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
    echo ${vm.hostNqn} >/etc/nvme/hostnqn
    echo ${vm.hostId} >/etc/nvme/hostid
    echo ${CLUSTER_ID} >/etc/pve/priv/tnblock/cluster-id
    install -m 600 ${secrets} /etc/pve/priv/storage/san.tnblock
    pidof iscsid >/dev/null || iscsid`);
}

/** As a Proxmox VE node is set up for multipath. */
async function startMultipathd(vm: Vm): Promise<void> {
  await vm.sh(`cat >/etc/multipath.conf <<'END'
defaults {
  find_multipaths no
  user_friendly_names no
  no_path_retry queue
}
blacklist {
  devnode "^(loop|vd)"
}
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
