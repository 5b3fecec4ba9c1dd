/** `system`, `service`, `pool` and `filesystem`: the state of the box and its services. */

import type { Json, JsonObject } from "../json.ts";
import { date } from "../json.ts";
import { CallError, notFound } from "../errors.ts";
import { query } from "../filters.ts";
import { object } from "./service.ts";
import type { Call, Handler, Methods } from "./service.ts";
import type { ServiceName } from "../world.ts";

const BOOTED = 1_700_000_000;

function serviceRows(call: Call, states: boolean): JsonObject[] {
  const { world, release } = call.sim;
  return [...world.services].filter(([name]) => name !== "nvmet" || release.major >= 2510)
    .map(([name, state]) => ({
      id: state.id,
      service: name,
      enable: state.enable,
      state: states ? (state.running ? "RUNNING" : "STOPPED") : "UNKNOWN",
      pids: [],
    })).sort((a, b) => a.id - b.id);
}

function stateOf(call: Call, name: Json | undefined) {
  const state = call.sim.world.services.get(String(name) as ServiceName);
  if (state === undefined || (name === "nvmet" && call.sim.release.major < 2510)) {
    throw notFound(`Service ${name} not found`);
  }
  return state;
}

/** Starts, stops or reloads; true when the service runs afterwards, as the verb wants it. */
async function control(call: Call, verb: string, name: Json | undefined): Promise<boolean> {
  const state = stateOf(call, name);
  const service = String(name) as ServiceName;
  const before = state.running;
  if (verb === "STOP") state.running = false;
  else if (verb !== "RELOAD") state.running = true;
  if (verb === "STOP") await call.sim.applyService(service);
  else await call.sim.reloads.reload(service);
  if (before !== state.running) {
    const fields = serviceRows(call, true).find((row) => row.service === service);
    call.sim.emit({
      msg: "changed",
      collection: "service.query",
      id: state.id,
      ...(fields === undefined ? {} : { fields }),
    });
  }
  return verb === "STOP" ? false : state.running;
}

const verb = (name: string): Handler => (call, [service]) => control(call, name, service);

function poolEntry(call: Call, name: string): JsonObject {
  const { zfs } = call.sim.world;
  const size = zfs.pools.get(name) ?? 0;
  const allocated = zfs.used(name);
  const free = size - allocated;
  return {
    id: [...zfs.pools.keys()].indexOf(name) + 1,
    name,
    guid: zfs.datasets.get(name)?.guid ?? "0",
    status: "ONLINE",
    path: `/mnt/${name}`,
    scan: null,
    expand: null,
    is_upgraded: true,
    healthy: true,
    warning: false,
    status_code: "OK",
    status_detail: null,
    size,
    allocated,
    free,
    freeing: 0,
    dedup_table_size: 0,
    dedup_table_quota: "auto",
    fragmentation: "0",
    size_str: String(size),
    allocated_str: String(allocated),
    free_str: String(free),
    freeing_str: "0",
    autotrim: { value: "off", rawvalue: "off", parsed: "off", source: "DEFAULT" },
    topology: { data: [], log: [], cache: [], spare: [], special: [], dedup: [] },
    ...(call.sim.release.major < 2600 ? {} : { all_sed: false }),
  };
}

const poolEntries = (call: Call) =>
  [...call.sim.world.zfs.pools.keys()].map((name) => poolEntry(call, name));

function statfs(call: Call, path: string): JsonObject {
  const { zfs } = call.sim.world;
  if (!path.startsWith("/mnt/")) throw new CallError("Path must be within /mnt", 22);
  const name = path.slice("/mnt/".length).replace(/\/$/, "");
  const dataset = zfs.datasets.get(name);
  if (dataset?.type !== "FILESYSTEM") throw new CallError("Path not found.", 2);
  const block = 131_072;
  const available = Math.floor(zfs.free(name) / block);
  const total = available + Math.floor(dataset.referenced / block);
  const texts: JsonObject = {};
  for (
    const [key, blocks] of [["total", total], ["free", available], ["avail", available]] as const
  ) {
    texts[`${key}_blocks`] = blocks;
    texts[`${key}_blocks_str`] = String(blocks);
    texts[`${key}_bytes`] = blocks * block;
    texts[`${key}_bytes_str`] = String(blocks * block);
  }
  return {
    flags: ["RW", "XATTR", "NFS4ACL", "CASESENSITIVE", "NOATIME"],
    fsid: "1a2b3c4d5e6f7081",
    fstype: "zfs",
    source: name,
    dest: path,
    blocksize: block,
    files: 1000,
    free_files: 1000,
    name_max: 255,
    ...texts,
  };
}

