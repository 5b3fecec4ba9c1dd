/** `nvmet.subsys`: the NVMe-oF subsystems. */

import { randomBytes } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import { pythonRepr } from "../json.ts";
import { ValidationErrors } from "../errors.ts";
import { announce, having, integrityError, object, reading, reload, rowOf } from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "nvmet";
const LISTS = ["hosts", "namespaces", "ports"] as const;

export const subsystems: Rows = {
  service: "nvmet.subsys",
  noun: "NVMetSubsys",
  table: (call) => call.sim.world.tables.subsys,
  columns: [
    "id",
    "name",
    "subnqn",
    "serial",
    "allow_any_host",
    "pi_enable",
    "qid_max",
    "ieee_oui",
    "ana",
  ],
  // A query shows the lists only when asked; a single entry shows them, empty unless asked.
  entry: (call, row, extra, single) => {
    if (extra.verbose !== true) {
      return single ? { ...row, hosts: [], namespaces: [], ports: [] } : row;
    }
    const { hostSubsys, namespace, portSubsys } = call.sim.world.tables;
    const own = (table: typeof hostSubsys, field: string) =>
      having(table, "subsys_id", row.id ?? 0).map((entry) => entry[field] ?? null);
    return {
      ...row,
      hosts: own(hostSubsys, "host_id"),
      namespaces: own(namespace, "id"),
      ports: own(portSubsys, "port_id"),
    };
  },
};

/** A subsystem's own fields, as events show it. */
export function subsystemFields(entry: JsonObject): JsonObject {
  return Object.fromEntries(
    Object.entries(entry).filter(([key]) => !LISTS.includes(key as typeof LISTS[number])),
  );
}

function check(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const errors = new ValidationErrors();
  const twin = subsystems.table(call).find((row) => row.name === data.name && row.id !== own);
  if (twin !== undefined) errors.add(`${schema}.name`, "Object with this name already exists");
  if (data.ana) {
    errors.add(
      `${schema}.ana`,
      "This platform does not support Asymmetric Namespace Access(ANA).",
    );
  }
  errors.check();
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

export const nvmetSubsystems: Methods = {
  ...reading(subsystems),
  "nvmet.subsys.create": async (call, [given]) => {
    const data = object(given);
    check(call, "nvmet_subsys_create", data, undefined);
    const table = subsystems.table(call);
    const subnqn = data.subnqn ?? `${call.sim.world.nvmetGlobal.basenqn}:${data.name}`;
    const columns = {
      name: data.name ?? "",
      subnqn,
      serial: randomBytes(10).toString("hex"),
      allow_any_host: data.allow_any_host ?? false,
      pi_enable: data.pi_enable ?? null,
      qid_max: data.qid_max ?? null,
      ieee_oui: data.ieee_oui ?? null,
      ana: data.ana ?? null,
    };
    if (table.find((row) => row.subnqn === subnqn) !== undefined) {
      throw integrityError(
        "UNIQUE constraint failed: services_nvmet_subsys.nvmet_subsys_subnqn",
        `INSERT INTO services_nvmet_subsys (${
          Object.keys(columns).map((name) => `nvmet_subsys_${name}`).join(", ")
        }) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        `(${
          Object.values(columns).map((v) => v === false ? "0" : v === true ? "1" : pythonRepr(v))
            .join(", ")
        })`,
      );
    }
    const row = table.insert(columns);
    announce(call, "added", "nvmet.subsys", row.id, row);
    await reload(call, SERVICE);
    return subsystems.entry(call, row, {}, true);
  },
  "nvmet.subsys.update": async (call, [id, given]) => {
    const merged = { ...rowOf(subsystems, call, id), ...object(given) };
    check(call, "nvmet_subsys_update", merged, id);
    const row = subsystems.table(call).patch(Number(id), merged);
    announce(call, "changed", "nvmet.subsys", Number(id), row);
    await reload(call, SERVICE);
    return subsystems.entry(call, row, {}, true);
  },
  "nvmet.subsys.delete": async (call, [id, options]) => {
    const row = rowOf(subsystems, call, id);
    const { hostSubsys, namespace, portSubsys } = call.sim.world.tables;
    const namespaces = having(namespace, "subsys_id", id ?? null);
    const links = having(portSubsys, "subsys_id", id ?? null);
    if (object(options).force !== true) {
      const errors = new ValidationErrors();
      const place = "nvmet_subsys_delete.id";
      if (namespaces.length > 0) {
        const numbers = namespaces.map((entry) => Number(entry.nsid)).sort((a, b) => a - b);
        errors.add(
          place,
          `Subsystem ${row.name} contains ${counted(numbers.length, "namespace")}: ${
            numbers.join(",")
          }`,
        );
      }
      if (links.length > 0) {
        errors.add(place, `Subsystem ${row.name} visible on ${counted(links.length, "port")}`);
      }
      errors.check();
    }
    for (const entry of namespaces) namespace.delete(Number(entry.id));
    for (const link of links) portSubsys.delete(Number(link.id));
    for (const link of having(hostSubsys, "subsys_id", id ?? null)) {
      hostSubsys.delete(Number(link.id));
    }
    subsystems.table(call).delete(Number(id));
    announce(call, "removed", "nvmet.subsys", Number(id));
    await reload(call, SERVICE);
    return true;
  },
};
