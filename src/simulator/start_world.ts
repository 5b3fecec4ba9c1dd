/** The worlds that the simulator starts with: one ready for use, and one as on a fresh system. */

import { randomBytes, randomUUID } from "node:crypto";
import type { Release } from "./release.ts";
import type { User } from "./world.ts";
import { World } from "./world.ts";

const GIB = 1024 ** 3;
const POOL = "tank";
const DATASET = "tank/pve";
/** NVMe-oF takes so many namespaces; the rest of a large set is on iSCSI only. */
const MOST_NAMESPACES = 900;
/** Disks of one guest in the made-up set. */
const DISKS_PER_GUEST = 4;

/** Where the start world's portals are. */
export interface Network {
  readonly iscsi: { readonly addresses: readonly string[]; readonly port: number };
  readonly nvme: readonly { readonly address: string; readonly port: number }[];
}

function user(id: number, name: string, roles: readonly string[], password?: string): User {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  const secret = [...randomBytes(64)].map((byte) => letters[byte % letters.length]).join("");
  return {
    name,
    apiKey: `${id}-${secret}`,
    apiKeyId: id,
    roles,
    ...(password === undefined ? {} : { password }),
  };
}

/** The pool as the recordings found it: no datasets, two addresses, services stopped. */
export function emptyWorld(now: () => number): World {
  const world = new World(now);
  world.zfs.addPool(POOL, 96 * GIB, {
    aclmode: "passthrough",
    acltype: "nfsv4",
    compression: "lz4",
  });
  world.addresses = { own: ["192.0.2.10", "192.0.2.11"] };
  for (
    const entry of [
      user(1, "truenas_admin", ["FULL_ADMIN"], "adminpw"),
      user(2, "limited", ["SHARING_ISCSI_READ"], "limitedpw"),
    ]
  ) world.users.set(entry.name, entry);
  return world;
}

export interface ReadyWorld {
  readonly world: World;
  readonly user: User;
  readonly dataset: string;
  readonly targetIqn: string;
  readonly subsystemNqn: string;
}

/** A pool, a dataset, a target and a subsystem on their portals, both services running. */
export function readyWorld(
  now: () => number,
  network: Network,
  release: Release,
  roles: readonly string[] = ["FULL_ADMIN"],
): ReadyWorld {
  const world = new World(now);
  const service = user(1, "tnblock", roles);
  world.users.set(service.name, service);
  world.zfs.addPool(POOL, 100 * 1024 * GIB, {
    aclmode: "passthrough",
    acltype: "nfsv4",
    compression: "lz4",
  });
  world.zfs.create(DATASET, "FILESYSTEM");
  const own = [...network.iscsi.addresses, ...network.nvme.map((port) => port.address)];
  world.addresses = { own: [...new Set(own)] };
  world.iscsiGlobal = { ...world.iscsiGlobal, listen_port: network.iscsi.port };
  const { tables } = world;
  const groups = network.iscsi.addresses.map((ip, index) => {
    const portal = tables.portal.insert({ listen: [{ ip }], comment: "", tag: index + 1 });
    return { portal: portal.id, initiator: null, authmethod: "NONE", auth: null };
  });
  const target = tables.target.insert({
    name: "pve",
    alias: null,
    mode: "ISCSI",
    groups,
    auth_networks: [],
    rel_tgt_id: 1,
    iscsi_parameters: {},
  });
  const subnqn = `${world.nvmetGlobal.basenqn}:pve`;
  if (release.major >= 2510) {
    const subsystem = tables.subsys.insert({
      name: "pve",
      subnqn,
      serial: randomBytes(10).toString("hex"),
      allow_any_host: true,
      pi_enable: null,
      qid_max: null,
      ieee_oui: null,
      ana: null,
    });
    network.nvme.forEach(({ address, port }, index) => {
      const row = tables.port.insert({
        index: index + 1,
        addr_trtype: "TCP",
        addr_trsvcid: port,
        addr_traddr: address,
        addr_adrfam: address.includes(":") ? "IPV6" : "IPV4",
        inline_data_size: null,
        max_queue_size: null,
        pi_enable: null,
        enabled: true,
      });
      tables.portSubsys.insert({ port_id: row.id, subsys_id: subsystem.id });
    });
  }
  for (const name of ["iscsitarget", "nvmet"] as const) {
    const state = world.services.get(name);
    if (state !== undefined) state.running = true;
  }
  const targetIqn = `${world.iscsiGlobal.basename}:${target.name}`;
  return { world, user: service, dataset: DATASET, targetIqn, subsystemNqn: subnqn };
}

/**
 * Volumes as the product itself would have made them for storage `san`: all on iSCSI, the first 900
 * on NVMe-oF as well where the release lets a zvol be both; else every second one.
 */
export function addVolumes(
  world: World,
  count: number,
  clusterId: string,
  release: Release,
): string[] {
  const { zfs, tables } = world;
  const names: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const guest = 100 + Math.floor(index / DISKS_PER_GUEST);
    const name = `${DATASET}/vm-${guest}-disk-${index % DISKS_PER_GUEST}`;
    names.push(name);
    zfs.create(name, "VOLUME", {
      volsize: GIB,
      user: new Map([
        ["tnblock:schema", "1"],
        ["tnblock:cluster", clusterId],
        ["tnblock:storage", "san"],
        ["tnblock:volume", name],
        ["tnblock:op", randomUUID()],
      ]),
    });
    const short = name.slice(DATASET.length + 1);
    const extent = tables.extent.insert({
      name: short,
      type: "DISK",
      path: `zvol/${name}`,
      filesize: "0",
      blocksize: 512,
      pblocksize: false,
      avail_threshold: null,
      comment: "tnblock san",
      insecure_tpc: true,
      xen: false,
      rpm: "SSD",
      ro: false,
      enabled: true,
      ...(release.major < 2510 ? {} : { product_id: "iSCSI Disk" }),
      serial: randomBytes(8).toString("hex").slice(0, 15),
      naa: `0x6589cfc000000${randomBytes(10).toString("hex").slice(0, 19)}`,
      vendor: "TrueNAS",
    });
    tables.targetextent.insert({ target: 1, lunid: index, extent: extent.id });
    if (release.major < 2510 || index >= MOST_NAMESPACES) continue;
    tables.namespace.insert({
      nsid: index + 1,
      device_type: "ZVOL",
      device_path: `zvol/${name}`,
      filesize: null,
      device_uuid: randomUUID(),
      device_nguid: randomUUID(),
      enabled: true,
      subsys_id: 1,
    });
  }
  return names;
}
