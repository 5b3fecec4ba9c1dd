/** `iscsi.target` and `iscsi.targetextent`: the targets and which LUN is what. */

import { isIP } from "node:net";
import type { Json, JsonObject } from "../json.ts";
import { CallError, ValidationErrors } from "../errors.ts";
import { iqnOf } from "../export_view.ts";
import {
  announce,
  having,
  integrityError,
  lowestFree,
  object,
  reading,
  reload,
  rowOf,
  yieldToOthers,
} from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "iscsitarget";
/** The highest LUN, which the server's own text calls "lower than". */
const LAST_LUN = 16_382;

export const targets: Rows = {
  service: "iscsi.target",
  noun: "iSCSITarget",
  table: (call) => call.sim.world.tables.target,
  columns: ["id", "name", "alias", "mode", "auth_networks", "rel_tgt_id", "iscsi_parameters"],
  entry: (_call, row) => ({
    ...row,
    iscsi_parameters: { QueuedCommands: null, ...object(row.iscsi_parameters) },
  }),
};

const mappings: Rows = {
  service: "iscsi.targetextent",
  noun: "iSCSITargetToExtent",
  table: (call) => call.sim.world.tables.targetextent,
  columns: ["id", "target", "lunid", "extent"],
  entry: (_call, row) => ({
    id: row.id ?? 0,
    target: row.target ?? null,
    lunid: row.lunid ?? null,
    extent: row.extent ?? null,
  }),
};

/** Whether any initiator has a session to a target. */
export function inUse(call: Call, target: JsonObject): boolean {
  const iqn = iqnOf(call.sim.world, String(target.name));
  return call.sim.dataSide.sessions().iscsi.some((session) => session.iqn === iqn);
}

