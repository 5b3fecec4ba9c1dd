/** What the tests of the simulated node share: a node, what an array may offer, and how programs act on it. */

import { execFile } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type {
  Exports,
  LunExport,
  NamespaceExport,
  SubsystemExport,
  TargetExport,
} from "../../../src/simulator/exports.ts";
import {
  type HostPlayer,
  hostPlayer,
  type HostPlayerOptions,
} from "../../../src/simulator/host_player/player.ts";
import { scratchBase } from "../../support/scratch.ts";

export const MIB = 1 << 20;
export const NQN = "nqn.2011-06.com.truenas:uuid:7b0c4d52-3f1e-4a86-9d0a-2c6e8f1b9a47:pve";
export const IQN = "iqn.2005-10.org.freenas.ctl:pve-storage";
export const PORTALS = ["10.99.0.1", "10.99.1.1"] as const;
const HOST_ID = "2f6c1b0e-9d3a-4a75-8e41-0b1c2d3e4f50";
export const HOST_NQN = `nqn.2014-08.org.nvmexpress:uuid:${HOST_ID}`;

/** Runs `use` with a node in a temporary folder that is removed afterwards. */
export async function withNode(
  use: (node: TestNode) => Promise<void>,
  options: Partial<HostPlayerOptions> = {},
): Promise<void> {
  const directory = mkdtempSync(join(scratchBase(), "tnblock-played-"));
  try {
    const player = await hostPlayer({ directory, clusterId: "c", ...options });
    await use(new TestNode(player)).finally(() => player.close());
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A node with the hands of a program that runs on it. */
export class TestNode {
  constructor(readonly player: HostPlayer) {}

  at(path: string): string {
    return join(this.player.directory, path);
  }

  read(path: string): string {
    return readFileSync(this.at(path), "utf8");
  }

  /** An attribute's value, without its newline. */
  value(path: string): string {
    return this.read(path).replace(/\n$/, "");
  }

  has(path: string): boolean {
    return existsSync(this.at(path));
  }

  list(path: string): string[] {
    return readdirSync(this.at(path)).sort();
  }

  /** All paths below a directory, not following links. */
  walk(path: string): string[] {
    return readdirSync(this.at(path), { withFileTypes: true }).flatMap((entry) => {
      const here = `${path}/${entry.name}`;
      return entry.isDirectory() ? [here, ...this.walk(here)] : [here];
    }).sort();
  }

  inode(path: string): number {
    return statSync(this.at(path)).ino;
  }

  /** Overwrites a control file and waits until the kernel has taken the text. */
  async control(path: string, text: string): Promise<void> {
    const file = this.at(path);
    writeFileSync(file, text);
    await until(`${path} is taken`, () => !existsSync(file) || statSync(file).size === 0);
  }

  /** Writes a connect string; gives the first line of the answer, once the disks are there too. */
  async connect(text: string): Promise<string> {
    const file = this.at("/dev/nvme-fabrics");
    truncateSync(file);
    writeFileSync(file, `${text}\n`);
    await until("the connect is answered", () => /^(instance=\d|error=)/.test(readText(file)));
    const [answer = "", options] = readText(file).split("\n");
    if (!options?.startsWith("instance=-1,cntlid=-1,transport=%s")) throw new Error("no options");
    // Orders are carried out one after the other: the scan comes before this one.
    await this.player.setPortalUp("192.0.2.1", 4420, true);
    return answer;
  }

  /** Connects to a portal as this node. */
  connectTo(address: string, more = ""): Promise<string> {
    return this.connect(connectString(address) + more);
  }

  run(program: string, ...args: string[]): Promise<{ status: number; out: string; err: string }> {
    return new Promise((resolve) => {
      execFile(this.at(program), args, { timeout: 20_000 }, (error, out, err) => {
        resolve({ status: error === null ? 0 : Number(error.code ?? 128), out, err });
      });
    });
  }

  /** `iscsiadm` for one portal: the status. */
  async iscsiadm(address: string, ...action: string[]): Promise<number> {
    const portal = ["-T", IQN, "-p", `${address}:3260,1`];
    const args = action[0] === "new"
      ? ["-m", "node", "-o", "new", ...portal]
      : ["-m", "node", ...portal, ...action];
    return (await this.run("/usr/sbin/iscsiadm", ...args)).status;
  }

  /** Writes the record of a portal with `scan = manual` and these settings, and logs in. */
  async login(address: string, settings: Record<string, string> = {}): Promise<number> {
    await this.iscsiadm(address, "new");
    const record = this.at(`/var/lib/iscsi/nodes/${IQN}/${address},3260,1/default`);
    const lines = Object.entries({ "node.session.scan": "manual", ...settings });
    const added = lines.map(([name, value]) => `${name} = ${value}\n`).join("");
    writeFileSync(record, readText(record).replace("# END RECORD\n", `${added}# END RECORD\n`));
    return await this.iscsiadm(address, "--login");
  }

  /** Waits until udev is done with a disk: its link leads to its node. */
  async link(name: string): Promise<string> {
    await until(`${name} is there`, () => this.has(`/dev/disk/by-id/${name}`));
    return name;
  }
}

export function connectString(address: string, nqn = NQN): string {
  return `transport=tcp,traddr=${address},trsvcid=4420,nqn=${nqn},hostnqn=${HOST_NQN},` +
    `hostid=${HOST_ID},nr_io_queues=2,keep_alive_tmo=5,reconnect_delay=10,ctrl_loss_tmo=600`;
}

/** Waits for a condition, at most ten seconds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`Waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function readText(path: string): string {
  return readFileSync(path, "utf8");
}

export function namespace(nsid: number, more: Partial<NamespaceExport> = {}): NamespaceExport {
  const digits = String(nsid).padStart(12, "0");
  return {
    nsid,
    uuid: `3f2b7c1e-8d4a-4c6f-9b21-${digits}`,
    nguid: `5d1c0f8a-4b27-4e19-8f63-${digits}`,
    zvol: `tank/pve/vm-${nsid}-disk-0`,
    size: nsid * MIB,
    ...more,
  };
}

export function lun(number: number, more: Partial<LunExport> = {}): LunExport {
  return {
    lun: number,
    naa: `6589cfc000000${String(number).padStart(19, "a")}`,
    serial: `serial${number}`,
    blockSize: 512,
    readOnly: false,
    zvol: `tank/pve/vm-${number}-disk-0`,
    size: (number + 1) * MIB,
    ...more,
  };
}

export function nvme(
  namespaces: readonly NamespaceExport[],
  more: Partial<SubsystemExport> = {},
): Exports {
  const subsystem: SubsystemExport = {
    nqn: NQN,
    serial: "8f1b9a472c6e4d527b0c",
    allowAnyHost: true,
    hosts: [],
    ports: PORTALS.map((address) => ({ address, port: 4420 })),
    namespaces,
    ...more,
  };
  return { ...NOTHING, nvmet: { running: true, subsystems: [subsystem] } };
}

export function iscsi(luns: readonly LunExport[], more: Partial<TargetExport> = {}): Exports {
  const target: TargetExport = { iqn: IQN, portals: PORTALS, initiators: [], luns, ...more };
  return { ...NOTHING, iscsi: { running: true, port: 3260, targets: [target] } };
}

/** An array whose services run and offer nothing. */
export const NOTHING: Exports = {
  iscsi: { running: true, port: 3260, targets: [] },
  nvmet: { running: true, subsystems: [] },
};
