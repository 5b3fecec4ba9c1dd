/**
 * How a zvol becomes a block device: the one interface that both protocols implement and all verbs
 * are written against. The array half makes and removes exports, the node half attaches them.
 */
import type { Deadline } from "../common/deadline.ts";
import type { TnblockError } from "../common/error.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { ExportTag } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import type { WantedSize } from "./wanted_size.ts";

/** What the block device must say of itself; read live on the node, compared before every use. */
export type DiskIdentity =
  | {
    readonly kind: "iscsi";
    readonly lun: number;
    /** 32 hex digits, lower case, without `0x`. */
    readonly naa: string;
  }
  | { readonly kind: "nvme-tcp"; readonly nsid: number; readonly uuid: string };

/** A row of the array that is part of an export. */
export interface ExportRow {
  readonly kind: "extent" | "mapping" | "namespace";
  readonly id: number;
}

/** A zvol's export as the array has it now. */
export interface VolumeExport {
  /** Full path, e.g. `tank/pve/vm-100-disk-0`. */
  readonly zvol: string;
  readonly identity: DiskIdentity;
  /** In the order of removing: mapping and extent, or the namespace. */
  readonly rows: readonly ExportRow[];
  /** False when the administrator has switched it off: it is there, but no disk appears. */
  readonly enabled: boolean;
  /** Its logical block size in bytes: what is on the disk was laid out for it. */
  readonly sectorSize: number;
}

/** What a zvol's export looks like when it is not simply one of ours. */
export type ExportLookup =
  /** No row of the array names the zvol. */
  | { readonly kind: "none" }
  | { readonly kind: "ours"; readonly export: VolumeExport }
  /** Half of an export of ours: an extent without mapping. */
  | { readonly kind: "half"; readonly rows: readonly ExportRow[] }
  /** Exported some other way: another target or subsystem, or several times. */
  | { readonly kind: "foreign"; readonly what: string };

/** The array's side of a storage, as one round of reads found it. */
export interface Groundwork {
  /** Row id of the target or subsystem. */
  readonly parent: number;
  /** LUNs or NSIDs that are taken, by whomever. */
  readonly taken: ReadonlySet<number>;
  /** Why nothing more can be exported, when that is so. */
  readonly full?: TnblockError | undefined;
  /** Logical block size in bytes for an export that must have another than {@link Transport.sectorSize}. */
  readonly sectorSize?: number;
  /** What is not as configured but does not stop the work. */
  readonly warnings: readonly string[];
}

/** A disk that was found on the node. */
export interface AttachedDisk {
  /** The identity-named udev link, e.g. `/dev/disk/by-id/nvme-uuid.<uuid>`. */
  readonly link: string;
  /** The node behind it, e.g. `/dev/nvme0n1`. */
  readonly device: string;
  /** Bytes. */
  readonly size: number;
  /** Paths that carry it now. */
  readonly paths: number;
  /** At which look it was found, and after how many milliseconds. */
  readonly attempts: number;
  readonly ms: number;
}

/**
 * How the connection to a portal stands: `live`, `recovering` (the kernel or iscsid has it, and brings it back by
 * itself), or `missing`.
 */
export type PortalState = "live" | "recovering" | "missing";

/** A configured portal. */
export interface PortalGlance {
  readonly portal: Portal;
  readonly state: PortalState;
}

/** What sysfs shows of a disk without anybody being asked: of iSCSI it may be outdated. */
export interface DiskGlance {
  /** What users open: the NVMe disk, the map, or the only path; undefined when there are but loose paths. */
  readonly device: string | undefined;
  /** Bytes; 0 without a device. */
  readonly size: number;
  /** Paths that carry it, of all that could by the configuration. */
  readonly paths: { readonly up: number; readonly configured: number };
  /** Live connections that could carry it and do not: paths that came back. Always 0 where the kernel sees to it. */
  readonly lost: number;
  /** Identities (naa, uuid) of other disks that a link to this one leads to by now; empty when all is right. */
  readonly strangers: readonly string[];
  /** Another text whenever the device, or what it is made of, is another one. */
  readonly mark: string;
}

/** See {@link Transport.glance}. */
export interface Glance {
  /** In the order of what was asked for; undefined for what is not here. */
  readonly disks: readonly (DiskGlance | undefined)[];
  /** Disks with paths here that were not asked for; none where a node sees all disks anyway. */
  readonly strays: readonly DiskIdentity[];
}

/** One protocol. */
export interface Transport {
  readonly kind: "iscsi" | "nvme-tcp";
  /** Logical block size of a new export in bytes. */
  readonly sectorSize: number;

