/**
 * The seam between the simulated array's API and whatever plays its data side: what the array offers
 * on the network, what the volumes hold, and who is connected.
 */

/** One LUN of a target. */
export interface LunExport {
  readonly lun: number;
  /** 32 hex digits, without `0x`; the initiator's WWID is `naa.` + this. */
  readonly naa: string;
  readonly serial: string;
  /** Logical block size in bytes. */
  readonly blockSize: number;
  readonly readOnly: boolean;
  /** Dataset path of the zvol, e.g. `tank/pve/vm-100-disk-0`. */
  readonly zvol: string;
  /** Bytes. */
  readonly size: number;
}

/** One iSCSI target. */
export interface TargetExport {
  readonly iqn: string;
  /** Addresses; the port is the same for all of them. */
  readonly portals: readonly string[];
  /** Initiator names that may log in; empty for everybody. */
  readonly initiators: readonly string[];
  /** What an initiator must present, when CHAP is asked for. */
  readonly chap?: {
    readonly user: string;
    readonly secret: string;
    readonly peerUser?: string;
    readonly peerSecret?: string;
  };
  readonly luns: readonly LunExport[];
}

/** One namespace of a subsystem. */
export interface NamespaceExport {
  readonly nsid: number;
  readonly uuid: string;
  readonly nguid: string;
  readonly zvol: string;
  /** Bytes. */
  readonly size: number;
}

/** One NVMe-oF subsystem. */
export interface SubsystemExport {
  readonly nqn: string;
  readonly serial: string;
  readonly allowAnyHost: boolean;
  /** Hosts that may connect, with their DH-HMAC-CHAP keys where set. */
  readonly hosts: readonly {
    readonly nqn: string;
    readonly key?: string;
    readonly controllerKey?: string;
    readonly hash?: string;
    readonly dhGroup?: string;
  }[];
  readonly ports: readonly { readonly address: string; readonly port: number }[];
  readonly namespaces: readonly NamespaceExport[];
}

/** Everything the array offers right now: what the last reload of each service applied. */
export interface Exports {
  readonly iscsi: {
    readonly running: boolean;
    readonly port: number;
    readonly targets: readonly TargetExport[];
  };
  readonly nvmet: { readonly running: boolean; readonly subsystems: readonly SubsystemExport[] };
}

/** Who is connected to the array's data side. */
export interface Sessions {
  readonly iscsi: readonly {
    readonly iqn: string;
    readonly initiator: string;
    readonly address: string;
  }[];
  readonly nvmet: readonly {
    readonly nqn: string;
    readonly hostNqn: string;
    readonly address: string;
    readonly portAddress: string;
  }[];
}

/** Thrown by a data side that cannot let go of a zvol; the API answers EBUSY. */
export class ZvolBusyError extends Error {}

/** What plays the data side of the simulated array. Every operation is synchronous for its caller's order. */
export interface DataSide {
  /** A zvol came to be; `origin` names the snapshot (`pool/zvol@snap`) that it is a clone of. */
  createZvol(zvol: string, size: number, origin?: string): Promise<void>;
  resizeZvol(zvol: string, size: number): Promise<void>;
  renameZvol(from: string, to: string): Promise<void>;
  /** Throws {@link ZvolBusyError} when somebody holds it. */
  destroyZvol(zvol: string): Promise<void>;
  createSnapshot(zvol: string, snapshot: string): Promise<void>;
  renameSnapshot(zvol: string, from: string, to: string): Promise<void>;
  destroySnapshot(zvol: string, snapshot: string): Promise<void>;
  rollback(zvol: string, snapshot: string): Promise<void>;
  /**
   * A clone takes over its origin's snapshots up to the one that it is a clone of, and the origin
   * becomes the clone. A side without this keeps the content of those snapshots where it was.
   */
  promote?(zvol: string): Promise<void>;
  /** Whether the zvol's device node exists yet. */
  hasNode(zvol: string): boolean;
  /** Brings the network side in step with what the array offers now. */
  apply(exports: Exports): Promise<void>;
  sessions(): Sessions;
  close(): Promise<void>;
}

/** A data side that holds no data and has nobody connected: the API alone. */
export function noDataSide(): DataSide {
  const nothing = () => Promise.resolve();
  return {
    createZvol: nothing,
    resizeZvol: nothing,
    renameZvol: nothing,
    destroyZvol: nothing,
    createSnapshot: nothing,
    renameSnapshot: nothing,
    destroySnapshot: nothing,
    rollback: nothing,
    hasNode: () => true,
    apply: nothing,
    sessions: () => ({ iscsi: [], nvmet: [] }),
    close: nothing,
  };
}
