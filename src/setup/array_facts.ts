/** What is on the array before anything is made: everything that questions and plan are built from. Reads only. */
import type { Portal } from "../common/storage_settings.ts";
import type { Caller, Wait } from "../truenas/caller.ts";
import type { Release } from "../truenas/dialect.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import * as extents from "../truenas/extents.ts";
import * as filesystems from "../truenas/filesystems.ts";
import * as initiators from "../truenas/initiators.ts";
import * as infrastructure from "../truenas/iscsi_infrastructure.ts";
import * as iscsiGlobal from "../truenas/iscsi_global.ts";
import * as namespaces from "../truenas/namespaces.ts";
import * as nvme from "../truenas/nvme_infrastructure.ts";
import * as portals from "../truenas/portals.ts";
import { type Privileges, readPrivileges } from "../truenas/privileges.ts";
import * as services from "../truenas/services.ts";
import * as subsystems from "../truenas/subsystems.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import * as targets from "../truenas/targets.ts";
import * as zvols from "../truenas/zvols.ts";

/** A target or subsystem that is there. */
export interface ExportFact {
  readonly id: number;
  /** IQN or NQN. */
  readonly name: string;
  readonly portals: readonly Portal[];
  /** Full paths of the zvols that it carries. */
  readonly zvols: readonly string[];
  /** How many LUNs or namespaces it carries, on files too. */
  readonly count: number;
  /** Whether whoever reaches it may use it. */
  readonly isOpen: boolean;
  /** Names of the hosts that may use it; undefined where the key may not read that. */
  readonly hosts: readonly string[] | undefined;
  /** Whether CHAP is asked for (iSCSI). */
  readonly hasChap: boolean;
}

/** The iSCSI side. */
export interface IscsiFacts {
  readonly isRunning: boolean;
  readonly basename: string;
  readonly port: number;
  readonly targets: readonly targets.Target[];
  readonly portals: readonly portals.IscsiPortal[];
  /** Undefined where the key may not read them. */
  readonly groups: readonly initiators.InitiatorGroup[] | undefined;
  readonly chapUsers: readonly infrastructure.ChapUser[] | undefined;
  /** Addresses of the array. */
  readonly addresses: readonly string[];
  readonly exports: readonly ExportFact[];
}

/** The NVMe-oF side. */
export interface NvmeFacts {
  readonly isRunning: boolean;
  readonly subsystems: readonly subsystems.Subsystem[];
  readonly ports: readonly nvme.NvmePort[];
  readonly portLinks: readonly nvme.SubsystemLink[];
  readonly hosts: readonly nvme.NvmeHost[];
  readonly hostLinks: readonly nvme.SubsystemLink[];
  readonly addresses: readonly string[];
  readonly exports: readonly ExportFact[];
}

/** The array. */
export interface ArrayFacts {
  readonly release: Release;
  readonly privileges: Privileges;
  readonly filesystems: readonly filesystems.Filesystem[];
  /** Undefined where the key may not read it. */
  readonly iscsi: IscsiFacts | undefined;
  /** The same; and on 25.04, which has none. */
  readonly nvme: NvmeFacts | undefined;
  /** Marks of the zvols that are exported, by full path: those that carry any of ours. */
  readonly marks: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

/** Zvols whose marks are read, over all targets and subsystems. */
const MOST_ZVOLS = 300;

/** Reads all of it. */
export async function readArrayFacts(array: Caller, wait?: Wait): Promise<ArrayFacts> {
  const [privileges, trees, iscsi, nvmeSide] = await Promise.all([
    readPrivileges(array, wait),
    filesystems.all(array, wait),
    ifAllowed(readIscsi(array, wait)),
    array.release.can.nvmet ? ifAllowed(readNvme(array, wait)) : undefined,
  ]);
  const exported = [...iscsi?.exports ?? [], ...nvmeSide?.exports ?? []].flatMap((one) =>
    one.zvols
  );
  const read = await zvols.readSome(array, [...new Set(exported)].slice(0, MOST_ZVOLS), wait);
  const marked = read.filter((zvol) =>
    Object.keys(zvol.userProperties).some((name) => name.startsWith("tnblock:"))
  );
  return {
    release: array.release,
    privileges,
    filesystems: trees,
    iscsi,
    nvme: nvmeSide,
    marks: new Map(marked.map((zvol) => [zvol.name, zvol.userProperties])),
  };
}

/** Undefined for what the key may not read: it is not among the rights that daily work needs. */
async function ifAllowed<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (arrayErrorIn(error)?.code === "denied") return undefined;
    throw error;
  }
}

