/** `iscsi.global`, `iscsi.portal`, `iscsi.initiator` and `iscsi.auth`: who may reach what, and where. */

import { isIP } from "node:net";
import type { Json, JsonObject } from "../json.ts";
import { isObject } from "../json.ts";
import { ValidationErrors } from "../errors.ts";
import { query } from "../filters.ts";
import { announce, object, reading, reload, rowOf } from "./service.ts";
import type { Call, Methods, Rows } from "./service.ts";

const SERVICE = "iscsitarget";
const MASKED = "********";

const portals: Rows = {
  service: "iscsi.portal",
  noun: "ISCSIPortal",
  table: (call) => call.sim.world.tables.portal,
  columns: ["id", "comment", "tag"],
  entry: (call, row) => ({
    id: row.id ?? 0,
    listen: listenOf(row).map((ip) => ({
      ip,
      port: call.sim.world.iscsiGlobal.listen_port ?? 3260,
    })),
    tag: row.tag ?? 0,
    comment: row.comment ?? "",
  }),
};

const initiators: Rows = {
  service: "iscsi.initiator",
  noun: "iSCSITargetAuthorizedInitiator",
  table: (call) => call.sim.world.tables.initiator,
  columns: ["id", "initiators", "comment"],
  entry: (_call, row) => row,
};

const auths: Rows = {
  service: "iscsi.auth",
  noun: "iSCSITargetAuthCredential",
  table: (call) => call.sim.world.tables.auth,
  columns: ["id", "tag", "user", "secret", "peeruser", "peersecret", "discovery_auth"],
  entry: (call, row) => {
    const { session } = call;
    const clear = session.has(["SHARING_ISCSI_AUTH_WRITE", "SHARING_ISCSI_WRITE", "SHARING_WRITE"]);
    return clear ? row : { ...row, secret: MASKED, peersecret: MASKED };
  },
};

function listenOf(row: JsonObject): string[] {
  return (Array.isArray(row.listen) ? row.listen : []).map((entry) =>
    isObject(entry) ? String(entry.ip) : String(entry)
  );
}

function checkListen(call: Call, schema: string, listen: Json, own: Json | undefined): void {
  const errors = new ValidationErrors();
  const wanted = listenOf({ listen });
  if (wanted.length === 0) errors.add(`${schema}.listen`, "At least one listen entry is required.");
  const others = call.sim.world.tables.portal.all().filter((row) => row.id !== own);
  for (const ip of wanted) {
    if (others.some((row) => listenOf(row).includes(ip))) {
      errors.add(`${schema}.listen`, `'${ip}' IP is already in use.`);
    }
    if (ip in listenChoices(call)) continue;
    errors.add(`${schema}.listen`, `IP ${ip} not configured on this system.`);
  }
  errors.check();
}

function listenChoices(call: Call): Record<string, string> {
  const all = ["0.0.0.0", "::", ...call.sim.world.addresses.own];
  return Object.fromEntries(all.map((ip) => [ip, ip]));
}

/** Tags of portals follow their ids without a gap. */
function renumber(call: Call): void {
  const { portal } = call.sim.world.tables;
  portal.all().forEach((row, index) => portal.patch(Number(row.id), { tag: index + 1 }));
}

function checkAuth(schema: string, data: JsonObject): void {
  const errors = new ValidationErrors();
  const secret = String(data.secret ?? "");
  const peer = String(data.peersecret ?? "");
  const length = "between 12 and 16 characters.";
  if (data.peeruser && !peer) {
    errors.add(`${schema}.peersecret`, "The peer secret is required if you set a peer user.");
  } else if (data.peeruser && peer === secret) {
    errors.add(`${schema}.peersecret`, "The peer secret cannot be the same as user secret.");
  } else if (peer && !data.peeruser) {
    errors.add(`${schema}.peeruser`, "The peer user is required if you set a peer secret.");
  }
  for (
    const [field, value, noun] of [["secret", secret, "Secret"], [
      "peersecret",
      peer,
      "Peer Secret",
    ]]
  ) {
    if (value === "" && field === "peersecret") continue;
    if (String(value).length < 12 || String(value).length > 16) {
      errors.add(`${schema}.${field}`, `${noun} must be ${length}`);
    }
    if (value?.includes("#")) {
      errors.add(`${schema}.${field}`, `${noun} contains invalid characters: #`);
    }
  }
  errors.check();
}

const isServer = (text: string): boolean => {
  const bracketed = /^\[(.+)\](?::\d+)?$/.exec(text);
  if (bracketed !== null) return isIP(bracketed[1] ?? "") === 6;
  return isIP(text) !== 0 || (isIP(text.replace(/:\d+$/, "")) === 4);
};

function globalConfig(call: Call): JsonObject {
  const added = call.sim.release.major < 2600 ? {} : { direct_config: null, mode: 0 };
  return { ...added, ...call.sim.world.iscsiGlobal };
}

