/** What a storage is configured to be, after parsing: the settings that transports and verbs work from. */

/** A network portal of the data path. */
export interface Portal {
  /** Numeric IPv4 or IPv6 address, without brackets. */
  readonly address: string;
  readonly port: number;
}

/** How the array's certificate is trusted. */
export type TlsTrust =
  | { readonly kind: "verified" }
  /** SHA-256 of the certificate: 64 lower-case hex digits. */
  | { readonly kind: "fingerprint"; readonly sha256: string }
  /** Path of a PEM file with the certificate authority. */
  | { readonly kind: "ca"; readonly file: string };

/** How the array's API is reached. */
export interface ApiSettings {
  /** WebSocket, or REST v2.0, which TrueNAS has up to 25.10 and which is for iSCSI only. */
  readonly transport: "ws" | "rest";
  /** One or two host names or addresses; the second is tried when the first does not answer. */
  readonly hosts: readonly string[];
  readonly port: number;
  /** The user that the key belongs to; undefined lets the array find it by the key. */
  readonly user: string | undefined;
  readonly key: string;
  readonly tls: TlsTrust;
  /** How often a read is tried again after a failure of the network. */
  readonly retryMax: number;
  /** Milliseconds before the first such try; doubled each time. */
  readonly retryDelayMs: number;
}

/** CHAP names and secrets; `peer` is what the target must present (mutual CHAP). */
export interface ChapSettings {
  readonly user: string;
  readonly password: string;
  readonly peer: { readonly user: string; readonly password: string } | undefined;
}

/** The iSCSI half of a storage. */
export interface IscsiSettings {
  readonly kind: "iscsi";
  readonly targetIqn: string;
  readonly portals: readonly Portal[];
  readonly useMultipath: boolean;
  readonly chap: ChapSettings | undefined;
  /** Logical block size of new extents in bytes: 512 or 4096. */
  readonly blockSize: 512 | 4096;
}

/** The NVMe/TCP half of a storage. */
export interface NvmeSettings {
  readonly kind: "nvme-tcp";
  readonly subsystemNqn: string;
  readonly portals: readonly Portal[];
  /** The host NQN asked for; undefined takes the node's own. */
  readonly hostNqn: string | undefined;
  readonly dhchapSecret: string | undefined;
  readonly dhchapCtrlSecret: string | undefined;
  readonly nrIoQueues: number | undefined;
  /** Seconds; -1 for ever, which is the default: a virtual machine rather waits than fails. */
  readonly ctrlLossTmo: number;
  /** Seconds. */
  readonly reconnectDelay: number | undefined;
  /** Seconds. */
  readonly keepAliveTmo: number | undefined;
}

/** One storage. */
export interface StorageSettings {
  /** PVE's storage id. */
  readonly id: string;
  readonly api: ApiSettings;
  /** The dataset whose direct children are this storage's volumes, e.g. `tank/pve`. */
  readonly dataset: string;
  /** Bytes; a power of two from 512 to 131072. */
  readonly zvolBlockSize: number;
  /** Thin volumes: no space is set aside. */
  readonly sparse: boolean;
  /** ZFS compression of new volumes, e.g. `LZ4`; undefined inherits the dataset's. */
  readonly compression: string | undefined;
  readonly transport: IscsiSettings | NvmeSettings;
  /** Lets free go on although a guest elsewhere names the volume. */
  readonly forceFree: boolean;
  /** 0 to 2. */
  readonly debug: number;
}