export const system: Methods = {
  "system.version": (call) => call.sim.release.version,
  "system.version_short": (call) => call.sim.release.versionShort,
  "system.ready": () => true,
  "system.state": () => "READY",
  "system.boot_id": (call) => call.sim.world.bootId,
  "system.host_id": (call) => call.sim.world.hostId,
  "system.product_type": () => "COMMUNITY_EDITION",
  "system.info": (call) => ({
    version: call.sim.release.version,
    buildtime: date(BOOTED),
    hostname: "truenas",
    physmem: 17_179_869_184,
    model: "Simulated",
    cores: 4,
    physical_cores: 4,
    loadavg: [0, 0, 0],
    uptime: "1:00:00",
    uptime_seconds: 3600,
    system_serial: null,
    system_product: null,
    system_product_version: null,
    license: null,
    boottime: date(BOOTED),
    datetime: date(call.sim.now() / 1000),
    timezone: "UTC",
    system_manufacturer: null,
    ecc_memory: false,
  }),
  "system.general.config": (call) => ({
    id: 1,
    ui_certificate: null,
    ui_httpsport: 443,
    ui_httpsredirect: false,
    ui_httpsprotocols: ["TLSv1.2", "TLSv1.3"],
    ui_port: 80,
    ui_address: ["0.0.0.0"],
    ui_v6address: ["::"],
    ui_allowlist: [],
    ui_consolemsg: true,
    ui_x_frame_options: "SAMEORIGIN",
    kbdmap: "us",
    timezone: "UTC",
    usage_collection: true,
    wizardshown: true,
    usage_collection_is_set: true,
    ds_auth: false,
    ...(call.sim.release.major < 2600 ? {} : { ui_certificate_name: null }),
  }),

  "service.query": (call, [filters, options]) => {
    const extra = object(object(options).extra);
    return query(serviceRows(call, extra.include_state !== false), filters ?? [], object(options));
  },
  "service.get_instance": (call, [id]) => {
    const row = serviceRows(call, true).find((entry) => entry.id === id || entry.service === id);
    if (row === undefined) throw notFound(`Service ${id} does not exist`);
    return row;
  },
  "service.started": (call, [name]) => stateOf(call, name).running,
  "service.started_or_enabled": (call, [name]) => {
    const state = stateOf(call, name);
    return state.running || state.enable;
  },
  "service.update": (call, [id, data]) => {
    const row = serviceRows(call, true).find((entry) => entry.id === id || entry.service === id);
    if (row === undefined) throw notFound(`Service ${id} does not exist`);
    const state = stateOf(call, row.service);
    state.enable = object(data).enable === true;
    return row.id ?? null;
  },
  "service.start": verb("START"),
  "service.stop": verb("STOP"),
  "service.restart": verb("RESTART"),
  "service.reload": verb("RELOAD"),
  "service.control": async (call, [action, name, options]) => {
    try {
      return await control(call, String(action), name) || action === "STOP";
    } catch (error) {
      if (error instanceof CallError && object(options).silent !== false) return false;
      throw error;
    }
  },

  "pool.query": (call, [filters, options]) =>
    query(poolEntries(call), filters ?? [], object(options)),
  "pool.get_instance": (call, [id]) => {
    const entry = poolEntries(call).find((pool) => pool.id === id || pool.name === id);
    if (entry === undefined) throw notFound(`Pool ${id} does not exist`);
    return entry;
  },
  "filesystem.statfs": (call, [path]) => statfs(call, String(path)),
};
