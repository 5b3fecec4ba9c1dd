/** `iscsi.extent`: zvols (and files) as SCSI disks. */

import { randomBytes } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import { CallError, ValidationErrors } from "../errors.ts";
import { iqnOf, zvolOf } from "../export_view.ts";
import { inUse } from "./iscsi_target.ts";
import {
  announce,
  having,
  integrityError,
  object,
  reading,
  reload,
  rowOf,
  yieldToOthers,
} from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "iscsitarget";

const extents: Rows = {
  service: "iscsi.extent",
  noun: "iSCSITargetExtent",
  table: (call) => call.sim.world.tables.extent,
  columns: [
    "id",
    "name",
    "serial",
    "type",
    "path",
    "filesize",
    "blocksize",
    "pblocksize",
    "avail_threshold",
    "comment",
    "naa",
    "insecure_tpc",
    "xen",
    "rpm",
    "ro",
    "enabled",
    "vendor",
    "product_id",
  ],
  entry: (call, row, extra) => {
    const disk = row.type === "DISK";
    const known = extra.retrieve_locked_info !== false;
    const dataset = call.sim.world.zfs.datasets.get(zvolOf(row.path));
    return {
      ...row,
      disk: disk ? row.path ?? null : null,
      locked: known ? dataset?.locked ?? false : null,
      ...(call.sim.release.major < 2600 ? {} : { dataset: null, relative_path: null }),
    };
  },
};

/** What SCST's own names make of an extent's name. */
const flattened = (name: string): string => name.replaceAll(".", "_").replaceAll("/", "-");

function checkName(
  call: Call,
  schema: string,
  name: string,
  others: JsonObject[],
  errors: ValidationErrors,
) {
  if (others.some((row) => row.name === name)) {
    errors.add(`${schema}.name`, "Extent name must be unique");
  } else if (call.sim.release.major >= 2510) {
    const twin = others.find((row) => flattened(String(row.name)) === flattened(name));
    if (twin !== undefined) {
      errors.add(`${schema}.name`, `Extent name must be unique when flattened (${twin.name})`);
    }
  }
  if (name.includes('"')) errors.add(`${schema}.name`, "Double quotes are not allowed");
}

function checkDisk(
  call: Call,
  schema: string,
  data: JsonObject,
  others: JsonObject[],
  errors: ValidationErrors,
) {
  const { disk } = data;
  if (typeof disk !== "string" || disk === "") {
    errors.add(`${schema}.disk`, "This field is required");
    return;
  }
  if (!disk.startsWith("zvol/")) {
    errors.add(`${schema}.disk`, 'Disk name must start with "zvol/"');
    return;
  }
  const zvol = disk.slice("zvol/".length);
  // The node of a name with a blank has a plus there, so the blank itself names no device.
  if (zvol.includes(" ") || !call.sim.hasNode(zvolOf(disk))) {
    errors.add(
      `${schema}.disk`,
      `Device '/dev/${disk}' for volume '${zvolOf(disk)}' does not exist`,
    );
  }
  if (disk.includes("@") && data.ro !== true) {
    errors.add(`${schema}.ro`, "Must be set when disk is a ZFS Snapshot");
  }
  // 25.04 lets two extents share a zvol.
  if (call.sim.release.major < 2510) return;
  const extent = others.find((row) => row.path === disk);
  if (extent !== undefined) {
    errors.add(`${schema}.disk`, `Disk currently in use by extent ${extent.name}`);
  }
  const { namespace, subsys } = call.sim.world.tables;
  const used = namespace.find((row) => row.device_path === disk);
  if (used !== undefined) {
    const name = subsys.get(Number(used.subsys_id))?.name;
    errors.add(
      `${schema}.disk`,
      `Disk currently in use by NVMe-oF subsystem ${name} NSID ${used.nsid}`,
    );
  }
}

function checkFile(call: Call, schema: string, data: JsonObject, errors: ValidationErrors): void {
  const path = data.path;
  if (typeof path !== "string" || path === "") {
    errors.add(`${schema}.path`, "This field is required");
    return;
  }
  const pools = [...call.sim.world.zfs.pools.keys()];
  if (!pools.some((pool) => path.startsWith(`/mnt/${pool}/`))) {
    errors.add(`${schema}.path`, "The path must reside within a pool mount point");
  }
  const size = Number(data.filesize);
  const block = Number(data.blocksize);
  if (size % block !== 0) {
    errors.add(
      `${schema}.filesize`,
      `File size (${size}) must be a multiple of block size (${block})`,
    );
  }
}