export const iscsiAccess: Methods = {
  "iscsi.global.config": globalConfig,
  "iscsi.global.update": async (call, [data]) => {
    const fields = object(data);
    const errors = new ValidationErrors();
    for (const server of Array.isArray(fields.isns_servers) ? fields.isns_servers : []) {
      if (isServer(String(server))) continue;
      errors.add(
        "iscsiglobal_update.isns_servers",
        `Server "${server}" is not a valid IP(:PORT)? tuple.`,
      );
    }
    if (fields.alua) errors.add("iscsiglobal_update.alua", "ALUA is only available on HA systems");
    errors.check();
    call.sim.world.iscsiGlobal = { ...call.sim.world.iscsiGlobal, ...fields };
    await reload(call, SERVICE);
    return globalConfig(call);
  },
  "iscsi.global.alua_enabled": () => false,
  "iscsi.global.client_count": (call) =>
    new Set(call.sim.dataSide.sessions().iscsi.map((session) => session.address)).size,
  "iscsi.global.sessions": (call, [filters, options]) =>
    query(
      call.sim.dataSide.sessions().iscsi.map((session) => ({
        initiator: session.initiator,
        initiator_addr: session.address,
        initiator_alias: null,
        target: session.iqn,
        target_alias: session.iqn.split(":").at(-1) ?? "",
        header_digest: "None",
        data_digest: "None",
        max_data_segment_length: null,
        max_receive_data_segment_length: 1_048_576,
        max_xmit_data_segment_length: 1_048_576,
        max_burst_length: 1_048_576,
        first_burst_length: 65_536,
        immediate_data: true,
        iser: false,
        offload: false,
      })),
      filters ?? [],
      object(options),
    ),

  ...reading(portals),
  "iscsi.portal.listen_ip_choices": listenChoices,
  "iscsi.portal.create": async (call, [data]) => {
    const fields = object(data);
    checkListen(call, "iscsiportal_create", fields.listen ?? [], undefined);
    const { portal } = call.sim.world.tables;
    const row = portal.insert({
      listen: fields.listen ?? [],
      comment: fields.comment ?? "",
      tag: portal.size + 1,
    });
    announce(call, "added", "iscsi.portal", row.id, portals.entry(call, row, {}, true));
    await reload(call, SERVICE);
    return portals.entry(call, row, {}, true);
  },
  "iscsi.portal.update": async (call, [id, data]) => {
    const old = rowOf(portals, call, id);
    const fields = object(data);
    if (fields.listen !== undefined) {
      checkListen(call, "iscsiportal_update", fields.listen, old.id);
    }
    const row = call.sim.world.tables.portal.patch(Number(id), fields);
    announce(call, "changed", "iscsi.portal", Number(id), portals.entry(call, row, {}, true));
    await reload(call, SERVICE);
    return portals.entry(call, row, {}, true);
  },
  "iscsi.portal.delete": async (call, [id]) => {
    rowOf(portals, call, id);
    const { portal, target } = call.sim.world.tables;
    // The group goes from every target that named the portal.
    for (const row of target.all()) {
      const groups = Array.isArray(row.groups) ? row.groups : [];
      target.patch(Number(row.id), { groups: groups.filter((g) => object(g).portal !== id) });
    }
    portal.delete(Number(id));
    renumber(call);
    announce(call, "removed", "iscsi.portal", Number(id));
    await reload(call, SERVICE);
    return true;
  },

  ...reading(initiators),
  "iscsi.initiator.create": async (call, [data]) => {
    const fields = object(data);
    const row = call.sim.world.tables.initiator.insert({
      initiators: words(fields.initiators ?? []),
      comment: fields.comment ?? "",
    });
    announce(call, "added", "iscsi.initiator", row.id, row);
    await reload(call, SERVICE);
    return row;
  },
  "iscsi.initiator.update": async (call, [id, data]) => {
    rowOf(initiators, call, id);
    const fields = object(data);
    const row = call.sim.world.tables.initiator.patch(Number(id), {
      ...fields,
      ...(fields.initiators === undefined ? {} : { initiators: words(fields.initiators) }),
    });
    announce(call, "changed", "iscsi.initiator", Number(id), row);
    await reload(call, SERVICE);
    return row;
  },
  "iscsi.initiator.delete": async (call, [id]) => {
    rowOf(initiators, call, id);
    const { initiator, target } = call.sim.world.tables;
    // The groups that named it are left without one: everybody may connect.
    for (const row of target.all()) {
      const groups = (Array.isArray(row.groups) ? row.groups : []).map((group) =>
        object(group).initiator === id ? { ...object(group), initiator: null } : group
      );
      target.patch(Number(row.id), { groups });
    }
    initiator.delete(Number(id));
    announce(call, "removed", "iscsi.initiator", Number(id));
    await reload(call, SERVICE);
    return true;
  },

  ...reading(auths),
  "iscsi.auth.create": async (call, [data]) => {
    const fields = object(data);
    checkAuth("iscsi_auth_create", fields);
    const row = call.sim.world.tables.auth.insert({ peeruser: "", peersecret: "", ...fields });
    announce(call, "added", "iscsi.auth", row.id, row);
    await reload(call, SERVICE);
    return row;
  },
  "iscsi.auth.update": async (call, [id, data]) => {
    const merged = { ...rowOf(auths, call, id), ...object(data) };
    checkAuth("iscsi_auth_update", merged);
    const row = call.sim.world.tables.auth.patch(Number(id), merged);
    announce(call, "changed", "iscsi.auth", Number(id), row);
    await reload(call, SERVICE);
    return row;
  },
  "iscsi.auth.delete": async (call, [id]) => {
    rowOf(auths, call, id);
    call.sim.world.tables.auth.delete(Number(id));
    announce(call, "removed", "iscsi.auth", Number(id));
    await reload(call, SERVICE);
    return true;
  },
};

/** Names are kept as one text; a blank inside one makes two of it. */
function words(names: Json): string[] {
  return (Array.isArray(names) ? names : []).flatMap((name) =>
    String(name).split(/\s+/).filter((word) => word !== "")
  );
}
