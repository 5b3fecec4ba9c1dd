/** `nvmet.global`, `nvmet.host` and `nvmet.port`, and the links of both to subsystems. */

import { randomBytes } from "node:crypto";
import { isIP } from "node:net";
import type { Json, JsonObject } from "../json.ts";
import { ValidationErrors } from "../errors.ts";
import { query } from "../filters.ts";
import { subsystemFields, subsystems } from "./nvmet_subsys.ts";
import { announce, having, lowestFree, object, reading, reload, rowOf } from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "nvmet";
const HASHES = ["SHA-256", "SHA-384", "SHA-512"];
const GROUPS = ["2048-BIT", "3072-BIT", "4096-BIT", "6144-BIT", "8192-BIT"];
const NO_RDMA = "This platform cannot support NVMe-oF(RDMA) or is missing a";

const hosts: Rows = {
  service: "nvmet.host",
  noun: "NVMetHost",
  table: (call) => call.sim.world.tables.host,
  columns: ["id", "hostnqn", "dhchap_key", "dhchap_ctrl_key", "dhchap_dhgroup", "dhchap_hash"],
  entry: (call, row) => {
    const mask = (key: Json | undefined) =>
      key && !call.session.has(["SHARING_NVME_TARGET_WRITE", "SHARING_WRITE"])
        ? "********"
        : key ?? null;
    return {
      ...row,
      dhchap_key: mask(row.dhchap_key),
      dhchap_ctrl_key: mask(row.dhchap_ctrl_key),
    };
  },
};

const ports: Rows = {
  service: "nvmet.port",
  noun: "NVMetPort",
  table: (call) => call.sim.world.tables.port,
  columns: ["id", "index", "addr_trtype", "addr_trsvcid", "addr_traddr", "enabled"],
  entry: (_call, row) => row,
};

/** A link shows both of its ends in full. */
function links(
  service: string,
  noun: string,
  table: "hostSubsys" | "portSubsys",
  end: Rows,
  name: "host" | "port",
): Rows {
  return {
    service,
    noun,
    table: (call) => call.sim.world.tables[table],
    columns: ["id", `${name}_id`, "subsys_id"],
    entry: (call, row) => ({
      id: row.id ?? 0,
      [name]: end.entry(call, end.table(call).get(Number(row[`${name}_id`])) ?? {}, {}, true),
      subsys: subsystems.entry(
        call,
        subsystems.table(call).get(Number(row.subsys_id)) ?? {},
        {},
        true,
      ),
    }),
  };
}

const hostLinks = links("nvmet.host_subsys", "NVMetHostSubsys", "hostSubsys", hosts, "host");
const portLinks = links("nvmet.port_subsys", "NVMetPortSubsys", "portSubsys", ports, "port");

/** The event of a link shows the subsystem without its lists. */
function linkEvent(entry: JsonObject): JsonObject {
  return { ...entry, subsys: subsystemFields(object(entry.subsys)) };
}

function checkHost(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const errors = new ValidationErrors();
  const twin = hosts.table(call).find((row) => row.hostnqn === data.hostnqn && row.id !== own);
  if (twin !== undefined) {
    errors.add(`${schema}.hostnqn`, "Object with this hostnqn already exists");
  }
  for (const field of ["dhchap_key", "dhchap_ctrl_key"]) {
    const key = data[field];
    if (typeof key !== "string" || /^DHHC-1:\d\d:[A-Za-z0-9+/=]+:$/.test(key)) continue;
    errors.add(
      `${schema}.${field}`,
      'Unexpected key format. Use "nvme gen-dhchap-key" to generate.',
    );
  }
  errors.check();
}

function checkPort(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const errors = new ValidationErrors();
  if (data.addr_trtype === "RDMA") {
    errors.add(`${schema}.addr_trtype`, `${NO_RDMA}n RDMA capable NIC.`);
    errors.check();
  }
  const twin = ports.table(call).find((row) =>
    row.id !== own && row.addr_trtype === data.addr_trtype &&
    row.addr_traddr === data.addr_traddr && row.addr_trsvcid === data.addr_trsvcid
  );
  if (twin !== undefined) {
    errors.add(
      `${schema}.addr_traddr`,
      "There already is a port using the same transport and address",
    );
  }
  errors.check();
}

