/**
 * Node records of open-iscsi, the files that say how to log in. Ours are explicit, and written anew
 * before every login: any discovery by somebody else sets them back to the defaults. Secrets go into
 * the file and never on a command line.
 */
import { TnblockError } from "../common/error.ts";
import { canonicalAddress } from "../common/portal.ts";
import type { ChapSettings, Portal } from "../common/storage_settings.ts";
import { ISCSI_LOGIN_TRY_S, ISCSI_ONLY_PATH_S, ISCSI_REPLACEMENT_S } from "../common/timing.ts";
import type { HostFiles } from "./host.ts";
import { entries } from "./scan/attributes.ts";

/** Where records lie: since Debian 13, and before. */
const FOLDERS = ["/var/lib/iscsi/nodes", "/etc/iscsi/nodes"];

/** The interface whose records we use, open-iscsi's own. */
const INTERFACE = "default";

const END = "# END RECORD";

/** Fields of a record; undefined removes the line. */
export type RecordFields = ReadonlyMap<string, string | undefined>;

/**
 * All that our records say.
 *
 * @param queues whether a map above the paths keeps commands while all of them are dead; without one
 *   the path itself must, as a virtual machine rather waits than gets errors.
 */
export function recordFields(chap: ChapSettings | undefined, queues = true): RecordFields {
  return new Map([
    ["node.startup", "manual"],
    // A node holds only what it uses: no LUN appears unless it is scanned for.
    ["node.session.scan", "manual"],
    // How long a dead path keeps a command, and an unlucky scan, before it fails.
    [
      "node.session.timeo.replacement_timeout",
      String(queues ? ISCSI_REPLACEMENT_S : ISCSI_ONLY_PATH_S),
    ],
    // With the default of 8 tries a login to an unknown target takes over a minute.
    ["node.session.initial_login_retry_max", "1"],
    ["node.conn[0].timeo.login_timeout", String(ISCSI_LOGIN_TRY_S)],
    ["node.session.auth.authmethod", chap === undefined ? "None" : "CHAP"],
    ["node.session.auth.username", chap?.user],
    ["node.session.auth.password", chap?.password],
    ["node.session.auth.username_in", chap?.peer?.user],
    ["node.session.auth.password_in", chap?.peer?.password],
  ]);
}

/**
 * The record with these fields set; all other lines stay. A record looks like this:
 *
 *     # BEGIN RECORD 2.1.11
 *     node.name = iqn.2005-10.org.freenas.ctl:pve
 *     node.startup = manual
 *     # END RECORD
 *
 * @throws TnblockError `config` when a value cannot stand in a record; the value is not in the message.
 */
export function editRecord(text: string, fields: RecordFields): string {
  for (const [name, value] of fields) {
    // deno-lint-ignore no-control-regex
    if (value !== undefined && (value !== value.trim() || /[\x00-\x1f\x7f]/.test(value))) {
      throw new TnblockError(
        "config",
        `Cannot write ${name} into an iSCSI record: it has white space around it or control characters`,
      );
    }
  }
  const kept = text.split("\n").filter((line) => {
    const name = /^\s*([^#=\s]+)\s*=/.exec(line)?.[1];
    return name === undefined || !fields.has(name);
  });
  const ours = [...fields].flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [`${name} = ${value}`]
  );
  const end = kept.findIndex((line) => line.trim() === END);
  if (end < 0) return [...kept.filter((line) => line !== ""), ...ours, END, ""].join("\n");
  return [...kept.slice(0, end), ...ours, ...kept.slice(end)].join("\n");
}

/** The file of a record, or undefined when there is none. Addresses are compared, not their spelling. */
export async function findRecord(
  files: HostFiles,
  iqn: string,
  portal: Portal,
  tpgt: number,
): Promise<string | undefined> {
  for (const folder of FOLDERS) {
    for (const name of await entries(files, `${folder}/${iqn}`)) {
      const match = /^\[?([^\],]+)\]?,(\d+),(\d+)$/.exec(name);
      const same = match !== null &&
        canonicalAddress(match[1] ?? "") === canonicalAddress(portal.address) &&
        Number(match[2]) === portal.port && Number(match[3]) === tpgt;
      const path = `${folder}/${iqn}/${name}/${INTERFACE}`;
      if (same && await files.status(path) !== undefined) return path;
    }
  }
  return undefined;
}
