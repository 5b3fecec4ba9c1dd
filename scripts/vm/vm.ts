/**
 * Starts and ends the test VM: QEMU on the image that `build_image.sh` made, with the checkout
 * shared read-only at /checkout, a folder of the run's own at /shared, and the agent on loopback.
 * A second machine can be wired to the first: another node of the cluster, with a kernel of its own.
 */

import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { runInVm, type ShellResult } from "./agent.ts";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const MEMORY_MIB = 2048;
const DATA_DISK_BYTES = 8 * 1024 ** 3;
/** An emulated boot takes 8 s on an idle machine of two cores; a loaded one needs several times that. */
const BOOT_SECONDS = 180;
/**
 * The cables between two machines, each a socket: eth1 and eth2 are the two paths to the array, eth3
 * leads to its API. Without a second machine they lie open.
 */
const WIRES = ["path0", "path1", "api"];

/** A running machine. */
export interface Machine {
  readonly agentPort: number;
  /** On our loopback, what the guest's port 7001 is in the guest. */
  readonly forwardedPort: number;
  /** A folder of this run, which the guest sees as /shared. */
  readonly sharedFolder: string;
  /** Where the ends of this machine's cables are, for a second machine to be wired to. */
  readonly wireFolder: string;
  /** Runs a bash script in the guest, whatever its status. */
  shell(script: string, options?: { timeoutSeconds?: number }): Promise<ShellResult>;
  /** Ends QEMU and removes the run's folder. */
  stop(): Promise<void>;
}

/** Options of {@link bootMachine}. */
export interface BootOptions {
  /** The folder that `build_image.sh` printed. */
  readonly image: string;
  /** The machine is ended after this time, whatever happens to us. Default 1,800. */
  readonly lifetimeSeconds?: number;
  /** Words to add to the kernel's command line, e.g. `nvme_core.multipath=N`. */
  readonly kernelArguments?: readonly string[];
  /** QEMU's processor model. Default `max`. */
  readonly cpu?: string;
  /** A running machine, which has the array: this one is another node, without an array of its own. */
  readonly wiredTo?: Machine;
  /** Ends a boot that is under way; a machine that is up is ended by `stop()`. */
  readonly signal?: AbortSignal;
}

