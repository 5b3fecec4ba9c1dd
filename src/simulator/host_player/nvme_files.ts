/**
 * The sysfs attributes of NVMe controllers, subsystems and disks, as recorded from a real kernel
 * (6.12). What no program reads to find or check a disk (statistics, events, power) is left out.
 */

import type { NamespaceExport } from "../exports.ts";
import { sectorsText } from "./block_disk.ts";
import { sourceAddress } from "./node.ts";
import type { ConnectOptions } from "./nvme_connect.ts";
import type { DiskRecord } from "./udev.ts";
import { CONTROL_FILE, type Entries } from "./tree.ts";

/** Where the kernel keeps fabrics controllers. */
export const CONTROLLERS = "/sys/devices/virtual/nvme-fabrics/ctl";
/** Where it keeps subsystems, and with native multipath their disks. */
export const SUBSYSTEMS = "/sys/devices/virtual/nvme-subsystem";

/** Identify data is padded with spaces, and the kernel prints the padding. */
const MODEL = "TrueNAS".padEnd(40);
const FIRMWARE = "25.10".padEnd(8);

/** `address` of a controller; a controller that has lost its portal has no source address. */
export function addressText(options: ConnectOptions, live: boolean): string {
  const portal = `traddr=${options.address},trsvcid=${options.port}`;
  return live ? `${portal},src_addr=${sourceAddress(options.address)}` : portal;
}

/** A controller's directory, without its path disks. */
export function controllerEntries(
  instance: number,
  cntlid: number,
  options: ConnectOptions,
  serial: string,
): Entries {
  const { reconnectDelay, controllerLoss } = options;
  // The kernel counts reconnects, so the time comes back rounded up to whole delays.
  const lossText = controllerLoss < 0
    ? "off"
    : String(Math.ceil(controllerLoss / reconnectDelay) * reconnectDelay);
  return {
    address: addressText(options, true),
    cntlid: String(cntlid),
    cntrltype: "io",
    ctrl_loss_tmo: lossText,
    dctype: "none",
    delete_controller: CONTROL_FILE,
    dev: `245:${instance}`,
    device: { linkTo: CONTROLLERS },
    dhchap_ctrl_secret: options.controllerSecret ?? "none",
    dhchap_secret: options.secret ?? "none",
    fast_io_fail_tmo: "off",
    firmware_rev: FIRMWARE,
    hostid: options.hostId,
    hostnqn: options.hostNqn,
    kato: String(options.keepAlive),
    model: MODEL,
    numa_node: "-1",
    queue_count: String(options.queues + 1),
    reconnect_delay: String(reconnectDelay),
    rescan_controller: CONTROL_FILE,
    reset_controller: CONTROL_FILE,
    serial: serial.padEnd(20),
    sqsize: "127",
    state: "live",
    subsysnqn: options.nqn,
    subsystem: { linkTo: "/sys/class/nvme" },
    transport: "tcp",
    uevent: [
      "MAJOR=245",
      `MINOR=${instance}`,
      `DEVNAME=nvme${instance}`,
      "NVME_TRTYPE=tcp",
      `NVME_TRADDR=${options.address}`,
      `NVME_TRSVCID=${options.port}`,
      "NVME_HOST_TRADDR=none",
      "NVME_HOST_IFACE=none",
    ].join("\n"),
  };
}

/** A subsystem's directory, without links to controllers and without disks. */
export function subsystemEntries(nqn: string, serial: string): Entries {
  return {
    firmware_rev: FIRMWARE,
    iopolicy: "numa",
    model: MODEL,
    serial: serial.padEnd(20),
    subsysnqn: nqn,
    subsystem: { linkTo: "/sys/class/nvme-subsystem" },
    subsystype: "nvm",
    uevent: "",
  };
}

/** What a disk's directory is made from. */
export interface NvmeDiskFiles {
  readonly name: string;
  /** The controller (path disks) or subsystem (disks with a node) it belongs to. */
  readonly parent: string;
  /** `major:minor`; undefined for a hidden path disk. */
  readonly device: string | undefined;
  readonly sequence: number;
  readonly namespace: NamespaceExport;
}

/** The directory of a disk or of a hidden path disk. */
export function nvmeDiskEntries(disk: NvmeDiskFiles): Entries {
  const { namespace, device } = disk;
  const uuid = namespace.uuid.toLowerCase();
  const sectors = sectorsText(namespace.size);
  const numbers = device?.split(":");
  return {
    ...device === undefined
      ? { ana_grpid: "1", ana_state: "optimized", hidden: "1" }
      : { dev: device, hidden: "0" },
    csi: "0",
    device: { linkTo: disk.parent },
    diskseq: String(disk.sequence),
    holders: {},
    metadata_bytes: "0",
    nguid: dashed(namespace.nguid),
    nsid: String(namespace.nsid),
    nuse: sectors,
    queue: {
      discard_granularity: "512",
      dma_alignment: "3",
      hw_sector_size: "512",
      logical_block_size: "512",
      physical_block_size: "512",
      rotational: "0",
    },
    removable: "0",
    ro: "0",
    size: sectors,
    slaves: {},
    subsystem: { linkTo: "/sys/class/block" },
    uevent: [
      ...numbers === undefined
        ? []
        : [`MAJOR=${numbers[0]}`, `MINOR=${numbers[1]}`, `DEVNAME=${disk.name}`],
      "DEVTYPE=disk",
      `DISKSEQ=${disk.sequence}`,
    ].join("\n"),
    uuid,
    wwid: `uuid.${uuid}`,
  };
}

/** The generic character device that goes with a disk, e.g. `ng0n1`. */
export function genericEntries(name: string, minor: number, parent: string): Entries {
  return {
    dev: `244:${minor}`,
    device: { linkTo: parent },
    subsystem: { linkTo: "/sys/class/nvme-generic" },
    uevent: ["MAJOR=244", `MINOR=${minor}`, `DEVNAME=${name}`].join("\n"),
  };
}

/** What udev 257 records about a disk. */
export function nvmeDiskRecord(disk: NvmeDiskFiles, subsystemSerial: string): DiskRecord {
  const uuid = disk.namespace.uuid.toLowerCase();
  const serial = `TrueNAS_${subsystemSerial}`;
  const { nsid } = disk.namespace;
  return {
    priority: 0,
    links: [
      `disk/by-diskseq/${disk.sequence}`,
      `disk/by-id/nvme-${serial}_${nsid}`,
      // Only namespace 1 also gets the link of the time before there were several.
      ...nsid === 1 ? [`disk/by-id/nvme-${serial}`] : [],
      `disk/by-id/nvme-uuid.${uuid}`,
    ],
    properties: {
      DM_MULTIPATH_DEVICE_PATH: "0",
      ID_SERIAL_SHORT: subsystemSerial,
      ID_WWN: `uuid.${uuid}`,
      ID_MODEL: "TrueNAS",
      ID_REVISION: FIRMWARE.trim(),
      ID_NSID: String(nsid),
      ID_SERIAL: `${serial}_${nsid}`,
    },
  };
}

function dashed(hex: string): string {
  const digits = hex.toLowerCase().replace(/[^0-9a-f]/g, "");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
