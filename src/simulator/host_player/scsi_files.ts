/**
 * The sysfs attributes of an iSCSI session and of its SCSI disks, as recorded from a real kernel
 * (6.12, open-iscsi 2.1.11). What no program reads to find or check a disk is left out.
 */

import type { LunExport } from "../exports.ts";
import { sectorsText } from "./block_disk.ts";
import { CONTROL_FILE, type Entries } from "./tree.ts";
import type { DiskRecord } from "./udev.ts";
import type { Portal } from "./iscsi_records.ts";

/** What the directories of a session are made from. */
export interface SessionFiles {
  readonly id: number;
  readonly host: number;
  readonly portal: Portal;
  readonly initiator: string;
  /** The node's own address. */
  readonly source: string;
  /** Seconds. */
  readonly recoveryTimeout: string;
  readonly record: Readonly<Record<string, string>>;
}

/** The directory of the session's SCSI host, with the session and its connection in it. */
export function hostEntries(files: SessionFiles): Entries {
  const { id, host, portal, record } = files;
  const here = `/sys/devices/platform/host${host}`;
  const secret = (name: string): string => record[`node.session.auth.${name}`] ?? "(null)";
  return {
    iscsi_host: {
      [`host${host}`]: {
        device: { linkTo: here },
        hwaddress: "(null)",
        initiatorname: "(null)",
        ipaddress: files.source,
        netdev: "(null)",
        subsystem: { linkTo: "/sys/class/iscsi_host" },
        uevent: "",
      },
    },
    scsi_host: {
      [`host${host}`]: {
        active_mode: "Initiator",
        can_queue: "113",
        device: { linkTo: here },
        proc_name: "iscsi_tcp",
        scan: CONTROL_FILE,
        state: "running",
        subsystem: { linkTo: "/sys/class/scsi_host" },
        uevent: "",
        unique_id: String(host),
      },
    },
    [`session${id}`]: {
      [`connection${id}:0`]: {
        iscsi_connection: {
          [`connection${id}:0`]: {
            address: portal.address,
            device: { linkTo: `${here}/session${id}/connection${id}:0` },
            persistent_address: portal.address,
            persistent_port: String(portal.port),
            port: String(portal.port),
            state: "up",
            subsystem: { linkTo: "/sys/class/iscsi_connection" },
            uevent: "",
          },
        },
        uevent: "",
      },
      iscsi_session: {
        [`session${id}`]: {
          device: { linkTo: `${here}/session${id}` },
          ifacename: "default",
          initiatorname: files.initiator,
          password: secret("password"),
          password_in: secret("password_in"),
          recovery_tmo: files.recoveryTimeout,
          state: "LOGGED_IN",
          subsystem: { linkTo: "/sys/class/iscsi_session" },
          target_id: "0",
          target_state: "SCANNED",
          targetname: portal.iqn,
          tpgt: String(portal.tpgt),
          uevent: "",
          username: secret("username"),
          username_in: secret("username_in"),
        },
      },
      uevent: "",
    },
    uevent: "DEVTYPE=scsi_host",
  };
}

/** What an initiator learns of a LUN by asking it; sysfs keeps it until the next rescan. */
export interface ScsiIdentity {
  readonly naa: string;
  readonly serial: string;
  /** Bytes. */
  readonly size: number;
}

/** The attributes of a SCSI device that hold its identity. */
export function identityEntries(
  identity: ScsiIdentity,
  iqn: string,
): Record<"wwid" | "vpd_pg80" | "vpd_pg83", string | Uint8Array> {
  const t10 = `TrueNAS iSCSI Disk:${identity.serial}`;
  const designators = [
    // Code set, then association and type: NAA, T10 vendor id, target port name, target device name.
    designator(0x01, 0x03, Buffer.from(identity.naa, "hex")),
    designator(0x02, 0x01, Buffer.from(t10)),
    designator(0x53, 0x98, padded(`${iqn},t,0x0001`)),
    designator(0x53, 0xa8, padded(iqn)),
  ];
  return {
    wwid: `naa.${identity.naa}`,
    vpd_pg80: vpdPage(0x80, Buffer.from(identity.serial)),
    vpd_pg83: vpdPage(0x83, Buffer.concat(designators)),
  };
}

/** What the directory of a SCSI device is made from. */
export interface ScsiDiskFiles {
  readonly name: string;
  /** `host:channel:target:lun`. */
  readonly address: string;
  /** The directory of the SCSI device. */
  readonly directory: string;
  /** `major:minor`. */
  readonly device: string;
  /** Index of the disk and of its `sg` device. */
  readonly index: number;
  readonly sequence: number;
  readonly lun: LunExport;
  readonly iqn: string;
}