function checkExtent(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const others = call.sim.world.tables.extent.all().filter((row) => row.id !== own);
  const errors = new ValidationErrors();
  const serial = data.serial;
  checkName(call, schema, String(data.name), others, errors);
  if (data.type === "DISK") checkDisk(call, schema, data, others, errors);
  else checkFile(call, schema, data, errors);
  if (typeof serial === "string") {
    if (serial.includes('"')) errors.add(`${schema}.serial`, "Double quotes are not allowed");
    if (serial.length > 20) {
      errors.add(`${schema}.serial`, "Extent serial can not exceed 20 characters");
    }
    if (others.some((row) => row.serial === serial)) {
      errors.add(`${schema}.serial`, "Serial number must be unique");
    }
  }
  errors.check();
}

/** The columns of an extent from the fields of a request. */
function columns(call: Call, data: JsonObject): JsonObject {
  const { disk, locked: _locked, dataset: _dataset, relative_path: _path, ...rest } = data;
  const old = call.sim.release.major < 2510;
  return {
    ...rest,
    path: (data.type === "DISK" ? disk : rest.path) ?? null,
    filesize: String(rest.filesize ?? "0"),
    ...(old ? {} : { product_id: rest.product_id ?? "iSCSI Disk" }),
  };
}

export const iscsiExtents: Methods = {
  ...reading(extents),
  "iscsi.extent.disk_choices": (call) => {
    const { zfs, tables } = call.sim.world;
    const used = new Set(tables.extent.all().map((row) => row.path));
    const free = [...zfs.datasets.values()].filter((dataset) => dataset.type === "VOLUME")
      .map((dataset) => ({ path: `zvol/${dataset.name.replaceAll(" ", "+")}`, dataset }))
      .filter(({ path, dataset }) => !used.has(path) && call.sim.hasNode(dataset.name));
    return Object.fromEntries(free.map(({ path, dataset }) => [path, dataset.name]));
  },
  "iscsi.extent.create": async (call, [given]) => {
    const data = object(given);
    checkExtent(call, "iscsi_extent_create", data, undefined);
    await yieldToOthers();
    const { extent } = call.sim.world.tables;
    if (extent.find((row) => row.name === data.name) !== undefined) {
      throw integrityError(
        "UNIQUE constraint failed: services_iscsitargetextent.iscsi_target_extent_name",
        "INSERT INTO services_iscsitargetextent (iscsi_target_extent_name) VALUES (?)",
        `('${data.name}',)`,
      );
    }
    const row = extent.insert({
      ...columns(call, data),
      serial: data.serial ?? randomBytes(8).toString("hex").slice(0, 15),
      naa: `0x6589cfc000000${randomBytes(10).toString("hex").slice(0, 19)}`,
      vendor: "TrueNAS",
    });
    const entry = extents.entry(call, row, {}, true);
    announce(call, "added", "iscsi.extent", row.id, entry);
    // The one write without a reload: an extent is offered only once it is mapped.
    return entry;
  },
  "iscsi.extent.update": async (call, [id, given]) => {
    const old = rowOf(extents, call, id);
    const merged = { ...extents.entry(call, old, {}, true), ...object(given) };
    checkExtent(call, "iscsi_extent_update", merged, old.id);
    const { extent } = call.sim.world.tables;
    const row = extent.patch(Number(id), {
      ...columns(call, merged),
      serial: merged.serial ?? old.serial ?? null,
    });
    const entry = extents.entry(call, row, {}, true);
    await reload(call, SERVICE);
    announce(call, "changed", "iscsi.extent", Number(id), entry);
    await reload(call, SERVICE);
    return entry;
  },
  "iscsi.extent.delete": async (call, [id, _remove, force]) => {
    rowOf(extents, call, id);
    const { extent, target, targetextent } = call.sim.world.tables;
    const mapped = having(targetextent, "extent", id ?? null);
    if (force !== true) {
      const busy = mapped.flatMap((mapping) => {
        const owner = target.get(Number(mapping.target));
        return owner !== undefined && inUse(call, owner)
          ? [iqnOf(call.sim.world, String(owner.name))]
          : [];
      });
      if (busy.length > 0) {
        throw new CallError(`Associated target(s) ${busy.join(",")} is in use.`);
      }
    }
    for (const mapping of mapped) {
      targetextent.delete(Number(mapping.id));
      announce(call, "removed", "iscsi.targetextent", Number(mapping.id));
      await reload(call, SERVICE);
    }
    extent.delete(Number(id));
    announce(call, "removed", "iscsi.extent", Number(id));
    await reload(call, SERVICE);
    return true;
  },
};
