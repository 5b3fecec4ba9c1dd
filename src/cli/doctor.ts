/** `tnblock doctor`: looks at the node, its storages and their arrays, and tells how to put right what is wrong. */
import { type Asker, Cancelled } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { readOnlyHost } from "../doctor/read_only_host.ts";
import type { CheckResult, Finding } from "../doctor/check.ts";
import { CHECKS } from "../doctor/checks/all.ts";
import { type Doctor, type Look, type LookOptions, openDoctor } from "../doctor/doctor.ts";
import { gatherFacts } from "../doctor/node_facts.ts";
import { confidential, createMask, maskDocument } from "../doctor/report.ts";
import { type Host, HostError } from "../host/host.ts";
import { SHIM } from "../pve/shim/shim.ts";
import { countsOf, renderLook, wrapped } from "./doctor_view.ts";
import { walk } from "./doctor_walk.ts";
import { EXIT } from "./framework.ts";

/** Changes when a field of the JSON output changes its meaning or goes. */
const SCHEMA_VERSION = 1;

/** How it looks and what it prints. */
export interface DoctorCommand {
  /** Checks by their ids; all when there is none. */
  readonly ids: readonly string[];
  readonly storage?: string | undefined;
  readonly json: boolean;
  readonly list: boolean;
  readonly report: boolean;
  readonly cluster: boolean;
  readonly nodeFacts: boolean;
  /** Whether warnings alone end it with {@link EXIT.partly}. */
  readonly strict: boolean;
  /** Prints findings only. */
  readonly quiet: boolean;
  /** Of this program. */
  readonly version: string;
  readonly limitLogins: boolean;
  /** Of the terminal; undefined when it is none. */
  readonly columns: number | undefined;
  /** Somebody in a terminal, to walk through findings with; undefined when there is nobody. */
  readonly asker: Asker | undefined;
}

/**
 * Looks, and prints what it found. Changes nothing.
 *
 * @returns the exit status: 10 with errors, 8 with warnings alone when they count (`strict`), 130 when he who is asked
 *   leaves, else 0.
 * @throws TnblockError `invalid` for a check, `not-found` for a storage that is not there, `denied` for others than root.
 */
export async function runDoctor(
  host: Host,
  command: DoctorCommand,
  out: (text: string) => void,
): Promise<number> {
  if (command.list) {
    out(renderList(command.json, command.columns));
    return EXIT.done;
  }
  await requireRoot(host);
  const { version, limitLogins } = command;
  const doctor = openDoctor({ host, version, shim: SHIM, limitLogins });
  try {
    if (command.nodeFacts) {
      out(`${JSON.stringify(await gatherFacts(doctor))}\n`);
      return EXIT.done;
    }
    const options: LookOptions = {
      ids: command.ids.length === 0 ? undefined : command.ids,
      storage: command.storage,
      cluster: command.cluster,
    };
    let look = await doctor.look(options);
    if (command.report) out(await renderReport(host, doctor, look, version));
    else if (command.json) out(renderJson(look, version));
    else {
      const { columns, quiet } = command;
      out(renderLook(look, { version, columns, quiet }));
      if (command.asker !== undefined) look = await walk(doctor, look, options, command.asker);
    }
    return statusOf(look, command.strict);
  } catch (error) {
    if (error instanceof Cancelled) return EXIT.interrupted;
    throw error;
  } finally {
    await doctor.close();
  }
}

/** Files of root tell most of it: without them every check would find something. */
async function requireRoot(host: Host): Promise<void> {
  try {
    await host.files.list("/etc/pve/priv");
  } catch (error) {
    if (!(error instanceof HostError) || !["EACCES", "EPERM"].includes(error.code)) return;
    throw new TnblockError("denied", "Cannot look at this node: only root may", {
      hint: "Run it as root",
      cause: error,
    });
  }
}

function statusOf({ results }: Look, strict: boolean): number {
  const { errors, warnings } = countsOf(results);
  if (errors > 0) return EXIT.findings;
  return strict && warnings > 0 ? EXIT.partly : EXIT.done;
}

function renderList(json: boolean, columns: number | undefined): string {
  const checks = CHECKS.map(({ id, title, needs }) => ({ id, needs, title }));
  if (json) return `${JSON.stringify({ schemaVersion: SCHEMA_VERSION, checks }, null, 2)}\n`;
  const width = Math.max(...checks.map(({ id }) => id.length));
  const rows = [{ id: "CHECK", title: "FINDS NOTHING WHEN" }, ...checks];
  const lines = rows.flatMap(({ id, title }) => wrapped(`${id.padEnd(width)}  `, title, columns));
  return `${lines.join("\n")}\n`;
}

/** All that is told, findings apart from what looked for them. */
function documentOf({ node, time, storages, results }: Look, version: string) {
  const findings: Finding[] = results.flatMap((result) => result.findings);
  const { errors, warnings } = countsOf(results);
  return {
    schemaVersion: SCHEMA_VERSION,
    version,
    node,
    time,
    storages,
    status: errors > 0 ? "errors" : warnings > 0 ? "warnings" : "ok",
    findings,
    checks: results.map(({ findings: _, ...rest }: CheckResult) => rest),
  };
}

function renderJson(look: Look, version: string): string {
  return `${JSON.stringify(documentOf(look, version), null, 2)}\n`;
}

/** What helps somebody else to understand this node, and nothing that is none of his business. */
async function renderReport(
  host: Host,
  doctor: Doctor,
  look: Look,
  version: string,
): Promise<string> {
  const mask = createMask(await confidential(readOnlyHost(host)));
  const node = doctor.node();
  const [sections, answer, api, kernel] = await Promise.all([
    node.allSections().catch(() => []),
    node.daemon(),
    node.pveApi(),
    host.files.readText("/proc/version").catch(() => undefined),
  ]);
  const document = {
    ...documentOf(look, version),
    kernel: kernel?.trim() ?? null,
    pveApi: api ?? null,
    sections: sections.map(({ id, config }) => ({ id, ...config })),
    daemon: answer.kind === "answered" ? answer.state : answer,
  };
  return `${JSON.stringify(maskDocument(document, mask), null, 2)}\n`;
}
