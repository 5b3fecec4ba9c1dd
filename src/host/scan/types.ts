/** What a node sees of block storage over the network, as `/sys` tells it. */
import type { Portal } from "../../common/storage_settings.ts";

/** A disk of the NVMe subsystem of the kernel. */
export interface NvmeDisk {
  /** The kernel's name, e.g. `nvme0n1`. Nothing may be concluded from it. */
  readonly name: string;
  /**
   * "head": what native multipath puts over all paths, the one to use. "path": one path below a
   * head, hidden and without a node. "plain": a disk without native multipath over it.
   */
  readonly kind: "head" | "path" | "plain";
  /** NQN of its subsystem. */
  readonly subsystem: string | undefined;
  readonly nsid: number | undefined;
  /** Lower case, with hyphens. */
  readonly uuid: string | undefined;
  /** Lower case, with hyphens. */
  readonly nguid: string | undefined;
  /** e.g. `uuid.3f2b…`; udev's link is `nvme-` and this. */
  readonly wwid: string | undefined;
  readonly sizeBytes: number;
  readonly hidden: boolean;
  /** `major:minor`; undefined when there is no device behind it. */
  readonly device: string | undefined;
  /** Its node, when that is there, e.g. `/dev/nvme0n1`. */
  readonly node: string | undefined;
  /** The controllers it is reached through; their kernel names. */
  readonly controllers: readonly string[];
  /** Bytes. */
  readonly logicalBlockSize: number | undefined;
  /** Grows with every disk the kernel has seen; undefined before Linux 5.15. */
  readonly diskSequence: number | undefined;
}

/** One connection to an NVMe subsystem. Secrets, which sysfs shows as well, are never read. */
export interface NvmeController {
  /** The kernel's name, e.g. `nvme0`. */
  readonly name: string;
  readonly subsystem: string | undefined;
  /** e.g. `tcp`, `pcie`. */
  readonly transport: string | undefined;
  /** e.g. `live`, `connecting`, `deleting`. */
  readonly state: string | undefined;
  /** Where it leads to; undefined for what is not on a network. */
  readonly portal: Portal | undefined;
  /** Our address of the connection, only while there is one. */
  readonly sourceAddress: string | undefined;
  readonly hostNqn: string | undefined;
  readonly hostId: string | undefined;
  readonly cntlid: number | undefined;
  /** Seconds; 0 is off. */
  readonly keepAliveTmo: number | undefined;
  /** Seconds; undefined when it never gives up (`off`). */
  readonly ctrlLossTmo: number | undefined;
  /** Seconds. */
  readonly reconnectDelay: number | undefined;
  /** e.g. `io`, `discovery`. */
  readonly type: string | undefined;
}

/** The NVMe half of a scan. */
export interface NvmeScan {
  readonly disks: readonly NvmeDisk[];
  readonly controllers: readonly NvmeController[];
  /** Whether native multipath is on; undefined without the module. */
  readonly multipath: boolean | undefined;
}

/** A disk that is reached through one iSCSI session. */
export interface ScsiDisk {
  /** The kernel's name, e.g. `sda`. */
  readonly name: string;
  /** Host, channel, target and LUN as the kernel counts them, e.g. `0:0:0:5`. */
  readonly hctl: string;
  /** The LUN as the array counts it. */
  readonly lun: number;
  /** The kernel's name of its session, e.g. `session1`. */
  readonly session: string;
  readonly targetIqn: string;
  readonly portal: Portal | undefined;
  /** 32 hex digits, lower case. A cached value: stale until `device/rescan` when the LUN was reused. */
  readonly naa: string | undefined;
  /** Unit serial number (VPD page 0x80). Cached as well. */
  readonly serial: string | undefined;
  /** e.g. `naa.6589cfc…`. Cached as well. */
  readonly wwid: string | undefined;
  /** Cached as well. */
  readonly sizeBytes: number;
  /** e.g. `running`; it stays so when the LUN is gone. */
  readonly state: string | undefined;
  readonly device: string | undefined;
  readonly node: string | undefined;
  /** What lies over it; kernel names. */
  readonly holders: readonly string[];
  /** The multipath map over it, e.g. `dm-0`. */
  readonly map: string | undefined;
  readonly logicalBlockSize: number | undefined;
  readonly diskSequence: number | undefined;
}

/** One session with an iSCSI target through one portal. */
export interface IscsiSession {
  /** The kernel's name, e.g. `session1`. */
  readonly name: string;
  readonly targetIqn: string;
  /** `LOGGED_IN`, `FAILED` or `FREE`. */
  readonly state: string | undefined;
  readonly portal: Portal | undefined;
  /** The SCSI host, as in `/sys/class/scsi_host/host<N>`. */
  readonly host: number;
  /** The target number on that host. */
  readonly target: number;
  /** Seconds until commands of a dead path fail. */
  readonly recoveryTmo: number | undefined;
  /** Where its disks lie in sysfs. */
  readonly sysfs: string;
}

/** A device-mapper multipath map. */
export interface MultipathMap {
  /** The kernel's name, e.g. `dm-0`. */
  readonly name: string;
  /** The name of the map, as multipathd knows it. */
  readonly mapName: string;
  /** `mpath-` and the wwid. */
  readonly uuid: string;
  /** `3` and the naa. */
  readonly wwid: string;
  /** 32 hex digits; undefined when the wwid is of another kind. */
  readonly naa: string | undefined;
  /** Kernel names of the paths. */
  readonly slaves: readonly string[];
  readonly sizeBytes: number;
  readonly device: string | undefined;
  readonly node: string | undefined;
  readonly holders: readonly string[];
}

/** The SCSI half of a scan. */
export interface ScsiScan {
  readonly disks: readonly ScsiDisk[];
  readonly sessions: readonly IscsiSession[];
  readonly maps: readonly MultipathMap[];
}

/** All of it. */
export interface BlockScan {
  readonly nvme: NvmeScan;
  readonly scsi: ScsiScan;
}
