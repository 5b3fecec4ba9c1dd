/** From the array's database to what it offers on the network: pure, nothing is changed. */

import type { Json, JsonObject } from "./json.ts";
import { isObject } from "./json.ts";
import type {
  Exports,
  LunExport,
  NamespaceExport,
  SubsystemExport,
  TargetExport,
} from "./exports.ts";
import type { World } from "./world.ts";
import type { Dataset } from "./zfs.ts";

/** The dataset that a device path names: `zvol/tank/my+vol` is `tank/my vol`. */
export function zvolOf(path: Json | undefined): string {
  return String(path ?? "").replace(/^zvol\//, "").replaceAll("+", " ");
}

/** A target's full name; a name that is one already is taken as it stands. */
export function iqnOf(world: World, name: string): string {
  return /^(iqn\.|naa\.|eui\.)/.test(name) ? name : `${world.iscsiGlobal.basename}:${name}`;
}

const list = (value: Json | undefined): JsonObject[] =>
  Array.isArray(value) ? value.filter(isObject) : [];

function offered(world: World, path: Json | undefined): Dataset | undefined {
  const dataset = world.zfs.datasets.get(zvolOf(path));
  return dataset?.type === "VOLUME" && !dataset.locked ? dataset : undefined;
}

/**
 * The sizes of SCST's devices after a reload, by naa. It has one for each extent that is switched on, and
 * reads the size when it attaches the device (`scst_vdisk.c`, `vdisk_attach`): one that stays keeps it.
 */
export function deviceSizes(
  world: World,
  before: ReadonlyMap<string, number>,
): ReadonlyMap<string, number> {
  if (world.services.get("iscsitarget")?.running !== true) return new Map();
  const sizes = new Map<string, number>();
  for (const extent of world.tables.extent.all()) {
    const zvol = extent.enabled === true ? offered(world, extent.path) : undefined;
    if (zvol === undefined) continue;
    sizes.set(naaOf(extent), before.get(naaOf(extent)) ?? zvol.volsize);
  }
  return sizes;
}

/** The same with one zvol's new size, as `resync_size` makes SCST read it. */
export function withSize(
  world: World,
  before: ReadonlyMap<string, number>,
  zvol: string,
  size: number,
): ReadonlyMap<string, number> {
  const sizes = new Map(before);
  for (const extent of world.tables.extent.all()) {
    if (zvolOf(extent.path) === zvol && sizes.has(naaOf(extent))) sizes.set(naaOf(extent), size);
  }
  return sizes;
}

const naaOf = (extent: JsonObject): string => String(extent.naa).replace(/^0x/, "");

/**
 * The iSCSI side as a reload now would apply it.
 *
 * @param sizes as {@link deviceSizes} says.
 */
export function iscsiExports(
  world: World,
  sizes: ReadonlyMap<string, number>,
): Exports["iscsi"] {
  const { target, portal, initiator, auth } = world.tables;
  const luns = lunsByTarget(world, sizes);
  const targets = target.all().map((row): TargetExport => {
    const groups = list(row.groups);
    const portals = groups.flatMap((group) =>
      list(portal.get(Number(group.portal))?.listen).map((listen) => String(listen.ip))
    );
    // No initiator group, or an empty one, lets everybody in.
    const named = groups.map((group) =>
      group.initiator === null ? [] : initiator.get(Number(group.initiator))?.initiators ?? []
    ).map((names) => Array.isArray(names) ? names.map(String) : []);
    const open = named.some((names) => names.length === 0);
    const chapGroup = groups.find((group) => group.authmethod !== "NONE" && group.auth !== null);
    const secret = chapGroup && auth.find((entry) => entry.tag === chapGroup.auth);
    return {
      iqn: iqnOf(world, String(row.name)),
      portals: [...new Set(portals)],
      initiators: open ? [] : [...new Set(named.flat())],
      ...(secret === undefined ? {} : {
        chap: {
          user: String(secret.user),
          secret: String(secret.secret),
          ...(chapGroup?.authmethod === "CHAP_MUTUAL"
            ? { peerUser: String(secret.peeruser), peerSecret: String(secret.peersecret) }
            : {}),
        },
      }),
      luns: luns.get(Number(row.id)) ?? [],
    };
  });
  return {
    running: world.services.get("iscsitarget")?.running ?? false,
    port: Number(world.iscsiGlobal.listen_port),
    targets,
  };
}

function lunsByTarget(
  world: World,
  sizes: ReadonlyMap<string, number>,
): Map<number, LunExport[]> {
  const result = new Map<number, LunExport[]>();
  const taken = new Set<string>();
  for (const mapping of world.tables.targetextent.all()) {
    const extent = world.tables.extent.get(Number(mapping.extent));
    if (extent === undefined || extent.enabled !== true || extent.type !== "DISK") continue;
    const zvol = offered(world, extent.path);
    if (zvol === undefined) continue;
    const target = Number(mapping.target);
    const luns = result.get(target) ?? [];
    // Two rows with one LUN can exist; the kernel target takes the first.
    if (taken.has(`${target} ${mapping.lunid}`)) continue;
    taken.add(`${target} ${mapping.lunid}`);
    luns.push({
      lun: Number(mapping.lunid),
      naa: naaOf(extent),
      serial: String(extent.serial),
      blockSize: Number(extent.blocksize),
      readOnly: extent.ro === true,
      zvol: zvol.name,
      size: sizes.get(naaOf(extent)) ?? zvol.volsize,
    });
    result.set(target, luns);
  }
  return result;
}

/** The NVMe-oF side as a reload now would apply it. */
export function nvmetExports(world: World): Exports["nvmet"] {
  const { subsys, port, portSubsys, host, hostSubsys } = world.tables;
  const namespaces = new Map<number, NamespaceExport[]>();
  for (const row of world.tables.namespace.all()) {
    if (row.enabled !== true || row.device_type !== "ZVOL") continue;
    const zvol = offered(world, row.device_path);
    if (zvol === undefined) continue;
    const id = Number(row.subsys_id);
    const entries = namespaces.get(id) ?? [];
    entries.push({
      nsid: Number(row.nsid),
      uuid: String(row.device_uuid),
      nguid: String(row.device_nguid),
      zvol: zvol.name,
      size: zvol.volsize,
    });
    namespaces.set(id, entries);
  }
  const subsystems = subsys.all().map((row): SubsystemExport => ({
    nqn: String(row.subnqn),
    serial: String(row.serial),
    allowAnyHost: row.allow_any_host === true,
    hosts: hostSubsys.all().filter((link) => link.subsys_id === row.id).flatMap((link) => {
      const entry = host.get(Number(link.host_id));
      return entry === undefined ? [] : [{
        nqn: String(entry.hostnqn),
        ...(entry.dhchap_key === null ? {} : { key: String(entry.dhchap_key) }),
        ...(entry.dhchap_ctrl_key === null ? {} : { controllerKey: String(entry.dhchap_ctrl_key) }),
        ...(entry.dhchap_key === null ? {} : { hash: String(entry.dhchap_hash) }),
        ...(entry.dhchap_dhgroup === null ? {} : { dhGroup: String(entry.dhchap_dhgroup) }),
      }];
    }),
    ports: portSubsys.all().filter((link) => link.subsys_id === row.id).flatMap((link) => {
      const entry = port.get(Number(link.port_id));
      return entry?.enabled !== true || entry.addr_trtype !== "TCP"
        ? []
        : [{ address: String(entry.addr_traddr), port: Number(entry.addr_trsvcid) }];
    }),
    namespaces: namespaces.get(Number(row.id)) ?? [],
  }));
  return { running: world.services.get("nvmet")?.running ?? false, subsystems };
}

/** The same offers with one zvol's new size, as the kernel's resize shows it without a reload. */
export function resized(exports: Exports, zvol: string, size: number): Exports {
  const grow = <T extends { zvol: string; size: number }>(entry: T): T =>
    entry.zvol === zvol ? { ...entry, size } : entry;
  return {
    iscsi: {
      ...exports.iscsi,
      targets: exports.iscsi.targets.map((target) => ({
        ...target,
        luns: target.luns.map(grow),
      })),
    },
    nvmet: {
      ...exports.nvmet,
      subsystems: exports.nvmet.subsystems.map((subsystem) => ({
        ...subsystem,
        namespaces: subsystem.namespaces.map(grow),
      })),
    },
  };
}