/** Builds the image where it is missing; answers with its folder. Needs root then. */
export async function ensureImage(): Promise<string> {
  const { code, stdout } = await new Deno.Command(`${CHECKOUT}/scripts/vm/build_image.sh`, {
    args: [`${CHECKOUT}/.cache/vm`],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`build_image.sh ended with status ${code}`);
  return new TextDecoder().decode(stdout).trim().split("\n").at(-1) ?? "";
}

/** Boots a machine and waits until its agent answers. */
export async function bootMachine(options: BootOptions): Promise<Machine> {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-vm-" });
  const sharedFolder = `${folder}/shared`;
  await Deno.mkdir(sharedFolder);
  const dataDisk = `${folder}/data.img`;
  await Deno.writeFile(dataDisk, new Uint8Array());
  await Deno.truncate(dataDisk, DATA_DISK_BYTES);
  const [agentPort, forwardedPort] = await Promise.all([freePort(), freePort()]);
  const lifetime = options.lifetimeSeconds ?? 1800;
  // `timeout` ends QEMU also when this process is killed, or QEMU pauses on an error inside KVM.
  const qemu = new Deno.Command("timeout", {
    args: ["--kill-after=5", String(lifetime), "qemu-system-x86_64"].concat(
      qemuArguments(options, {
        folder,
        sharedFolder,
        dataDisk,
        forwards: { [agentPort]: 7000, [forwardedPort]: 7001 },
      }),
    ),
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let ended = false;
  const complaint = qemu.stderr.pipeThrough(new TextDecoderStream());
  const ending = Promise.all([qemu.status, Array.fromAsync(complaint)]).then(([, text]) => {
    ended = true;
    return text.join("").trim();
  });

  const machine: Machine = {
    agentPort,
    forwardedPort,
    sharedFolder,
    wireFolder: folder,
    shell: (script, { timeoutSeconds = 120 } = {}) => runInVm(agentPort, script, timeoutSeconds),
    async stop() {
      if (!ended) qemu.kill("SIGTERM");
      await ending;
      await Deno.remove(folder, { recursive: true });
    },
  };
  const deadline = Date.now() + BOOT_SECONDS * 1000;
  while (!(await answers(machine))) {
    if (ended || Date.now() > deadline || options.signal?.aborted) {
      const console = await Deno.readTextFile(`${folder}/console.log`).catch(() => "");
      await machine.stop();
      throw new Error(`The VM did not start: ${await ending}\n${console.slice(-4000)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  // QEMU holds the disk open; without a name it cannot be left behind.
  await Deno.remove(dataDisk);
  return machine;
}

function qemuArguments(
  options: BootOptions,
  run: {
    folder: string;
    sharedFolder: string;
    dataDisk: string;
    /** Ports of our loopback, and the guest's ports they lead to. */
    forwards: Readonly<Record<number, number>>;
  },
): string[] {
  const { wiredTo } = options;
  const kernelArguments = "console=ttyS0 quiet loglevel=3 panic=-1 net.ifnames=0 mitigations=off " +
    `random.trust_cpu=on tsc=unstable${wiredTo === undefined ? "" : " vm.node=2"}`;
  const share = (tag: string, path: string, more: string) => [
    ...["-fsdev", `local,id=${tag},path=${path},security_model=none,multidevs=remap${more}`],
    ...["-device", `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ];
  const drive = (id: string, file: string, more: string) => [
    ...["-drive", `file=${file},format=raw,if=none,id=${id},cache=unsafe${more}`],
    // Without a serial number: no link in /dev/disk/by-id, as on a node before its first disk.
    ...["-device", `virtio-blk-pci,drive=${id}`],
  ];
  const wire = (name: string, number: number) => [
    "-netdev",
    `stream,id=${name},server=${wiredTo === undefined ? "on" : "off"},addr.type=unix,` +
    `addr.path=${wiredTo?.wireFolder ?? run.folder}/${name}`,
    // The hardware addresses that QEMU chooses by itself would be the same at both ends.
    "-device",
    `virtio-net-pci,netdev=${name},mac=52:54:00:00:0${wiredTo === undefined ? 1 : 2}:0${number}`,
  ];
  const forwards = Object.entries(run.forwards)
    .map(([here, there]) => `,hostfwd=tcp:127.0.0.1:${here}-:${there}`).join("");
  return [
    ...["-M", "q35", "-accel", canUseKvm() ? "kvm" : "tcg,thread=multi"],
    ...["-cpu", options.cpu ?? "max", "-smp", "2", "-m", String(MEMORY_MIB)],
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
    ...["-kernel", `${options.image}/vmlinuz`, "-initrd", `${options.image}/initramfs.gz`],
    ...["-append", [kernelArguments, ...options.kernelArguments ?? []].join(" ")],
    ...drive("root", `${options.image}/root.img`, ",snapshot=on"),
    ...drive("data", run.dataDisk, ",discard=unmap"),
    ...["-netdev", `user,id=net,restrict=on${forwards}`],
    ...["-device", "virtio-net-pci,netdev=net", ...WIRES.flatMap(wire)],
    ...["-device", "virtio-rng-pci"],
    ...share("checkout", CHECKOUT, ",readonly=on"),
    ...share("shared", run.sharedFolder, ""),
    ...["-serial", `file:${run.folder}/console.log`],
  ];
}

/**
 * That /dev/kvm opens proves nothing: page-table virtualisation has it too, and cannot run a
 * distribution's kernel. The processor must offer virtualisation itself.
 */
function canUseKvm(): boolean {
  try {
    if (!/^flags.* (vmx|svm)( |$)/m.test(Deno.readTextFileSync("/proc/cpuinfo"))) return false;
    Deno.openSync("/dev/kvm", { read: true, write: true }).close();
    return true;
  } catch {
    return false;
  }
}

async function answers(machine: Machine): Promise<boolean> {
  try {
    return (await machine.shell("true", { timeoutSeconds: 10 })).status === 0;
  } catch {
    return false;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (address === null || typeof address === "string") reject(new Error("No free port"));
        else resolve(address.port);
      });
    });
  });
}