async function readIscsi(array: Caller, wait: Wait | undefined): Promise<IscsiFacts> {
  const [isRunning, config, allTargets, allPortals, mappings, allExtents, addresses, groups, chap] =
    await Promise.all([
      services.isRunning(array, "iscsitarget", wait),
      iscsiGlobal.read(array, wait),
      targets.all(array, wait),
      portals.all(array, wait),
      targetExtents.all(array, wait),
      extents.all(array, wait),
      infrastructure.listenChoices(array, wait),
      ifAllowed(initiators.all(array, wait)),
      ifAllowed(infrastructure.chapUsers(array, wait)),
    ]);
  const zvolOf = new Map(allExtents.map((extent) => [extent.id, extent.zvol]));
  const facts = allTargets.map((target): ExportFact => {
    const rows = mappings.filter((row) => row.target === target.id);
    const ids = target.groups.map(({ initiator }) => initiator);
    const listed = groups?.filter(({ id }) => ids.includes(id)) ?? [];
    return {
      id: target.id,
      name: targets.iqnOf(target.name, config.basename),
      portals: allPortals
        .filter((portal) => target.groups.some((group) => group.portal === portal.id))
        .flatMap(({ addresses }) => addresses.map((address) => ({ address, port: config.port }))),
      zvols: rows.flatMap(({ extent }) => zvolOf.get(extent) ?? []),
      count: rows.length,
      isOpen: ids.includes(null) || listed.some(({ names }) => names.length === 0),
      hosts: groups === undefined ? undefined : listed.flatMap(({ names }) => names),
      hasChap: target.groups.some(({ authMethod }) => authMethod !== "NONE"),
    };
  });
  return {
    ...{ isRunning, basename: config.basename, port: config.port },
    ...{ targets: allTargets, portals: allPortals, groups, chapUsers: chap },
    addresses: addresses.filter((address) => address !== "0.0.0.0" && address !== "::"),
    exports: facts,
  };
}

async function readNvme(array: Caller, wait: Wait | undefined): Promise<NvmeFacts> {
  const [isRunning, all, ports, portLinks, hosts, hostLinks, rows, addresses] = await Promise.all([
    services.isRunning(array, "nvmet", wait),
    subsystems.all(array, wait),
    nvme.ports(array, wait),
    nvme.portLinks(array, wait),
    nvme.hosts(array, wait),
    nvme.hostLinks(array, wait),
    namespaces.all(array, wait),
    nvme.addressChoices(array, wait),
  ]);
  const facts = all.map((subsystem): ExportFact => {
    const own = (links: readonly nvme.SubsystemLink[]) =>
      links.filter((link) => link.subsystem === subsystem.id).map(({ end }) => end);
    const shownOn = own(portLinks);
    const allowed = own(hostLinks);
    const held = rows.filter((row) => row.subsystem === subsystem.id);
    return {
      ...{ id: subsystem.id, name: subsystem.nqn, isOpen: subsystem.allowAnyHost, hasChap: false },
      portals: ports
        .filter(({ id, transport, enabled }) =>
          shownOn.includes(id) && transport === "TCP" && enabled
        )
        .map(({ address, port }) => ({ address, port })),
      zvols: held.flatMap(({ zvol }) => zvol ?? []),
      count: held.length,
      hosts: hosts.filter(({ id }) => allowed.includes(id)).map(({ nqn }) => nqn),
    };
  });
  return {
    ...{ isRunning, subsystems: all, ports, portLinks, hosts, hostLinks, addresses },
    exports: facts,
  };
}