function network(text: string): boolean {
  const [address = "", bits] = text.split("/");
  const family = isIP(address);
  if (family === 0) return false;
  return bits === undefined || (/^\d+$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
}

function checkTarget(call: Call, schema: string, data: JsonObject, own: Json | undefined): void {
  const { target, portal, initiator, auth } = call.sim.world.tables;
  const errors = new ValidationErrors();
  const others = target.all().filter((row) => row.id !== own);
  // The name check is shared with `validate_name` and keeps the name of the create everywhere.
  if (others.some((row) => row.name === data.name)) {
    errors.add("iscsi_target_create.name", "Target with this name already exists");
  }
  if (data.alias) {
    if (data.alias === "target") errors.add(`${schema}.alias`, "target is a reserved word");
    else if (others.some((row) => row.alias === data.alias)) {
      errors.add(`${schema}.alias`, "Alias already exists");
    }
  }
  if (data.mode !== "ISCSI") errors.add(`${schema}.mode`, "Fibre Channel not enabled");
  const seen = new Set<Json | undefined>();
  (Array.isArray(data.groups) ? data.groups : []).forEach((entry, index) => {
    const group = object(entry);
    const at = `${schema}.groups.${index}`;
    if (seen.has(group.portal)) {
      errors.add(`${at}.portal`, `Portal ${group.portal} cannot be duplicated on a target`);
    }
    seen.add(group.portal);
    if (portal.get(Number(group.portal)) === undefined) {
      errors.add(`${at}.portal`, `${group.portal} Portal not found in database`);
    }
    if (typeof group.initiator === "number" && initiator.get(group.initiator) === undefined) {
      errors.add(`${at}.initiator`, `${group.initiator} Initiator not found in database`);
    }
    if (group.authmethod === "NONE" || group.authmethod === undefined) return;
    if (group.auth === null || group.auth === undefined) {
      errors.add(`${at}.auth`, "Authentication group is required for CHAP and CHAP Mutual");
    } else if (group.authmethod === "CHAP_MUTUAL") {
      const credentials = having(auth, "tag", group.auth);
      if (credentials.length === 0) {
        errors.add(`${at}.auth`, `Authentication group ${group.auth} does not exist`, 2);
      } else if (!credentials.some((row) => row.peeruser)) {
        errors.add(`${at}.auth`, `Authentication group ${group.auth} does not support CHAP Mutual`);
      }
    }
  });
  (Array.isArray(data.auth_networks) ? data.auth_networks : []).forEach((entry, index) => {
    if (network(String(entry))) return;
    errors.add(
      `${schema}.auth_networks.${index}`,
      `Auth network "${entry}" is not a valid IPv4 or IPv6 network`,
    );
  });
  errors.check();
}

function checkMapping(
  call: Call,
  schema: string,
  data: JsonObject,
  own: Json | undefined,
): JsonObject {
  const { targetextent } = call.sim.world.tables;
  const errors = new ValidationErrors();
  const others = targetextent.all().filter((row) => row.id !== own);
  const taken = others.filter((row) => row.target === data.target).map((row) => Number(row.lunid));
  let { lunid } = data;
  if (lunid === null || lunid === undefined) lunid = lowestFree(taken, 0);
  else if (Number(lunid) < 0 || Number(lunid) > LAST_LUN) {
    errors.add(`${schema}.lunid`, "LUN ID must be a positive integer and lower than 16382");
  } else if (taken.includes(Number(lunid))) {
    errors.add(`${schema}.lunid`, "LUN ID is already being used for this target.");
  }
  if (others.some((row) => row.extent === data.extent)) {
    errors.add(`${schema}.extent`, "Extent is already in use.");
  }
  errors.check();
  return { target: data.target ?? null, lunid, extent: data.extent ?? null };
}

function checkRows(call: Call, row: JsonObject): void {
  const { target, extent } = call.sim.world.tables;
  if (target.get(Number(row.target)) && extent.get(Number(row.extent))) return;
  throw integrityError(
    "FOREIGN KEY constraint failed",
    "INSERT INTO services_iscsitargettoextent (iscsi_extent_id, iscsi_target_id, iscsi_lunid) VALUES (?, ?, ?)",
    `(${row.extent}, ${row.target}, ${row.lunid})`,
  );
}

export const iscsiTargets: Methods = {
  ...reading(targets),
  "iscsi.target.validate_name": (call, [name, existing]) => {
    if (!/^[-a-z0-9.:]+$/.test(String(name))) {
      return "Only lowercase alphanumeric characters plus dot (.), dash (-), and colon (:) are allowed.";
    }
    const other = call.sim.world.tables.target.find((row) =>
      row.name === name && row.id !== existing
    );
    return other === undefined ? null : "Target with this name already exists";
  },
  "iscsi.target.create": async (call, [data]) => {
    const fields = object(data);
    checkTarget(call, "iscsi_target_create", fields, undefined);
    await yieldToOthers();
    const { target } = call.sim.world.tables;
    const row = target.insert({
      name: fields.name ?? "",
      alias: fields.alias ?? null,
      mode: fields.mode ?? "ISCSI",
      groups: fields.groups ?? [],
      auth_networks: fields.auth_networks ?? [],
      rel_tgt_id: lowestFree(target.all().map((other) => Number(other.rel_tgt_id)), 1),
      iscsi_parameters: object(fields.iscsi_parameters),
    });
    announce(call, "added", "iscsi.target", row.id, row);
    await reload(call, SERVICE);
    return targets.entry(call, row, {}, true);
  },
  "iscsi.target.update": async (call, [id, data]) => {
    const old = rowOf(targets, call, id);
    const merged = { ...old, ...object(data) };
    checkTarget(call, "iscsi_target_update", merged, old.id);
    const row = call.sim.world.tables.target.patch(Number(id), {
      ...merged,
      iscsi_parameters: object(merged.iscsi_parameters),
    });
    announce(call, "changed", "iscsi.target", Number(id), row);
    await reload(call, SERVICE);
    return targets.entry(call, row, {}, true);
  },
  "iscsi.target.delete": async (call, [id, force, deleteExtents]) => {
    const row = rowOf(targets, call, id);
    if (force !== true && inUse(call, row)) throw new CallError(`Target ${row.name} is in use.`);
    const { targetextent, target } = call.sim.world.tables;
    for (const mapping of having(targetextent, "target", id ?? null)) {
      targetextent.delete(Number(mapping.id));
      announce(call, "removed", "iscsi.targetextent", Number(mapping.id));
      await reload(call, SERVICE);
      if (deleteExtents !== true) continue;
      await call.invoke("iscsi.extent.delete", [mapping.extent ?? null, false, true]);
    }
    target.delete(Number(id));
    announce(call, "removed", "iscsi.target", Number(id));
    await reload(call, SERVICE);
    return true;
  },

  ...reading(mappings),
  "iscsi.targetextent.create": async (call, [data]) => {
    const checked = checkMapping(call, "iscsi_targetextent_create", object(data), undefined);
    // No lock and no constraint on (target, LUN): two at once may choose the same number.
    await yieldToOthers();
    checkRows(call, checked);
    const row = call.sim.world.tables.targetextent.insert(checked);
    announce(call, "added", "iscsi.targetextent", row.id, mappings.entry(call, row, {}, true));
    await reload(call, SERVICE);
    return mappings.entry(call, row, {}, true);
  },
  "iscsi.targetextent.update": async (call, [id, data]) => {
    const old = rowOf(mappings, call, id);
    const merged = { ...old, ...object(data) };
    const checked = checkMapping(call, "iscsi_targetextent_update", merged, old.id);
    checkRows(call, checked);
    const row = call.sim.world.tables.targetextent.patch(Number(id), checked);
    announce(
      call,
      "changed",
      "iscsi.targetextent",
      Number(id),
      mappings.entry(call, row, {}, true),
    );
    await reload(call, SERVICE);
    return mappings.entry(call, row, {}, true);
  },
  "iscsi.targetextent.delete": async (call, [id, force]) => {
    const row = rowOf(mappings, call, id);
    const { target, targetextent } = call.sim.world.tables;
    const owner = target.get(Number(row.target));
    if (force !== true && owner !== undefined && inUse(call, owner)) {
      const iqn = iqnOf(call.sim.world, String(owner.name));
      throw new CallError(`Associated target ${iqn} is in use.`);
    }
    targetextent.delete(Number(id));
    announce(call, "removed", "iscsi.targetextent", Number(id));
    await reload(call, SERVICE);
    return true;
  },
};
