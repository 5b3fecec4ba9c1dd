/** What is on the node before anything is done: everything that a plan is made from. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { UNITS } from "../daemon/unit.ts";
import { attempt } from "../host/failure.ts";
import { HostError } from "../host/host.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import { lookAtLvm } from "./lvm_facts.ts";
import type { FilterDecision } from "./lvm_filter.ts";
import { findNeighbours, type Neighbour } from "./neighbours.ts";
import {
  CUSTOM_PLUGINS,
  DAEMON_UNITS,
  LOOK_MS,
  LVM_LOCAL_CONF,
  MULTIPATH_CONF,
  MULTIPATH_FILE,
  MULTIPATH_FOLDER,
  NVME_RULE_FILE,
  PROGRAM,
  RUN,
  SHIM_FILE,
  UNIT_FOLDER,
} from "./places.ts";
import { type InstallRecord, readRecord } from "./record.ts";
import { parseSections, type Section } from "./storage_sections.ts";
import type { InstallWorld } from "./world.ts";

/** Where README's instructions by hand once put the program. */
const OLD_PROGRAM = "/usr/bin/tnblock";

/** A file as it is. */
export interface FileFact {
  readonly digest: string;
  readonly mode: number;
}

/** The node. */
export interface NodeFacts {
  readonly node: string;
  readonly record: InstallRecord;
  /** The version of the program that is in place, as it says itself; undefined when there is none, or it does not run. */
  readonly installedVersion: string | undefined;
  /** What this process runs from; undefined when it is not compiled. */
  readonly ownDigest: string | undefined;
  /** Files by path; those that are not there are missing. */
  readonly files: ReadonlyMap<string, FileFact>;
  readonly services: { readonly isEnabled: boolean; readonly isActive: boolean };
  /** Undefined where there is no LVM, or it was not asked. */
  readonly lvm: FilterDecision | undefined;
  /** lvmlocal.conf. */
  readonly lvmLocal: string | undefined;
  readonly multipath: { readonly isInstalled: boolean; readonly others: readonly string[] };
  readonly sections: readonly Section[];
  readonly neighbours: readonly Neighbour[];
  /** The text of what `--roll-back` would put in the place of the shim. */
  readonly previousShim: string | undefined;
  readonly hasOldProgram: boolean;
}

/**
 * Reads all of it; changes nothing.
 *
 * @param withLvm whether LVM is asked, which scans disks for it.
 */
export async function readFacts(world: InstallWorld, withLvm: boolean): Promise<NodeFacts> {
  const { host, programs } = world;
  const record = await readRecord(host.files);
  return await attempt("Cannot look at the node", async () => {
    const sections = parseSections(await host.files.readText(STORAGE_CFG) ?? "");
    const previousShim = record.previous?.files[SHIM_FILE]?.copy;
    const [installedVersion, ownDigest, files, services, lvm, lvmLocal, multipath, neighbours] =
      await Promise.all([
        versionOf(world, PROGRAM),
        programs.own?.digest(),
        readFiles(world, record),
        readServices(world),
        withLvm ? lookAtLvm(host, sections) : undefined,
        host.files.readText(LVM_LOCAL_CONF),
        readMultipath(world),
        readPlugins(world).then((plugins) => findNeighbours(plugins, sections)),
      ]);
    return {
      ...{
        node: host.nodeName,
        record,
        installedVersion,
        ownDigest,
        files,
        services,
        lvm,
        lvmLocal,
      },
      ...{ multipath, sections, neighbours },
      previousShim: previousShim === undefined
        ? undefined
        : await host.files.readText(previousShim),
      hasOldProgram: await host.files.status(OLD_PROGRAM) !== undefined,
    };
  });
}

/** SHA-256 of a text in hex digits. */
export function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

const versionSchema = v.object({ version: v.string() });

/** The version that a program says; undefined when it is not there or does not run. */
export async function versionOf({ host }: InstallWorld, path: string): Promise<string | undefined> {
  try {
    const { status, stdout } = await host.run(path, ["version", "-o", "json"], {
      deadlineMs: LOOK_MS,
    });
    if (status !== 0) return undefined;
    return v.parse(versionSchema, JSON.parse(stdout)).version;
  } catch (error) {
    if (error instanceof HostError || error instanceof SyntaxError || v.isValiError(error)) {
      return undefined;
    }
    throw error;
  }
}

async function readFiles(
  { host, programs, completions }: InstallWorld,
  record: InstallRecord,
): Promise<Map<string, FileFact>> {
  const paths = new Set([
    PROGRAM,
    SHIM_FILE,
    ...Object.keys(UNITS).map((name) => `${UNIT_FOLDER}/${name}`),
    MULTIPATH_FILE,
    NVME_RULE_FILE,
    LVM_LOCAL_CONF,
    ...Object.keys(completions),
    ...Object.keys(record.files),
    ...Object.keys(record.previous?.files ?? {}),
  ]);
  const found = new Map<string, FileFact>();
  for (const path of paths) {
    const digest = await programs.digest(path);
    const mode = (await host.files.status(path))?.mode;
    if (digest !== undefined && mode !== undefined) found.set(path, { digest, mode });
  }
  return found;
}

async function readServices({ host }: InstallWorld): Promise<NodeFacts["services"]> {
  // Of several at once systemctl tells whether one of them is.
  const ask = async (verb: string) => {
    const results = await Promise.all(
      DAEMON_UNITS.map((unit) =>
        host.run(RUN.systemctl, [verb, "--quiet", unit], { deadlineMs: LOOK_MS })
      ),
    );
    return results.every(({ status }) => status === 0);
  };
  return { isEnabled: await ask("is-enabled"), isActive: await ask("is-active") };
}

async function readMultipath({ host }: InstallWorld): Promise<NodeFacts["multipath"]> {
  const names = (await host.files.list(MULTIPATH_FOLDER) ?? [])
    .filter((name) => name.endsWith(".conf"))
    .map((name) => `${MULTIPATH_FOLDER}/${name}`)
    .filter((path) => path !== MULTIPATH_FILE);
  const texts = await Promise.all(
    [MULTIPATH_CONF, ...names].map((path) => host.files.readText(path)),
  );
  return {
    isInstalled: await host.files.status(RUN.multipathd) !== undefined,
    others: texts.filter((text) => text !== undefined),
  };
}

async function readPlugins({ host }: InstallWorld): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of await host.files.list(CUSTOM_PLUGINS) ?? []) {
    const path = `${CUSTOM_PLUGINS}/${name}`;
    if (name.endsWith(".pm") && path !== SHIM_FILE) {
      found[name] = await host.files.readText(path) ?? "";
    }
  }
  return found;
}
