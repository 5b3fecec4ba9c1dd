/** The test VM as the cases see it: commands, the two paths to the array, disks and what is left over. */

import { fail } from "@std/assert";
import type { ShellResult } from "../../../scripts/vm/agent.ts";
import type { Machine } from "../../../scripts/vm/vm.ts";

/** The array's addresses; each is reached over a path of its own. */
export const PORTALS = ["10.99.0.1", "10.99.1.1"] as const;
export type PortalAddress = typeof PORTALS[number];
/** The array's API, where both machines reach it. */
export const API_ADDRESS = "10.98.0.2";

const HOST_IDS = {
  vm: "3c0b8a52-7f3e-4d8c-9a55-0d6f6d5c2b11",
  vm2: "81f4c7de-2b60-4a39-bd0e-6a4c915fe702",
} as const;

/** What the Perl driver answers (`tests/pve/drive.pl`). */
export type PerlAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: string };

/** The array's ends of a second node's two paths. */
const SECOND_NODE_WIRES = ["eth1", "eth2"];

/** A running VM. */
export class Vm {
  readonly machine: Machine;
  /** The machine that the array is in: this one, unless it is a second node. */
  readonly arrayVm: Vm;
  #files = 0;

  /** @param arrayVm given for a second node: the first, which has the array. */
  constructor(machine: Machine, arrayVm?: Vm) {
    this.machine = machine;
    this.arrayVm = arrayVm ?? this;
  }

  /** The node's name, as `hostname` says it. */
  get name(): keyof typeof HOST_IDS {
    return this.arrayVm === this ? "vm" : "vm2";
  }

  /** How the node introduces itself to an NVMe array. */
  get hostId(): string {
    return HOST_IDS[this.name];
  }

  get hostNqn(): string {
    return `nqn.2014-08.org.nvmexpress:uuid:${this.hostId}`;
  }

  /** Runs a bash script; answers with its output, without the last line's end. Fails unless it succeeds. */
  async sh(script: string, options: { timeoutSeconds?: number } = {}): Promise<string> {
    const { status, stdout, stderr } = await this.try(script, options);
    if (status !== 0) fail(`status ${status} from: ${script}\n${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  /** Runs a bash script whatever its status. */
  try(script: string, options: { timeoutSeconds?: number } = {}): Promise<ShellResult> {
    return this.machine.shell(script, options);
  }

  /** Repeats a script until it succeeds. */
  async until(script: string, seconds = 30): Promise<void> {
    const looped = `while ! { ${script}\n}; do sleep 0.05; done`;
    const { status, stderr } = await this.try(looped, { timeoutSeconds: seconds });
    if (status !== 0) fail(`did not come true within ${seconds} s: ${script}\n${stderr}`);
  }

  /** Puts a file into the machine; answers with its path there. */
  async file(content: string): Promise<string> {
    const name = `file-${this.#files++}`;
    await Deno.writeTextFile(`${this.machine.sharedFolder}/${name}`, content);
    return `/shared/${name}`;
  }

  /** Calls one method of the Perl plugin, in a process of its own as root, in taint mode. */
  async perl(
    method: string,
    storeId: string,
    config: Readonly<Record<string, unknown>>,
    args: unknown,
    { timeoutSeconds = 180 } = {},
  ): Promise<PerlAnswer> {
    const [configFile, argsFile] = await Promise.all(
      [config, args].map((value) => this.file(JSON.stringify(value))),
    );
    const command = `perl -T -I/checkout/tests/pve/lib /checkout/tests/pve/drive.pl ` +
      `${method} ${storeId} ${configFile} ${argsFile}`;
    const { status, stdout, stderr } = await this.try(command, { timeoutSeconds });
    const answer = stdout.trim().split("\n").at(-1) ?? "";
    if (!answer.startsWith("{")) fail(`status ${status} from ${command}\n${stdout}${stderr}`);
    return JSON.parse(answer) as PerlAnswer;
  }

  /**
   * Takes a path away, as a pulled cable does: at the array's end, so that this end keeps its address
   * and its route, and gets no answer.
   */
  async linkDown(portal: PortalAddress): Promise<void> {
    await this.arrayVm.sh(`ip -n tgt link set ${this.#arrayEnd(portal)} down`);
  }

  async linkUp(...portals: readonly PortalAddress[]): Promise<void> {
    await this.arrayVm.sh(
      portals.map((portal) => `ip -n tgt link set ${this.#arrayEnd(portal)} up`).join("\n"),
    );
  }

  /**
   * Takes the array away from all its nodes, its API included: no connection is closed, and nobody gets an
   * answer. For the machine that has the array the way to its API is its own loopback.
   */
  async arrayAway(): Promise<void> {
    await this.linkDown(PORTALS[0]);
    await this.linkDown(PORTALS[1]);
    await this.arrayVm.sh(`set -e
      tc qdisc add dev lo root handle 1: prio priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
      tc qdisc add dev lo parent 1:3 handle 30: netem loss 100%
      tc filter add dev lo parent 1: protocol ip u32 match ip dst ${API_ADDRESS}/32 flowid 1:3`);
  }

  /** Ends what {@link arrayAway} did, or was about to do. */
  async arrayBack(): Promise<void> {
    await this.linkUp(...PORTALS);
    await this.arrayVm.sh("tc qdisc del dev lo root 2>/dev/null || true");
  }

  #arrayEnd(portal: PortalAddress): string {
    const path = PORTALS.indexOf(portal);
    return this.arrayVm === this ? `t${path}` : SECOND_NODE_WIRES[path] ?? "";
  }

  /** Fills the beginning of a disk with random data, past every cache; answers with its SHA-256. */
  async fill(path: string, mebibytes = 4): Promise<string> {
    return (await this.sh(
      `set -e; head -c ${mebibytes}M /dev/urandom >/tmp/fill
       dd if=/tmp/fill of=${path} bs=1M oflag=direct conv=nocreat,notrunc status=none
       sha256sum </tmp/fill; rm /tmp/fill`,
    )).slice(0, 64);
  }

  /** SHA-256 of the beginning of a disk, read past every cache. */
  async hash(path: string, mebibytes = 4): Promise<string> {
    return (await this.sh(
      `set -o pipefail; dd if=${path} bs=1M count=${mebibytes} iflag=direct,fullblock status=none | sha256sum`,
    )).slice(0, 64);
  }

  /** Every trace of storage on the initiator's side; empty when nothing is left. */
  async leftovers(): Promise<string[]> {
    const found = await this.sh(`shopt -s nullglob
      for path in /sys/class/nvme/nvme* /sys/class/iscsi_session/* /sys/block/{nvme,sd,dm-}*; do echo "$path"; done
      for path in /dev/disk/by-id/{nvme-,wwn-,scsi-,dm-}* /var/lib/iscsi/nodes/*; do echo "$path"; done
      [ ! -d /run/tnblock/links ] || find /run/tnblock/links -type l
      find /dev -xdev -type f -not -path '/dev/.*'`);
    return found === "" ? [] : found.split("\n");
  }
}
