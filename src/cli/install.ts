/** `tnblock install` and `tnblock uninstall`. */
import process from "node:process";
import { type Asker, Cancelled } from "../common/asking.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { linuxHost, linuxPrograms } from "../host/linux.ts";
import { type NodeResult, onAllNodes } from "../install/all_nodes.ts";
import { prepare, removeSecrets } from "../install/install.ts";
import { COMPLETION_FILES } from "../install/places.ts";
import type { Plan } from "../install/plan.ts";
import type { InstallOptions, InstallWorld } from "../install/world.ts";
import { readCluster } from "../pve/cluster.ts";
import { completionScript, SHELLS } from "./completions.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { planDocument, renderPlan, renderResults, resultDocument } from "./install_view.ts";
import { reportError } from "./report_error.ts";
import { printable } from "./table.ts";

/** What the user says. */
export interface InstallFlags extends InstallOptions {
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
  readonly allNodes: boolean;
  readonly rollBack: boolean;
}

/** What the user says to `uninstall`. */
export interface UninstallFlags {
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
  readonly removeSecrets: boolean;
}

/** What is not the same in a test. */
export interface InstallSurroundings {
  readonly version: string;
  /** The file that this process runs from; undefined when it is not compiled. */
  readonly executable: string | undefined;
  readonly asker: Asker;
}

/** Installs, or rolls back; ends with the exit status. */
export async function runInstall(
  context: CommandContext,
  flags: InstallFlags,
  surroundings: InstallSurroundings,
): Promise<number> {
  refuseBoth(flags);
  const world = worldOf(context, surroundings);
  const kind = flags.rollBack ? "roll-back" : "install";
  const others = flags.allNodes ? await otherNodes(world) : [];
  const here = () => onThisNode(context, kind, flags, others, world, surroundings);
  if (!flags.allNodes || flags.dryRun) return await reported(context, flags, world, here);
  return await orLeft(context, () => everywhere(context, flags, world, here));
}

/** On all nodes, with a table at the end. */
async function everywhere(
  context: CommandContext,
  flags: InstallFlags,
  world: InstallWorld,
  here: () => Promise<NodeResult | undefined>,
): Promise<number> {
  const results = await onAllNodes(world, {
    words: wordsOf(flags),
    withCopy: !flags.rollBack,
    here: async () => {
      try {
        return await here() ?? { node: world.host.nodeName, result: "not-tried" };
      } catch (error) {
        if (error instanceof Cancelled) throw error;
        return failed(world, error);
      }
    },
  });
  for (const { node, error } of results) {
    if (error?.hint !== undefined) context.err(`${node}: ${printable(error.hint)}\n`);
  }
  context.out(
    flags.json
      ? `${JSON.stringify({ schemaVersion: 1, nodes: results.map(resultDocument) }, null, 2)}\n`
      : renderResults(results),
  );
  if (world.signal?.aborted === true) return EXIT.interrupted;
  const isDone = ({ result }: NodeResult) => result === "installed" || result === "already";
  if (results.every(isDone)) return EXIT.done;
  if (!flags.rollBack) {
    context.err(
      "Not on all nodes: do not add a storage before; a node without the plugin drops its section.\n",
    );
  }
  return results.some(isDone) ? EXIT.partly : EXIT.failed;
}

/** Removes what install has put here; ends with the exit status. */
export async function runUninstall(
  context: CommandContext,
  flags: UninstallFlags,
  surroundings: InstallSurroundings,
): Promise<number> {
  refuseBoth(flags);
  const world = worldOf(context, surroundings);
  return await reported(context, flags, world, async () => {
    const result = await onThisNode(
      context,
      "uninstall",
      { ...flags, ...NOTHING_LEFT_OUT },
      [],
      world,
      surroundings,
    );
    if (flags.removeSecrets && !flags.dryRun && result !== undefined) {
      for (const path of await removeSecrets(world)) world.tell(`removed: ${path}`);
    }
    return result;
  });
}

const NOTHING_LEFT_OUT: InstallOptions = {
  ...{ lvmFilter: true, multipath: true, nvmeRule: true, allowOlder: false },
};