const family = (data: JsonObject): string =>
  data.addr_trtype === "FC" ? "FC" : isIP(String(data.addr_traddr)) === 6 ? "IPV6" : "IPV4";

/** Refuses to change what a running service uses. */
export function checkActive(
  call: Call,
  old: JsonObject,
  fields: JsonObject,
  free: readonly string[],
  add: (field: string) => void,
): void {
  if (old.enabled !== true || !call.sim.world.services.get(SERVICE)?.running) return;
  if (fields.enabled === false) return;
  for (const [field, value] of Object.entries(fields)) {
    if (!free.includes(field) && value !== old[field]) add(field);
  }
}

function users(call: Call, table: "hostSubsys" | "portSubsys", field: string, id: Json): string[] {
  return having(call.sim.world.tables[table], field, id).map((link) =>
    String(call.sim.world.tables.subsys.get(Number(link.subsys_id))?.name)
  );
}

function usedText(names: string[]): string {
  return `used by ${names.length} subsystem${names.length === 1 ? "" : "s"}: ${names.join(",")}`;
}

async function deleteEnd(
  call: Call,
  rows: Rows,
  table: "hostSubsys" | "portSubsys",
  field: string,
  [id, options]: Json[],
  noun: (row: JsonObject) => string,
): Promise<Json> {
  const row = rowOf(rows, call, id);
  const names = users(call, table, field, id ?? null);
  if (names.length > 0 && object(options).force !== true) {
    const place = `${rows.service.replace(".", "_")}_delete.id`;
    throw new ValidationErrors([[place, `${noun(row)} ${usedText(names)}`, 22]]);
  }
  for (const link of having(call.sim.world.tables[table], field, id ?? null)) {
    call.sim.world.tables[table].delete(Number(link.id));
  }
  rows.table(call).delete(Number(id));
  announce(call, "removed", rows.service, Number(id));
  await reload(call, SERVICE);
  return true;
}

function linkMethods(
  rows: Rows,
  table: "hostSubsys" | "portSubsys",
  end: Rows,
  name: "host" | "port",
): Methods {
  const check = (call: Call, schema: string, data: JsonObject, own: Json | undefined) => {
    const errors = new ValidationErrors();
    const id = data[`${name}_id`] ?? null;
    if (end.table(call).get(Number(id)) === undefined) {
      errors.add(`${schema}.${name}_id`, `No ${name} with ID ${id}`);
    }
    if (call.sim.world.tables.subsys.get(Number(data.subsys_id)) === undefined) {
      errors.add(`${schema}.subsys_id`, `No subsystem with ID ${data.subsys_id}`);
    }
    const twin = rows.table(call).find((row) =>
      row.id !== own && row[`${name}_id`] === id && row.subsys_id === data.subsys_id
    );
    if (twin !== undefined) {
      errors.add(
        `${schema}.${name}_id`,
        `This record already exists (Host ID: ${id}/Subsystem ID: ${data.subsys_id})`,
      );
    }
    errors.check();
  };
  const prefix = rows.service.replace(".", "_");
  return {
    ...reading(rows),
    [`${rows.service}.create`]: async (call, [given]) => {
      const data = object(given);
      check(call, `${prefix}_create`, data, undefined);
      const row = call.sim.world.tables[table].insert(data);
      const entry = rows.entry(call, row, {}, true);
      announce(call, "added", rows.service, row.id, linkEvent(entry));
      await reload(call, SERVICE);
      return entry;
    },
    [`${rows.service}.update`]: async (call, [id, given]) => {
      const merged = { ...rowOf(rows, call, id), ...object(given) };
      check(call, `${prefix}_update`, merged, id);
      const row = call.sim.world.tables[table].patch(Number(id), merged);
      const entry = rows.entry(call, row, {}, true);
      announce(call, "changed", rows.service, Number(id), linkEvent(entry));
      await reload(call, SERVICE);
      return entry;
    },
    [`${rows.service}.delete`]: async (call, [id]) => {
      rowOf(rows, call, id);
      call.sim.world.tables[table].delete(Number(id));
      announce(call, "removed", rows.service, Number(id));
      await reload(call, SERVICE);
      return true;
    },
  };
}

