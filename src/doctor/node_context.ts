/** What the checks of one node share: each fact is read when the first check wants it, and once. */
import { createHash } from "node:crypto";
import type { Host } from "../host/host.ts";
import { scanBlockDevices } from "../host/scan/block_devices.ts";
import type { BlockScan } from "../host/scan/types.ts";
import {
  parseStorageCfg,
  readSections,
  STORAGE_CFG,
  type StorageSection,
} from "../pve/storage_cfg.ts";
import { type Journal, readJournal } from "../volumes/journal.ts";
import { askDaemon, type DaemonAnswer } from "./daemon_answer.ts";
import { once } from "./once.ts";

export { PROGRAM } from "../daemon/unit.ts";

/** Where Proxmox VE looks for the shim. */
export const SHIM_PATH = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/** What systemd says of a unit; empty texts for one that it does not know. */
export interface UnitState {
  /** e.g. `active`, `inactive`, `failed`. */
  readonly active: string;
  /** e.g. `enabled`, `disabled`, `static`. */
  readonly enabled: string;
}

/** Who this node is to arrays, as its files say. */
export interface NodeIdentity {
  readonly hostNqn: string | undefined;
  readonly hostId: string | undefined;
  readonly initiator: string | undefined;
}

/** The storage API as the node's own pvesm tells it, and what the plugins said while they were loaded. */
export interface PveApi {
  readonly version: number;
  readonly age: number;
  readonly complaints: string;
}

/** One node. */
export interface NodeContext {
  /** Read only. */
  readonly host: Host;
  /** Of this program. */
  readonly version: string;
  /** The shim's text that belongs to this program. */
  readonly shim: string;
  /** The command that looks again at a check. */
  again(id: string, storage?: string): string;
  daemon(): Promise<DaemonAnswer>;
  scan(): Promise<BlockScan>;
  /** The text of storage.cfg; undefined when there is none. */
  storageCfg(): Promise<string | undefined>;
  /** Our sections that are enabled on this node. */
  sections(): Promise<readonly StorageSection[]>;
  /** All sections of our type, whatever node they are for. */
  allSections(): Promise<readonly StorageSection[]>;
  unit(name: string): Promise<UnitState>;
  /** Undefined where there is no pvesm, or it fails. */
  pveApi(): Promise<PveApi | undefined>;
  /** SHA-256 of the installed shim; undefined when there is none. */
  installedShim(): Promise<string | undefined>;
  identity(): Promise<NodeIdentity>;
  journal(): Promise<Journal>;
  /** What `multipathd show config` prints; undefined when it does not run. */
  multipathConfig(): Promise<string | undefined>;
  /** What `lvmconfig` prints of the filters; undefined when there is no LVM. */
  lvmConfig(): Promise<string | undefined>;
}

/** What is looked at. */
export interface NodeParts {
  readonly host: Host;
  readonly version: string;
  readonly shim: string;
}

/** Units that checks look at: all are asked in one call. */
const UNITS = [
  "tnblock.service",
  "tnblock.socket",
  "pvedaemon.service",
  "pvestatd.service",
  "pve-cluster.service",
  "iscsid.service",
  "iscsid.socket",
  "multipathd.service",
  "truenas-plugin-broker.service",
];

/** For programs that only read. */
const RUN_MS = 10_000;

/** @param parts the host must be read only already (`readOnlyHost`). */
export function nodeContext({ host, version, shim }: NodeParts): NodeContext {
  const storageCfg = once(() => host.files.readText(STORAGE_CFG));
  const units = once(() => readUnits(host));
  return {
    host,
    version,
    shim,
    again: (id, storage) =>
      `tnblock doctor ${id}${storage === undefined ? "" : ` --storage ${storage}`}`,
    daemon: once(() => askDaemon(host)),
    scan: once(() => scanBlockDevices(host.files)),
    storageCfg,
    sections: once(() => readSections(host.files, host.nodeName)),
    allSections: async () => parseStorageCfg(await storageCfg() ?? ""),
    unit: async (name) => (await units()).get(name) ?? { active: "", enabled: "" },
    pveApi: once(() => readPveApi(host)),
    installedShim: once(async () => {
      const text = await host.files.readText(SHIM_PATH);
      return text === undefined ? undefined : sha256(text);
    }),
    identity: once(() => readIdentity(host)),
    journal: once(() => readJournal(host)),
    multipathConfig: once(() => output(host, "/usr/sbin/multipathd", ["show", "config"])),
    lvmConfig: once(() =>
      output(host, "/usr/sbin/lvmconfig", [
        ...["--typeconfig", "full"],
        ...["devices/global_filter", "devices/filter", "devices/use_devicesfile"],
      ])
    ),
  };
}

/** SHA-256 of a text in hex. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** What a program prints; undefined when it is not there or fails. */
async function output(
  host: Host,
  program: string,
  args: readonly string[],
): Promise<string | undefined> {
  try {
    const { status, stdout } = await host.run(program, args, { deadlineMs: RUN_MS });
    return status === 0 ? stdout : undefined;
  } catch {
    return undefined;
  }
}

/**
 * One block a unit, parted by empty lines:
 *
 * ```text
 * Id=tnblock.service
 * ActiveState=active
 * UnitFileState=enabled
 * ```
 */
async function readUnits(host: Host): Promise<Map<string, UnitState>> {
  const args = ["show", "--property=Id,ActiveState,UnitFileState", ...UNITS];
  const text = await output(host, "/usr/bin/systemctl", args) ?? "";
  return new Map(
    text.split(/\n\s*\n/).map((block) => {
      const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(block)?.[1] ?? "";
      return [value("Id"), { active: value("ActiveState"), enabled: value("UnitFileState") }];
    }),
  );
}

/** `APIVER 13` and `APIAGE 4`, a line each (pve-storage, `src/PVE/CLI/pvesm.pm`). */
async function readPveApi(host: Host): Promise<PveApi | undefined> {
  try {
    const { status, stdout, stderr } = await host.run("/usr/sbin/pvesm", ["apiinfo"], {
      deadlineMs: RUN_MS,
    });
    const version = Number(/^APIVER (\d+)$/m.exec(stdout)?.[1]);
    const age = Number(/^APIAGE (\d+)$/m.exec(stdout)?.[1]);
    return status === 0 && version > 0 ? { version, age, complaints: stderr.trim() } : undefined;
  } catch {
    return undefined;
  }
}

async function readIdentity(host: Host): Promise<NodeIdentity> {
  const line = async (path: string) => {
    const text = (await host.files.readText(path))?.trim();
    return text === "" ? undefined : text;
  };
  const [hostNqn, hostId, initiators] = await Promise.all([
    line("/etc/nvme/hostnqn"),
    line("/etc/nvme/hostid"),
    line("/etc/iscsi/initiatorname.iscsi"),
  ]);
  return {
    hostNqn,
    hostId,
    initiator: /^\s*InitiatorName\s*=\s*(\S+)/m.exec(initiators ?? "")?.[1],
  };
}
