/** Plays `iscsiadm`, the part of it that tnblock uses, with the real program's exit statuses. */

import { readFileSync } from "node:fs";
import type { TargetExport } from "../exports.ts";
import { type Portal, readRecord, writeNewRecord } from "./iscsi_records.ts";
import type { IscsiSide } from "./iscsi_side.ts";
import type { Answer } from "./scripts.ts";
import type { Tree } from "./tree.ts";

/** Exit statuses of open-iscsi, with the words it prints for them. */
const REFUSALS = {
  8: "connection timed out",
  19: "encountered non-retryable iSCSI login failure",
  24: "iSCSI login failed due to authorization failure",
} as const;

/** Runs one command line. */
export function iscsiadm(tree: Tree, iscsi: IscsiSide, args: readonly string[]): Answer {
  if (args.join(" ") === "-m session") return listSessions(iscsi);
  const options = new Map<string, string>();
  const flags: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? "";
    if (/^-[mToTp]$/.test(arg)) options.set(arg, args[++index] ?? "");
    else flags.push(arg);
  }
  const portal = parsePortal(options.get("-T"), options.get("-p"));
  const action = [options.get("-m"), options.get("-o"), ...flags].filter(Boolean).join(" ");
  if (portal === undefined) return unknown(args);
  switch (action) {
    case "node new":
      writeNewRecord(tree, portal);
      return { status: 0, out: `New iSCSI node ${nameOf(portal)} added\n` };
    case "node --login":
      return login(tree, iscsi, portal);
    case "node --logout":
      return logout(iscsi, portal);
    default:
      return unknown(args);
  }
}

function login(tree: Tree, iscsi: IscsiSide, portal: Portal): Answer {
  const record = readRecord(tree, portal);
  if (record === undefined) return { status: 21, err: "iscsiadm: No records found\n" };
  if (iscsi.find(portal) !== undefined) {
    return {
      status: 15,
      err: "iscsiadm: default: 1 session requested, but 1 already present.\n" +
        "iscsiadm: Could not log into all portals\n",
    };
  }
  const initiator = initiatorName(tree);
  const status = refusal(iscsi.offered(portal), initiator, record);
  if (status !== undefined) {
    return {
      status,
      err: `iscsiadm: Could not login to ${nameOf(portal)}.\n` +
        `iscsiadm: initiator reported error (${status} - ${REFUSALS[status]})\n` +
        "iscsiadm: Could not log into all portals\n",
    };
  }
  iscsi.login(portal, initiator, record);
  return { status: 0, out: `Login to ${nameOf(portal)} successful.\n` };
}

/** Why the target, or our own check of the target, ends the login. */
function refusal(
  target: TargetExport | undefined,
  initiator: string,
  record: Readonly<Record<string, string>>,
): keyof typeof REFUSALS | undefined {
  if (target === undefined) return 8;
  if (target.initiators.length > 0 && !target.initiators.includes(initiator)) return 24;
  const { chap } = target;
  if (chap === undefined) return undefined;
  const auth = (name: string) => record[`node.session.auth.${name}`];
  const known = auth("authmethod") === "CHAP" && auth("username") === chap.user &&
    auth("password") === chap.secret;
  if (!known) return 24;
  if (auth("password_in") === undefined && auth("username_in") === undefined) return undefined;
  const trusted = auth("password_in") === chap.peerSecret && auth("username_in") === chap.peerUser;
  return trusted ? undefined : 19;
}

function logout(iscsi: IscsiSide, portal: Portal): Answer {
  const session = iscsi.find(portal);
  if (session === undefined) return { status: 21, err: "iscsiadm: No matching sessions found\n" };
  iscsi.logout(session);
  const name = nameOf(portal).replace("iface: default", `sid: ${session.id}`);
  return { status: 0, out: `Logout of ${name} successful.\n` };
}

function listSessions(iscsi: IscsiSide): Answer {
  if (iscsi.open.length === 0) return { status: 21, err: "iscsiadm: No active sessions.\n" };
  const lines = iscsi.open.map(({ id, portal }) => {
    const { address, port, tpgt, iqn } = portal;
    const host = address.includes(":") ? `[${address}]` : address;
    return `tcp: [${id}] ${host}:${port},${tpgt} ${iqn} (non-flash)\n`;
  });
  return { status: 0, out: lines.join("") };
}

function unknown(args: readonly string[]): Answer {
  return {
    status: 7,
    err: `iscsiadm: the simulated node does not know this command: ${args.join(" ")}\n`,
  };
}

/** `10.99.0.1:3260,1`, an IPv6 address in brackets. */
function parsePortal(iqn: string | undefined, text: string | undefined): Portal | undefined {
  const match = /^\[?([0-9a-f.:]+?)\]?:(\d+),(\d+)$/i.exec(text ?? "");
  if (match?.[1] === undefined || iqn === undefined || iqn === "") return undefined;
  return { iqn, address: match[1], port: Number(match[2]), tpgt: Number(match[3]) };
}

function nameOf({ iqn, address, port }: Portal): string {
  return `[iface: default, target: ${iqn}, portal: ${address},${port}]`;
}

function initiatorName(tree: Tree): string {
  const text = readFileSync(tree.at("/etc/iscsi/initiatorname.iscsi"), "utf8");
  return /^InitiatorName=(\S+)$/m.exec(text)?.[1] ?? "";
}
