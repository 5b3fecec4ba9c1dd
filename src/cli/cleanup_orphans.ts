/** `tnblock cleanup-orphans`: shows what nobody needs any more, and removes it after a typed word. */
import { type Asker, Cancelled } from "../common/asking.ts";
import { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { lineLog } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { Cleanup, type CleanupResult, type CleanupStorage } from "../orphans/cleanup.ts";
import type { Findings } from "../orphans/find.ts";
import { gatherFacts, parseQuestion } from "../orphans/node_facts.ts";
import { storagesToClean } from "../orphans/storages_of.ts";
import { openStorage } from "../pve/open_storage.ts";
import {
  counted,
  findingsDocument,
  renderFindings,
  renderPlan,
  resultDocument,
} from "./cleanup_view.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { reportError } from "./report_error.ts";
import { printable } from "./table.ts";

/** Changes when a field of the JSON output changes its meaning or goes. */
const SCHEMA_VERSION = 1;

/** What the user says. */
export interface CleanupFlags {
  /** Only this storage; all of this node unless given. */
  readonly storage: string | undefined;
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
  /** Another node asks. */
  readonly nodeFacts: boolean;
}

/** What is not the same in a test. */
export interface CleanupSurroundings {
  readonly host: Host;
  /** Somebody in a terminal; undefined when there is nobody: then nothing is removed without `--yes`. */
  readonly asker: Asker | undefined;
}

/** A look at one storage. */
interface Looked {
  readonly cleanup: Cleanup;
  readonly found: Findings;
}

/** Looks, asks, removes; ends with the exit status. */
export async function runCleanupOrphans(
  context: CommandContext,
  flags: CleanupFlags,
  { host, asker }: CleanupSurroundings,
): Promise<number> {
  if (flags.yes && flags.dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
  if (flags.nodeFacts) return await tellFacts(context, flags, host);
  const leaving = new AbortController();
  const world = {
    host,
    log: lineLog((line) => context.err(`${printable(line)}\n`), () => 0),
    limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
    tell: (line: string) => context.err(`${printable(line)}\n`),
    signal: leaving.signal,
  };
  const storages = await storagesToClean(host, flags.storage);
  const cleanups = storages.map((storage: CleanupStorage) => new Cleanup(world, storage));
  try {
    const looked: Looked[] = [];
    for (const cleanup of cleanups) looked.push({ cleanup, found: await cleanup.look() });
    const isReport = flags.dryRun || (!flags.yes && (flags.json || asker === undefined));
    if (isReport) return report(context, flags, host, looked);
    if (!flags.json) context.err(textOf(host, looked));
    const todo = looked.filter(({ found }) => found.offered.length > 0);
    if (!flags.yes && asker !== undefined) await agree(asker, todo);
    // Whoever leaves while something is being removed has that finished, and nothing more begun.
    void context.stopped().then(() => leaving.abort());
    return await removeAll(context, flags, looked, todo, leaving.signal);
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    context.err("Left. Nothing was removed.\n");
    return EXIT.interrupted;
  } finally {
    for (const cleanup of cleanups) await cleanup.close();
  }
}

function textOf(host: Host, looked: readonly Looked[]): string {
  return looked.map(({ cleanup, found }) =>
    renderFindings(cleanup.storage.section.id, found, host.now())
  ).join("\n");
}

/** Only what is there is told. */
function report(
  context: CommandContext,
  { json, dryRun }: CleanupFlags,
  host: Host,
  looked: readonly Looked[],
): number {
  if (json) {
    const storages = looked.map(({ cleanup, found }) =>
      findingsDocument(cleanup.storage.section.id, found)
    );
    context.out(`${JSON.stringify({ schemaVersion: SCHEMA_VERSION, storages }, null, 2)}\n`);
  } else {
    context.out(textOf(host, looked));
    const offered = looked.flatMap(({ found }) => found.offered);
    if (offered.length > 0 && dryRun) context.out(`\nWould be done:\n${renderPlan(offered)}`);
    if (offered.length > 0) {
      context.err(
        "Nothing was removed. To remove what is offered: tnblock cleanup-orphans --yes\n",
      );
    }
  }
  return statusOf(looked);
}

function statusOf(looked: readonly Looked[]): number {
  return looked.some(({ found }) => found.blocked.length > 0) ? EXIT.inUse : EXIT.done;
}

/** Asks for each storage's name to be typed. */
async function agree(asker: Asker, todo: readonly Looked[]): Promise<void> {
  for (const { cleanup, found } of todo) {
    const { id } = cleanup.storage.section;
    asker.tell(renderPlan(found.offered).trimEnd());
    const isAgreed = await asker.confirmTyped({
      flag: "--yes",
      message: `Remove ${
        counted(found.offered.length, "orphan")
      } of storage ${id}? Volumes go with all their data, for good`,
      word: id,
    });
    if (!isAgreed) throw new Cancelled();
  }
}

async function removeAll(
  context: CommandContext,
  { json }: CleanupFlags,
  looked: readonly Looked[],
  todo: readonly Looked[],
  signal: AbortSignal,
): Promise<number> {
  const results = new Map<Cleanup, CleanupResult>();
  let failure: number | undefined;
  for (const { cleanup, found } of todo) {
    const result = await cleanup.remove(found.offered);
    results.set(cleanup, result);
    if (!json) context.err(closing(result));
    if (result.stoppedBy !== undefined) {
      failure = reportError(result.stoppedBy, context);
      break;
    }
    if (signal.aborted) break;
  }
  if (json) {
    const storages = looked.map(({ cleanup, found }) => {
      const result = results.get(cleanup);
      const document = findingsDocument(cleanup.storage.section.id, found);
      return { ...document, result: result === undefined ? null : resultDocument(result) };
    });
    context.out(`${JSON.stringify({ schemaVersion: SCHEMA_VERSION, storages }, null, 2)}\n`);
  }
  const isAny = [...results.values()].some(({ removed }) => removed.length > 0);
  if (failure !== undefined) return isAny ? EXIT.partly : failure;
  if (signal.aborted) return EXIT.interrupted;
  return statusOf(looked);
}

function closing({ removed, left, record }: CleanupResult): string {
  const lines = [`Removed ${counted(removed.length, "orphan")}.`];
  if (record !== undefined) lines.push(`Record: ${record}`);
  for (const { kind, name } of left) lines.push(`left: ${kind} ${name}`);
  return `${lines.map(printable).join("\n")}\n`;
}

/** Time for a look at this node. */
const FACTS_MS = 25_000;

/** Tells what this node has of the storage. */
async function tellFacts(
  context: CommandContext,
  { storage: wanted }: CleanupFlags,
  host: Host,
): Promise<number> {
  const disks = parseQuestion(await textIn(context.input));
  if (wanted === undefined || disks === undefined) {
    throw new TnblockError("invalid", "Cannot tell about this node: nothing was asked", {
      hint: "Another node runs this; update tnblock on all nodes to the same version",
    });
  }
  const [found] = await storagesToClean(host, wanted, true);
  if (found === undefined) throw new TnblockError("not-found", `Cannot find storage "${wanted}"`);
  const { section } = found;
  const log = lineLog((line) => context.err(`${printable(line)}\n`), () => 0);
  const storage = await openStorage(
    { storage: section.id, config: section.config, node: host.nodeName },
    { host, log, setDebugLevel: () => {}, limitLogins: true },
    new Deadline(host, FACTS_MS),
  );
  try {
    context.out(`${JSON.stringify(await gatherFacts(host, storage, disks))}\n`);
    return EXIT.done;
  } finally {
    await storage.close();
  }
}

/** Longest question that is read. */
const MOST_BYTES = 4 * 1024 * 1024;

async function textIn(input: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of input) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > MOST_BYTES) break;
  }
  return text;
}