export const nvmetAccess: Methods = {
  "nvmet.global.config": (call) => call.sim.world.nvmetGlobal,
  "nvmet.global.update": async (call, [data]) => {
    const fields = object(data);
    const errors = new ValidationErrors();
    if (fields.ana) {
      errors.add(
        "nvmet_global_update.ana",
        "This platform does not support Asymmetric Namespace Access(ANA).",
      );
    }
    if (fields.rdma) errors.add("nvmet_global_update.rdma", `${NO_RDMA} RDMA capable NIC.`);
    errors.check();
    call.sim.world.nvmetGlobal = { ...call.sim.world.nvmetGlobal, ...fields };
    await reload(call, SERVICE);
    return call.sim.world.nvmetGlobal;
  },
  "nvmet.global.sessions": (call, [filters, options]) => {
    const { subsys, port } = call.sim.world.tables;
    const rows = call.sim.dataSide.sessions().nvmet.map((session, index) => ({
      host_traddr: session.address,
      hostnqn: session.hostNqn,
      subsys_id: Number(subsys.find((row) => row.subnqn === session.nqn)?.id ?? 0),
      port_id: Number(port.find((row) => row.addr_traddr === session.portAddress)?.id ?? 0),
      ctrl: index + 1,
    }));
    return query(rows, filters ?? [], object(options));
  },

  ...reading(hosts),
  "nvmet.host.create": async (call, [given]) => {
    const data = object(given);
    checkHost(call, "nvmet_host_create", data, undefined);
    const row = hosts.table(call).insert(data);
    announce(call, "added", "nvmet.host", row.id, row);
    await reload(call, SERVICE);
    return hosts.entry(call, row, {}, true);
  },
  "nvmet.host.update": async (call, [id, given]) => {
    const merged = { ...rowOf(hosts, call, id), ...object(given) };
    checkHost(call, "nvmet_host_update", merged, id);
    const row = hosts.table(call).patch(Number(id), merged);
    announce(call, "changed", "nvmet.host", Number(id), row);
    await reload(call, SERVICE);
    return hosts.entry(call, row, {}, true);
  },
  "nvmet.host.delete": (call, args) =>
    deleteEnd(call, hosts, "hostSubsys", "host_id", args, (row) => `Host ${row.hostnqn}`),
  "nvmet.host.generate_key": (_call, [hash]) => {
    const index = HASHES.indexOf(String(hash)) + 1;
    const bytes = [32, 48, 64][index - 1] ?? 32;
    return `DHHC-1:0${index}:${randomBytes(bytes + 4).toString("base64")}:`;
  },
  "nvmet.host.dhchap_dhgroup_choices": () => GROUPS,
  "nvmet.host.dhchap_hash_choices": () => HASHES,

  ...reading(ports),
  "nvmet.port.transport_address_choices": (call, [type]) =>
    type === "TCP" ? Object.fromEntries(call.sim.world.addresses.own.map((ip) => [ip, ip])) : {},
  "nvmet.port.create": async (call, [given]) => {
    const data = object(given);
    checkPort(call, "nvmet_port_create", data, undefined);
    const table = ports.table(call);
    const row = table.insert({
      index: lowestFree(table.all().map((other) => Number(other.index)), 1),
      addr_trsvcid: null,
      addr_adrfam: family(data),
      ...data,
    });
    announce(call, "added", "nvmet.port", row.id, row);
    await reload(call, SERVICE);
    return row;
  },
  "nvmet.port.update": async (call, [id, given]) => {
    const old = rowOf(ports, call, id);
    const fields = object(given);
    const errors = new ValidationErrors();
    checkActive(call, old, fields, ["enabled"], (field) =>
      errors.add(
        `nvmet_port_update.${field}`,
        `Cannot change ${field} on an active port.  Disable first to allow change.`,
      ));
    errors.check();
    const merged = { ...old, ...fields };
    checkPort(call, "nvmet_port_update", merged, id);
    const row = ports.table(call).patch(Number(id), { ...merged, addr_adrfam: family(merged) });
    announce(call, "changed", "nvmet.port", Number(id), row);
    await reload(call, SERVICE);
    return row;
  },
  "nvmet.port.delete": (call, args) =>
    deleteEnd(call, ports, "portSubsys", "port_id", args, (row) => `Port #${row.index}`),

  ...linkMethods(hostLinks, "hostSubsys", hosts, "host"),
  ...linkMethods(portLinks, "portSubsys", ports, "port"),
};