/** Undefined when only the plan was shown. */
async function onThisNode(
  context: CommandContext,
  kind: Plan["kind"],
  flags: InstallOptions & {
    readonly json: boolean;
    readonly yes: boolean;
    readonly dryRun: boolean;
  },
  others: readonly string[],
  world: InstallWorld,
  { asker }: InstallSurroundings,
): Promise<NodeResult | undefined> {
  return await prepare(world, kind, flags, async ({ facts: { node }, plan, carryOut }) => {
    const shown = renderPlan(plan, node) +
      (others.length === 0 ? "" : `\nThe same then on ${others.join(", ")}\n`);
    if (flags.dryRun) {
      const document = () => `${JSON.stringify(planDocument(plan, node, others), null, 2)}\n`;
      context.out(flags.json ? document() : shown);
      return undefined;
    }
    context.err(shown);
    const isChange = others.length > 0 || plan.steps.some(({ state }) => state === "do");
    if (isChange && !flags.yes) {
      const isAgreed = await asker.confirm({ flag: "--yes", message: "Do all this?" });
      if (!isAgreed) throw new Cancelled();
    }
    const { done } = await carryOut();
    const result = done.length === 0 ? "already" : kind === "uninstall" ? "removed" : "installed";
    const notDone = plan.steps.filter(({ state }) => state === "impossible")
      .map(({ about, why }) => `${about}: ${why}`);
    for (const each of notDone) world.tell(`not done: ${each}`);
    return {
      ...{ node, result, version: plan.version },
      ...(notDone.length === 0 ? {} : { notDone }),
    };
  });
}

/** The other nodes of the cluster, offline ones too. */
async function otherNodes({ host }: InstallWorld): Promise<string[]> {
  const { nodes } = await readCluster(host);
  return nodes.filter(({ isThis }) => !isThis).map(({ name, isOnline }) =>
    isOnline ? name : `${name} (offline)`
  );
}

/** Prints what came of this node. */
function reported(
  context: CommandContext,
  { json }: { readonly json: boolean },
  world: InstallWorld,
  work: () => Promise<NodeResult | undefined>,
): Promise<number> {
  return orLeft(context, async () => {
    try {
      const result = await work();
      if (result === undefined) return EXIT.done;
      if (json) context.out(`${JSON.stringify(resultDocument(result))}\n`);
      else context.err(`${closing(result)}\n`);
      return EXIT.done;
    } catch (error) {
      if (error instanceof Cancelled) throw error;
      if (json) context.out(`${JSON.stringify(resultDocument(failed(world, error)))}\n`);
      return reportError(error, context);
    }
  });
}

/** Leaving is no failure. */
async function orLeft(context: CommandContext, work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    context.err("Left.\n");
    return EXIT.interrupted;
  }
}

function closing({ result, version, node }: NodeResult): string {
  if (result === "already") return `Nothing to do on ${node}.`;
  if (version === undefined && result === "installed") return `Everything is as it was on ${node}.`;
  if (result === "removed") return `tnblock is removed from ${node}.`;
  return `tnblock ${version} is installed on ${node}. Next: tnblock status, or tnblock setup for a storage.`;
}

function failed({ host }: InstallWorld, error: unknown): NodeResult {
  const { code, message, hint } = asTnblockError(error);
  const details = { code, message, ...(hint === undefined ? {} : { hint }) };
  return { node: host.nodeName, result: "failed", error: details };
}

/** The same, as the words that the other nodes are told. */
function wordsOf(flags: InstallFlags): string[] {
  return [
    ...["install", "--yes"],
    ...(flags.rollBack ? ["--roll-back"] : []),
    ...(flags.lvmFilter ? [] : ["--no-lvm-filter"]),
    ...(flags.multipath ? [] : ["--no-multipath"]),
    ...(flags.nvmeRule ? [] : ["--no-nvme-rule"]),
    ...(flags.allowOlder ? ["--allow-older"] : []),
  ];
}

function refuseBoth({ yes, dryRun }: { readonly yes: boolean; readonly dryRun: boolean }): void {
  if (yes && dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
}

function worldOf(
  context: CommandContext,
  { version, executable }: InstallSurroundings,
): InstallWorld {
  // Whatever the shell says: pveproxy reads the plugin as www-data.
  process.umask(0o022);
  const leaving = new AbortController();
  void context.stopped().then(() => leaving.abort());
  return {
    host: linuxHost({ root: context.root }),
    programs: linuxPrograms({ root: context.root, executable }),
    version,
    completions: Object.fromEntries(
      SHELLS.map((shell) => [COMPLETION_FILES[shell], completionScript(shell)]),
    ),
    isRoot: context.root !== "/" || process.getuid?.() === 0,
    platform: process.platform,
    tell: (line) => context.err(`${printable(line)}\n`),
    signal: leaving.signal,
  };
}
