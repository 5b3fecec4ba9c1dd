/** `tnblock setup`: a new storage, from the address of the array to a disk that was written and read. */
import process from "node:process";
import { type Asker, Cancelled } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { lineLog } from "../common/log.ts";
import { linuxHost } from "../host/linux.ts";
import { ANSWER_IDS, type Answers, answersText, readAnswers } from "../setup/answers.ts";
import { prepareEdit } from "../setup/edit.ts";
import { gatherNodeFacts, PluginMissing } from "../setup/node_facts.ts";
import type { Plan } from "../setup/plan.ts";
import { prepareRemoval } from "../setup/remove.ts";
import { type PreparedSetup, prepareSetup } from "../setup/setup.ts";
import type { SetupWorld } from "../setup/world.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { reportError } from "./report_error.ts";
import { planDocument, renderPlan } from "./setup_view.ts";
import { printable } from "./table.ts";

/** What the user says. */
export interface SetupFlags {
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
  /** File of answers. */
  readonly answers: string | undefined;
  readonly printAnswers: boolean;
  /** Answers given one by one. */
  readonly given: Answers;
  /** A storage to change, or to remove, instead of making one. */
  readonly edit: string | undefined;
  readonly remove: string | undefined;
  /** What another node asks for. */
  readonly nodeFacts: boolean;
  readonly makeIdentity: boolean;
}

/** What is not the same in a test. */
export interface SetupSurroundings {
  readonly version: string;
  readonly asker: Asker;
  /** Whether somebody can be asked. */
  readonly isTerminal: boolean;
}

