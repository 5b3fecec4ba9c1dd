/** The node records of open-iscsi: their place, their defaults and how they are read. */

import { existsSync, mkdirSync, readFileSync } from "node:fs";
import type { Tree } from "./tree.ts";

/** One portal of one target, as `-T IQN -p ADDRESS:PORT,TPGT` names it. */
export interface Portal {
  readonly iqn: string;
  readonly address: string;
  readonly port: number;
  readonly tpgt: number;
}

/** `/etc/iscsi/iscsid.conf` as Debian 13 installs it, comments left out. */
export const ISCSID_CONF = `iscsid.startup = /bin/systemctl start iscsid.socket
node.startup = manual
node.leading_login = No
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.err_timeo.tgt_reset_timeout = 30
node.session.err_timeo.host_reset_timeout = 60
node.session.initial_login_retry_max = 8
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
node.conn[0].iscsi.MaxXmitDataSegmentLength = 0
discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 32768
node.session.nr_sessions = 1
node.session.reopen_max = 0
node.session.iscsi.FastAbort = Yes
node.session.scan = auto
`;

/** Where a portal's record lies. */
export function recordPath({ iqn, address, port, tpgt }: Portal): string {
  return `/var/lib/iscsi/nodes/${iqn}/${address},${port},${tpgt}/default`;
}

/** `iscsiadm -o new`: writes the record with the defaults of `iscsid.conf`, over one that exists. */
export function writeNewRecord(tree: Tree, portal: Portal): void {
  const values: Record<string, string> = {
    "node.name": portal.iqn,
    "node.tpgt": String(portal.tpgt),
    "node.startup": "manual",
    "node.leading_login": "No",
    "iface.iscsi_ifacename": "default",
    "iface.transport_name": "tcp",
    "node.discovery_port": "0",
    "node.discovery_type": "static",
    "node.session.initial_cmdsn": "0",
    "node.session.auth.authmethod": "None",
    "node.session.auth.chap_algs": "MD5",
    ...parse(readFileSync(tree.at("/etc/iscsi/iscsid.conf"), "utf8"), "node."),
    "node.conn[0].address": portal.address,
    "node.conn[0].port": String(portal.port),
    "node.conn[0].startup": "manual",
  };
  const lines = Object.entries(values).map(([name, value]) => `${name} = ${value}`);
  const path = recordPath(portal);
  mkdirSync(tree.at(path.slice(0, path.lastIndexOf("/"))), { recursive: true });
  tree.text(path, ["# BEGIN RECORD 2.1.11", ...lines, "# END RECORD", ""].join("\n"), 0o600);
}

/** The values of a portal's record, or undefined without one. */
export function readRecord(tree: Tree, portal: Portal): Record<string, string> | undefined {
  const path = tree.at(recordPath(portal));
  return existsSync(path) ? parse(readFileSync(path, "utf8"), "") : undefined;
}

/** `name = value` lines whose names begin with `prefix`; comments and all else are skipped. */
function parse(text: string, prefix: string): Record<string, string> {
  const values: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const match = /^\s*([^#\s=][^=]*?)\s*=\s*(.*?)\s*$/.exec(line);
    if (match?.[1]?.startsWith(prefix)) values[match[1]] = match[2] ?? "";
  }
  return values;
}
