/** What the checks that ask the array share: one session, each table read once. */
import type { Caller } from "../truenas/caller.ts";
import type { Release } from "../truenas/dialect.ts";
import * as extents from "../truenas/extents.ts";
import * as iscsiGlobal from "../truenas/iscsi_global.ts";
import * as namespaces from "../truenas/namespaces.ts";
import * as pools from "../truenas/pools.ts";
import * as portals from "../truenas/portals.ts";
import { type Privileges, readPrivileges } from "../truenas/privileges.ts";
import * as services from "../truenas/services.ts";
import * as subsystems from "../truenas/subsystems.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import * as targets from "../truenas/targets.ts";
import * as zvols from "../truenas/zvols.ts";
import * as datasets from "../truenas/datasets.ts";
import { isNotFound } from "../truenas/errors.ts";
import { type Menus, menusOf } from "./guide.ts";
import { once } from "./once.ts";
import type { StorageContext } from "./storage_context.ts";

/** The rows of the iSCSI service. */
export interface IscsiRows {
  readonly config: iscsiGlobal.IscsiGlobal;
  readonly targets: readonly targets.Target[];
  readonly portals: readonly portals.IscsiPortal[];
  readonly extents: readonly extents.Extent[];
  readonly mappings: readonly targetExtents.TargetExtent[];
  /** The storage's own; undefined when there is none of its IQN. */
  readonly target: targets.Target | undefined;
}

/** The rows of the NVMe-oF service. */
export interface NvmeRows {
  readonly subsystems: readonly subsystems.Subsystem[];
  readonly namespaces: readonly namespaces.Namespace[];
  /** The storage's own; undefined when there is none of its NQN. */
  readonly subsystem: subsystems.Subsystem | undefined;
  /** Of the storage's own. */
  readonly ports: readonly subsystems.SubsystemPort[];
  /** NQNs that may connect to the storage's own. */
  readonly hosts: readonly string[];
}

/** The array of one storage. */
export interface ArrayContext {
  readonly storage: StorageContext;
  /** Where the session is, e.g. `nas.lan:443`. */
  readonly address: string;
  /** Its reads; a write is refused. */
  readonly caller: Caller;
  readonly release: Release;
  readonly menus: Menus;
  /** Milliseconds by which the array's clock is ahead of the node's; undefined when it does not tell. */
  readonly clockAheadMs: () => Promise<number | undefined>;
  privileges(): Promise<Privileges>;
  /** Undefined when there is no such dataset. */
  listing(): Promise<zvols.Listing | undefined>;
  isLocked(): Promise<boolean>;
  pool(): Promise<pools.Pool | undefined>;
  service(): Promise<services.Service | undefined>;
  iscsi(): Promise<IscsiRows>;
  nvme(): Promise<NvmeRows>;
}

/** What it is made of. */
export interface ArrayParts {
  readonly storage: StorageContext;
  readonly address: string;
  readonly caller: Caller;
  readonly clockAheadMs: () => Promise<number | undefined>;
}

/** Longest time for one read. */
const READ_MS = 15_000;

/** The context of a storage's array. */
export function arrayContext(parts: ArrayParts): ArrayContext {
  const { storage, caller } = parts;
  const { settings } = storage;
  const wait = { deadlineMs: READ_MS };
  const { dataset, transport } = settings;
  return {
    ...parts,
    release: caller.release,
    menus: menusOf(caller.release),
    privileges: once(() => readPrivileges(caller, wait)),
    listing: once(async () => {
      try {
        return await zvols.list(caller, dataset, wait);
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    }),
    isLocked: once(() => datasets.isLocked(caller, dataset, wait)),
    pool: once(() => pools.read(caller, dataset.split("/")[0] ?? dataset, wait)),
    service: once(() =>
      services.state(caller, transport.kind === "iscsi" ? "iscsitarget" : "nvmet", wait)
    ),
    iscsi: once(async () => {
      const [config, allTargets, allPortals, allExtents, mappings] = await Promise.all([
        iscsiGlobal.read(caller, wait),
        targets.all(caller, wait),
        portals.all(caller, wait),
        extents.all(caller, wait),
        targetExtents.all(caller, wait),
      ]);
      const iqn = transport.kind === "iscsi" ? transport.targetIqn : undefined;
      return {
        config,
        targets: allTargets,
        portals: allPortals,
        extents: allExtents,
        mappings,
        target: allTargets.find((one) => targets.iqnOf(one.name, config.basename) === iqn),
      };
    }),
    nvme: once(async () => {
      const [all, rows] = await Promise.all([
        subsystems.all(caller, wait),
        namespaces.all(caller, wait),
      ]);
      const nqn = transport.kind === "nvme-tcp" ? transport.subsystemNqn : undefined;
      const subsystem = all.find((one) => one.nqn === nqn);
      const [ports, hosts] = subsystem === undefined ? [[], []] : await Promise.all([
        subsystems.ports(caller, subsystem.id, wait),
        subsystems.hosts(caller, subsystem.id, wait),
      ]);
      return { subsystems: all, namespaces: rows, subsystem, ports, hosts };
    }),
  };
}