/** Sets up a storage; ends with the exit status. */
export async function runSetup(
  context: CommandContext,
  flags: SetupFlags,
  { version, asker, isTerminal }: SetupSurroundings,
): Promise<number> {
  if (flags.yes && flags.dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
  if (flags.edit !== undefined && flags.remove !== undefined) {
    throw new TnblockError("invalid", "Cannot take --edit and --remove together");
  }
  const world = worldOf(context, version);
  if (flags.nodeFacts) {
    const facts = await gatherNodeFacts(world, { makeIdentity: flags.makeIdentity });
    context.out(`${JSON.stringify(facts)}\n`);
    return EXIT.done;
  }
  requireRoot(context);
  let isBegun = false;
  try {
    const fromFile = flags.answers === undefined
      ? {}
      : await readAnswers(world.host.files, flags.answers);
    const given = { ...fromFile, ...flags.given };
    const asking = { asker, isTerminal, given };
    const decide = async (prepared: PreparedSetup): Promise<number> => {
      const { draft: { id }, plan, answers } = prepared;
      const title = `${flags.edit === undefined ? "Set up" : "Change"} storage ${id}`;
      const print = () => {
        if (flags.printAnswers) context.out(answersText(answers));
      };
      if (flags.dryRun) {
        if (!flags.printAnswers) context.out(planText(plan, id, title, flags.json));
        print();
        return EXIT.done;
      }
      if (plan.steps.length === 0) {
        context.err(`Nothing to do: storage ${id} is so already.\n`);
        return EXIT.done;
      }
      context.err(planText(plan, id, title, false));
      await agree(flags, asker);
      isBegun = true;
      await prepared.carryOut();
      print();
      if (flags.json) context.out(resultText(id, flags.edit === undefined ? "added" : "changed"));
      context.err(flags.edit === undefined ? closing(id) : `Storage ${id} is changed.\n`);
      return EXIT.done;
    };
    if (flags.remove !== undefined) return await removeStorage(context, flags, world, asker);
    const { edit } = flags;
    if (edit !== undefined) return await prepareEdit(world, edit, asking, decide);
    try {
      return await prepareSetup(world, asking, decide);
    } catch (error) {
      if (!(error instanceof PluginMissing) || !isTerminal || flags.dryRun) throw error;
      context.err(`${printable(error.message)}\n`);
      const isAgreed = await asker.confirm({
        flag: "--yes",
        message: "Install tnblock on all nodes now?",
      });
      if (!isAgreed) throw error;
      await installEverywhere(context);
      return await prepareSetup(world, asking, decide);
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) return reportError(error, context);
    if (!isBegun) context.err("Left; nothing was changed.\n");
    return EXIT.interrupted;
  }
}

/** What the hint of {@link PluginMissing} says, done here. */
async function installEverywhere(context: CommandContext): Promise<void> {
  const [{ runInstall }, { installSurroundings }] = await Promise.all([
    import("./install.ts"),
    import("./install_surroundings.ts"),
  ]);
  const status = await runInstall(context, {
    ...{ json: false, yes: true, dryRun: false, allNodes: true, rollBack: false },
    ...{ lvmFilter: true, multipath: true, nvmeRule: true, allowOlder: false },
  }, installSurroundings());
  if (status === EXIT.done) return;
  throw new TnblockError("host-fault", "Cannot go on: tnblock is not on all nodes", {
    hint: "Run: tnblock install --all-nodes",
  });
}

/** The one confirmation. */
async function agree({ yes }: SetupFlags, asker: Asker): Promise<void> {
  if (yes || await asker.confirm({ flag: "--yes", message: "Do all this?" })) return;
  throw new Cancelled();
}

async function removeStorage(
  context: CommandContext,
  flags: SetupFlags,
  world: SetupWorld,
  asker: Asker,
): Promise<number> {
  const id = flags.remove ?? "";
  const { steps, notes, carryOut } = await prepareRemoval(world, id);
  const document = { schemaVersion: 1, storage: id, steps, notes };
  const text = flags.json && flags.dryRun
    ? `${JSON.stringify(document, null, 2)}\n`
    : `${[`Remove storage ${id} from Proxmox VE`, ...steps, "", ...notes].join("\n")}\n`;
  if (flags.dryRun) {
    context.out(text);
    return EXIT.done;
  }
  context.err(text);
  await agree(flags, asker);
  await carryOut();
  if (flags.json) context.out(resultText(id, "removed"));
  context.err(`Storage ${id} is removed.\n`);
  return EXIT.done;
}

function resultText(storage: string, result: "added" | "changed" | "removed"): string {
  return `${JSON.stringify({ schemaVersion: 1, storage, result })}\n`;
}

function planText(plan: Plan, storage: string, title: string, json: boolean): string {
  return json
    ? `${JSON.stringify(planDocument(plan, storage), null, 2)}\n`
    : renderPlan(plan, title);
}

function closing(id: string): string {
  return [
    `Storage ${id} works. Try next:`,
    `  tnblock doctor --storage ${id} --cluster   # are all nodes ready for it?`,
    `  qm set VMID --scsi1 ${id}:32               # a disk of 32 GiB for a guest`,
    "",
  ].join("\n");
}

/** Flags of answers, as the parser names them, by their ids. */
export function answersOf(options: Readonly<Record<string, unknown>>): Answers {
  const given: Answers = {};
  for (const id of ANSWER_IDS) {
    const value = options[id.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
    if (typeof value === "string") given[id] = value;
  }
  return given;
}

function worldOf(context: CommandContext, version: string): SetupWorld {
  const leaving = new AbortController();
  void context.stopped().then(() => leaving.abort());
  const tell = (line: string) => context.err(`${printable(line)}\n`);
  return {
    host: linuxHost({ root: context.root }),
    // Each step is told already; what is not as it should be is told on top.
    log: { ...lineLog((line) => tell(`  ${line}`), () => 0), info: () => {} },
    version,
    limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
    tell,
    input: async () => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of context.input) chunks.push(chunk);
      return chunks.map((chunk) => new TextDecoder().decode(chunk)).join("");
    },
    signal: leaving.signal,
  };
}

function requireRoot({ root }: CommandContext): void {
  if (root !== "/" || process.getuid?.() === 0) return;
  throw new TnblockError("denied", "Cannot set up a storage: only root may", {
    hint: "Run it as root",
  });
}
