/** `nvmet.namespace`: zvols as NVMe namespaces. */

import { randomUUID } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import { ValidationErrors } from "../errors.ts";
import { zvolOf } from "../export_view.ts";
import { Queue } from "../queue.ts";
import { checkActive } from "./nvmet_access.ts";
import { subsystemFields, subsystems } from "./nvmet_subsys.ts";
import {
  announce,
  having,
  lowestFree,
  object,
  reading,
  reload,
  rowOf,
  yieldToOthers,
} from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "nvmet";

const namespaces: Rows = {
  service: "nvmet.namespace",
  noun: "NVMetNamespace",
  table: (call) => call.sim.world.tables.namespace,
  columns: [
    "id",
    "nsid",
    "subsys_id",
    "device_type",
    "device_path",
    "filesize",
    "device_uuid",
    "device_nguid",
    "enabled",
  ],
  entry: (call, row, extra) => {
    const { subsys_id, ...own } = row;
    const subsys = subsystems.table(call).get(Number(subsys_id)) ?? {};
    const known = extra.retrieve_locked_info !== false;
    const dataset = call.sim.world.zfs.datasets.get(zvolOf(row.device_path));
    return {
      ...own,
      subsys: subsystems.entry(call, subsys, {}, true),
      locked: known ? dataset?.locked ?? false : null,
      ...(call.sim.release.major < 2600 ? {} : { dataset: null, relative_path: null }),
    };
  },
};

function checkPath(
  call: Call,
  schema: string,
  data: JsonObject,
  own: Json | undefined,
  errors: ValidationErrors,
) {
  const path = String(data.device_path);
  const at = `${schema}.device_path`;
  const { extent, namespace } = call.sim.world.tables;
  if (data.device_type === "FILE") {
    const inside = [...call.sim.world.zfs.datasets.values()].some((dataset) =>
      dataset.type === "FILESYSTEM" && path.startsWith(`/mnt/${dataset.name}/`)
    );
    if (!inside) {
      errors.add(
        at,
        `FILE device_path must reside in an existing directory on a dataset: ${path}`,
      );
    }
  } else if (!path.startsWith("zvol/")) {
    errors.add(at, `ZVOL device_path must start with "zvol/": ${path}`);
    return;
  } else if (!call.sim.hasNode(zvolOf(path))) {
    errors.add(at, `ZVOL device_path must be a block device: ${path}`);
  }
  const twin = namespace.find((row) => row.device_path === path && row.id !== own);
  if (twin !== undefined) {
    const name = subsystems.table(call).get(Number(twin.subsys_id))?.name;
    errors.add(at, `This device_path already used by subsystem: ${name}`);
  }
  const disk = extent.find((row) => row.path === path);
  if (disk !== undefined) {
    errors.add(at, `This device_path already used by iSCSI extent: ${disk.name}`);
  }
}

function check(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const errors = new ValidationErrors();
  const { subsys_id: subsystem, nsid } = data;
  if (subsystems.table(call).get(Number(subsystem)) === undefined) {
    errors.add(`${schema}.subsys_id`, `No subsystem with ID ${subsystem}`);
  }
  const twin = namespaces.table(call).find((row) =>
    row.subsys_id === subsystem && row.nsid === nsid && row.id !== own
  );
  if (nsid !== null && twin !== undefined) {
    errors.add(
      `${schema}.nsid`,
      `This record already exists (Subsystem ID: ${subsystem}/NSID: ${nsid})`,
    );
  }
  checkPath(call, schema, data, own, errors);
  errors.check();
}

/** Choosing a free number is done under a lock; a number that was asked for is checked without. */
const choosing = new WeakMap<object, Queue>();

async function insert(call: Call, data: JsonObject): Promise<JsonObject & { id: number }> {
  const table = namespaces.table(call);
  const columns = (nsid: Json): JsonObject => ({
    nsid,
    device_type: data.device_type ?? "ZVOL",
    device_path: data.device_path ?? "",
    filesize: data.filesize ?? null,
    device_uuid: randomUUID(),
    device_nguid: randomUUID(),
    enabled: data.enabled ?? true,
    subsys_id: data.subsys_id ?? null,
  });
  if (data.nsid !== null && data.nsid !== undefined) {
    await yieldToOthers();
    return table.insert(columns(data.nsid));
  }
  const queue = choosing.get(call.sim) ?? new Queue();
  choosing.set(call.sim, queue);
  return await queue.run(async () => {
    await yieldToOthers();
    const taken = having(table, "subsys_id", data.subsys_id ?? null).map((row) => Number(row.nsid));
    return table.insert(columns(lowestFree(taken, 1)));
  });
}

function event(entry: JsonObject): JsonObject {
  return { ...entry, subsys: subsystemFields(object(entry.subsys)) };
}

export const nvmetNamespaces: Methods = {
  ...reading(namespaces),
  "nvmet.namespace.create": async (call, [given]) => {
    const data = object(given);
    check(call, "nvmet_namespace_create", { nsid: null, ...data }, undefined);
    const row = await insert(call, data);
    const entry = namespaces.entry(call, row, {}, true);
    announce(call, "added", "nvmet.namespace", row.id, event(entry));
    await reload(call, SERVICE);
    return entry;
  },
  "nvmet.namespace.update": async (call, [id, given]) => {
    const old = rowOf(namespaces, call, id);
    const fields = object(given);
    const errors = new ValidationErrors();
    checkActive(call, old, fields, ["enabled", "filesize"], (field) =>
      errors.add(
        "nvmet_namespace_update",
        `Cannot change ${field} on an active namespace.  Disable first to allow change.`,
      ));
    errors.check();
    const merged = { ...old, ...fields };
    check(call, "nvmet_namespace_update", merged, id);
    const row = namespaces.table(call).patch(Number(id), merged);
    const entry = namespaces.entry(call, row, {}, true);
    announce(call, "changed", "nvmet.namespace", Number(id), event(entry));
    await reload(call, SERVICE);
    return entry;
  },
  // No look at who is connected: it goes even under running I/O.
  "nvmet.namespace.delete": async (call, [id]) => {
    rowOf(namespaces, call, id);
    namespaces.table(call).delete(Number(id));
    announce(call, "removed", "nvmet.namespace", Number(id));
    await reload(call, SERVICE);
    return true;
  },
};