/** The directory of a SCSI device with its disk in it. */
export function scsiDeviceEntries(files: ScsiDiskFiles): Entries {
  const { address, directory, lun, name, index } = files;
  const withLink = (kind: string, more: Entries = {}): Entries => ({
    device: { linkTo: directory },
    subsystem: { linkTo: `/sys/class/${kind}` },
    uevent: "",
    ...more,
  });
  return {
    ...identityEntries(lun, files.iqn),
    access_state: "active/optimized",
    block: { [name]: scsiDiskEntries(files) },
    delete: CONTROL_FILE,
    device_blocked: "0",
    generic: { linkTo: `${directory}/scsi_generic/sg${index}` },
    model: "iSCSI Disk".padEnd(16),
    queue_depth: "32",
    rescan: CONTROL_FILE,
    rev: "0123",
    scsi_device: { [address]: withLink("scsi_device") },
    scsi_disk: { [address]: withLink("scsi_disk", { cache_type: "write back" }) },
    scsi_generic: { [`sg${index}`]: withLink("scsi_generic", { dev: `21:${index}` }) },
    scsi_level: "7",
    state: "running",
    timeout: "30",
    type: "0",
    uevent: "DEVTYPE=scsi_device\nDRIVER=sd\nMODALIAS=scsi:t-0x00",
    vendor: "TrueNAS".padEnd(8),
    vpd_pg0: vpdPage(0x00, Buffer.from([0x00, 0x80, 0x83])),
  };
}

function scsiDiskEntries({ lun, device, sequence, name, directory }: ScsiDiskFiles): Entries {
  return {
    ...commonDiskEntries(name, device, sequence, lun.size, lun.blockSize),
    device: { linkTo: directory },
    ro: lun.readOnly ? "1" : "0",
  };
}

/** What disks of the SCSI and of the device-mapper drivers have in common. */
export function commonDiskEntries(
  name: string,
  device: string,
  sequence: number,
  size: number,
  blockSize: number,
): Entries {
  const [major, minor] = device.split(":");
  return {
    dev: device,
    diskseq: String(sequence),
    hidden: "0",
    holders: {},
    queue: {
      discard_granularity: String(blockSize),
      dma_alignment: "511",
      hw_sector_size: String(blockSize),
      logical_block_size: String(blockSize),
      physical_block_size: String(blockSize),
      rotational: "1",
    },
    removable: "0",
    ro: "0",
    size: sectorsText(size),
    slaves: {},
    subsystem: { linkTo: "/sys/class/block" },
    uevent: [
      `MAJOR=${major}`,
      `MINOR=${minor}`,
      `DEVNAME=${name}`,
      "DEVTYPE=disk",
      `DISKSEQ=${sequence}`,
    ].join("\n"),
  };
}

/** What udev 257 records about a SCSI disk; `member` once multipath-tools have it. */
export function scsiDiskRecord(
  sequence: number,
  identity: ScsiIdentity,
  portal: Portal,
  lun: number,
  member: boolean,
): DiskRecord {
  const { naa, serial } = identity;
  const path = `ip-${portal.address}:${portal.port}-iscsi-${portal.iqn}-lun-${lun}`;
  return {
    priority: 0,
    links: [
      `disk/by-id/scsi-3${naa}`,
      `disk/by-path/${path}`,
      `disk/by-diskseq/${sequence}`,
      `disk/by-id/wwn-0x${naa}`,
    ],
    properties: {
      ID_SCSI: "1",
      ID_VENDOR: "TrueNAS",
      ID_MODEL: "iSCSI_Disk",
      ID_TYPE: "disk",
      ID_WWN_WITH_EXTENSION: `0x${naa}`,
      ID_WWN: `0x${naa.slice(0, 16)}`,
      ID_BUS: "scsi",
      ID_SERIAL: `3${naa}`,
      ID_SERIAL_SHORT: naa,
      ID_SCSI_SERIAL: serial,
      DM_MULTIPATH_DEVICE_PATH: member ? "1" : "0",
      ...member ? { ID_FS_TYPE: "mpath_member", SYSTEMD_READY: "0" } : {},
      ID_PATH: path,
    },
  };
}

/** A vital product data page: peripheral, page code, length, payload. */
function vpdPage(code: number, payload: Uint8Array): Uint8Array {
  const header = Buffer.from([0, code, 0, 0]);
  header.writeUInt16BE(payload.length, 2);
  return Buffer.concat([header, payload]);
}

function designator(codeSet: number, type: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from([codeSet, type, 0, value.length]), value]);
}

/** SCSI name strings end in a NUL and fill up to a multiple of four. */
function padded(text: string): Uint8Array {
  return Buffer.alloc(Math.ceil((text.length + 1) / 4) * 4).fill(text, 0, text.length);
}