  /**
   * Reads what an export needs: service running, target or subsystem there with the configured
   * portals, numbers taken.
   *
   * @throws TnblockError that names the missing piece and how to make it.
   */
  survey(array: Caller, deadline: Deadline): Promise<Groundwork>;
  /** All exports of this storage's target or subsystem whose zvol lies directly below `dataset`. */
  listExports(array: Caller, dataset: string, deadline: Deadline): Promise<VolumeExport[]>;
  /** The zvols that the target or subsystem carries besides those directly below `dataset`. */
  listNeighbours(array: Caller, dataset: string, deadline: Deadline): Promise<string[]>;
  /** How one zvol is exported now, whatever exports it; a fresh read. */
  lookUp(array: Caller, zvol: string, deadline: Deadline): Promise<ExportLookup>;
  /**
   * Exports a zvol, and returns what the array made. What a failure leaves behind is removed by
   * {@link removeExport} after another look.
   *
   * @param isNew asked when an export names the zvol's path already: whether the zvol is the one that the
   *   caller made just now. The export belonged to a dead volume of that name then, whose identity must
   *   not come back, and is removed first.
   * @throws TnblockError `not-ours` when somebody else's export is on the zvol.
   */
  createExport(
    array: Caller,
    zvol: string,
    groundwork: Groundwork,
    isNew: () => Promise<boolean>,
    deadline: Deadline,
  ): Promise<VolumeExport>;
  /** Removes an export by its rows; rows that are gone already are fine. */
  removeExport(array: Caller, rows: readonly ExportRow[]): Promise<void>;
  /**
   * Gets an export ready for its zvol to be renamed: afterwards no reload by anybody can break on the path
   * that is about to be wrong. {@link repoint} ends it, to either path.
   *
   * @returns whether anything was written.
   */
  suspend(array: Caller, found: VolumeExport): Promise<boolean>;
  /**
   * Points an export at a zvol's path, switched on or off as `found` was; naa or uuid stay. Reads it
   * afresh first. iSCSI writes in any case, because only the reload after it brings a dropped LUN back.
   *
   * @returns whether anything was written.
   */
  repoint(array: Caller, found: VolumeExport, zvol: string, deadline: Deadline): Promise<boolean>;

  /** Connects the portals that are not; one live portal is enough, each missing one is a warning. */
  connect(deadline: Deadline): Promise<void>;
  /** The configured portals as sysfs shows them; nobody is asked. */
  portals(): Promise<readonly PortalGlance[]>;
  /**
   * Connects one configured portal that is `missing`; fine when somebody else has done it meanwhile.
   *
   * @throws TnblockError with why it cannot be: `unreachable`, `auth`, `denied`, `config`, `timeout` ...
   */
  connectPortal(portal: Portal, deadline: Deadline): Promise<void>;
  /** These disks, and what else is here of the target, as sysfs shows them; nobody is asked. */
  glance(identities: readonly DiskIdentity[]): Promise<Glance>;
  /** Whether any portal answers a TCP connection, within a second. */
  anyPortalAnswers(): Promise<boolean>;
  /**
   * Finds the disk of this identity, refreshing what the kernel remembers, and repairs its size, also
   * of a disk that is in use. A path that does not answer, or stays behind with an old size, is left
   * out while another one has the right size.
   *
   * @throws TnblockError `volume-replaced` when another disk answers, `timeout` when none appears.
   */
  attach(identity: DiskIdentity, size: WantedSize, deadline: Deadline): Promise<AttachedDisk>;
  /**
   * The disk when it is attached already, its identity read live and its size right; undefined when
   * anything differs. With `whole` every live portal must carry it; without, one path is enough.
   */
  attached(
    identity: DiskIdentity,
    size: WantedSize,
    whole: boolean,
    deadline: Deadline,
  ): Promise<AttachedDisk | undefined>;
  /** Who uses the disk on this node, in words; empty when nobody does or it is not here. */
  users(identity: DiskIdentity): Promise<readonly string[]>;
  /**
   * Drops what this node caches of the disk, after its content was changed on the array, and reads its
   * size anew, which may have shrunk; nobody may use it since before the change. Fine when it is not there.
   */
  dropCaches(identity: DiskIdentity, deadline: Deadline): Promise<void>;
  /**
   * Lets what waits on this node for a disk that the array has no longer fail, instead of waiting for ever; for a
   * disk whose guest has stopped. Never while a path is only lost.
   *
   * @returns whether there may be such waiters.
   */
  failWaiting(identity: DiskIdentity, deadline: Deadline): Promise<boolean>;
  /** Lets the node forget the disk: map and paths. Fine when it is not there. */
  detach(identity: DiskIdentity, deadline: Deadline): Promise<void>;
}

/** The part of an identity that a volume name carries. */
export function tagOf(identity: DiskIdentity): ExportTag {
  return identity.kind === "iscsi"
    ? { kind: "lun", lun: identity.lun }
    : { kind: "namespace", uuid: identity.uuid };
}
