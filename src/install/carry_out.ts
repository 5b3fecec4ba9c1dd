/**
 * Does what a plan says, in its order. Before each part it is noted on disk what the part changes and how that was:
 * on a failure all is put back, last first; after a kill the next run goes on from the notes.
 */
import { Cancelled } from "../common/asking.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { checkCompiles, checkStorages, listStatus } from "./check_shim.ts";
import { type NodeFacts, versionOf } from "./facts.ts";
import { NOTES_FOLDER, PROGRAM, SERVICE_MS, SHIM_FILE } from "./places.ts";
import { type Change, type Plan, type Step, stepIdOf } from "./plan.ts";
import { putBack, undoAll } from "./put_back.ts";
import {
  type Before,
  type InstallRecord,
  type Pending,
  removeRecord,
  type StepId,
  writeRecord,
} from "./record.ts";
import { commandLine, runCommand } from "./run_command.ts";
import { keep, KEPT, sweep, sweepKept, type Work } from "./work.ts";
import type { InstallWorld } from "./world.ts";

/** What belongs to one version of tnblock, and goes back with it. */
const OF_A_VERSION: readonly StepId[] = ["program", "units", "shim", "completions"];

/** What became of a plan. */
export interface Outcome {
  /** The parts that were done; none: all was as it should be. */
  readonly done: readonly StepId[];
}

/**
 * Does the plan.
 *
 * @throws TnblockError after everything was put back; its message says what was not.
 * @throws Cancelled as well, when the user left.
 */
export async function carryOut(
  world: InstallWorld,
  facts: NodeFacts,
  plan: Plan,
): Promise<Outcome> {
  const steps = plan.steps.filter(({ state }) => state === "do");
  const { host, tell } = world;
  if (steps.length === 0 && facts.record.version === (plan.version ?? null)) {
    if (plan.kind === "uninstall") await removeRecord(host.files);
    return { done: [] };
  }
  const work: Work = { world, facts, plan, record: facts.record, storages: undefined };
  if (plan.undoes === true) return await undo(work);
  if (steps.some(({ id }) => id === "shim")) work.storages = await storagesBefore(work);
  await sweep(work);
  try {
    for (const step of steps) {
      if (world.signal?.aborted === true) throw new Cancelled();
      tell(`${step.about} …`);
      await attempt(`Cannot go on with ${step.about}`, async () => {
        await note(work, step);
        await doStep(work, step);
      });
    }
    if (world.signal?.aborted === true) throw new Cancelled();
    await attempt("Cannot note what was installed", () => commit(work));
  } catch (error) {
    // Ctrl-C in a terminal ends the programs that run as well.
    const isLeaving = error instanceof Cancelled || world.signal?.aborted === true;
    const failure = isLeaving ? new Cancelled() : asTnblockError(error);
    if (!(failure instanceof Cancelled)) tell(`failed: ${failure.message}`);
    await putBack(work, failure);
  }
  await sweepKept(work).catch(() => tell(`${KEPT} holds copies that are not needed any more`));
  if (plan.kind === "uninstall") {
    await removeRecord(host.files).catch(() => tell(`${NOTES_FOLDER} holds notes of what is gone`));
  }
  return { done: steps.map(({ id }) => id) };
}

/** Ends a run that was interrupted by going back to before it. */
async function undo(work: Work): Promise<Outcome> {
  const { plan, facts } = work;
  const done = facts.record.pending?.begun ?? [];
  const left = await undoAll(work);
  if (left.length === 0) return { done };
  throw new TnblockError(
    "host-fault",
    `Cannot undo what an interrupted run of tnblock ${plan.kind} began: ${left.join("; ")}`,
    { hint: "Run the same again: it goes on from there" },
  );
}

/** With a broken plugin of ours in place it need not work yet. */
async function storagesBefore({ world, facts }: Work): Promise<string[] | undefined> {
  try {
    return await listStatus(world.host);
  } catch (error) {
    if (facts.files.has(SHIM_FILE)) return undefined;
    throw new TnblockError(
      "host-fault",
      `Cannot begin: Proxmox VE's storages do not work before anything is changed: ${
        asTnblockError(error).message
      }`,
      { hint: "Run pvesm status, and put right what it says", cause: error },
    );
  }
}

/** Writes down that a part is begun, and keeps what it will replace. */
async function note(work: Work, { id, changes }: Step): Promise<void> {
  const { world, facts, plan, record } = work;
  const pending: Pending = record.pending ??
    { kind: plan.kind, begun: [], before: {}, services: facts.services };
  const before: Record<string, Before> = { ...pending.before };
  for (const { path } of changes) {
    // What an interrupted run has noted is how it was before all of it.
    if (!(path in before)) before[path] = await keep(world, facts, path);
  }
  const begun = [...pending.begun.filter((other) => other !== id), id];
  work.record = { ...record, pending: { ...pending, kind: plan.kind, begun, before } };
  await writeRecord(world.host.files, work.record);
}

async function doStep(work: Work, step: Step): Promise<void> {
  const { world } = work;
  const shim = step.id === "shim" ? step.changes.find(({ path }) => path === SHIM_FILE) : undefined;
  if (shim?.content?.kind === "text") await checkCompiles(world.host, shim.content.text);
  for (const change of step.changes) {
    await put(world, change);
    world.tell(`  ${change.content === undefined ? "removed" : "written"}: ${change.path}`);
  }
  if (step.id === "program" && work.plan.kind !== "uninstall") await checkProgram(work);
  if (step.id === "shim") {
    const isThere = await world.host.files.status(SHIM_FILE) !== undefined;
    await checkStorages(world.host, work.storages, isThere);
    world.tell(`  Proxmox VE's storages work ${isThere ? "with" : "without"} it`);
  }
  for (const command of step.commands) {
    await runCommand(world.host, command, SERVICE_MS);
    world.tell(`  run: ${commandLine(command)}`);
  }
}

async function put(
  { host, programs }: InstallWorld,
  { path, content, digest, mode }: Change,
): Promise<void> {
  switch (content?.kind) {
    case "text":
      return await host.files.replaceText(path, content.text, mode, { durable: true });
    case "own":
      return await programs.own?.copyTo(path, mode);
    case "copy":
      if (await programs.digest(content.of) !== digest) {
        throw new TnblockError("host-fault", `Cannot use the copy ${content.of}: it is damaged`);
      }
      return await programs.copy(content.of, path, mode);
    case undefined:
      await host.files.remove(path, { durable: true });
  }
}

async function checkProgram({ world, plan }: Work): Promise<void> {
  const version = await versionOf(world, PROGRAM);
  if (version === plan.version) return;
  throw new TnblockError(
    "host-fault",
    version === undefined
      ? `Cannot use ${PROGRAM}: it does not run on this node`
      : `Cannot use ${PROGRAM}: it says that it is ${version}, not ${plan.version}`,
    { hint: `Run ${PROGRAM} version; a processor without SSE4.2 and POPCNT is too old for it` },
  );
}

/** All is in place: what was before becomes what can be brought back. */
async function commit(work: Work): Promise<void> {
  const { world, plan, record } = work;
  const before = record.pending?.before ?? {};
  const files = { ...record.files };
  // What was right already is ours now as well: uninstall removes it.
  for (const { path, digest, mode } of plan.steps.flatMap(({ wanted }) => wanted)) {
    if (digest === undefined) delete files[path];
    else files[path] = { digest, mode };
  }
  const next: InstallRecord = {
    ...{ schemaVersion: 1, version: plan.version ?? null, files, pending: null },
    previous: previousOf(work, before, files[PROGRAM]?.digest),
  };
  await writeRecord(world.host.files, next);
  work.record = next;
}

/** What `--roll-back` brings back from now on. */
function previousOf(
  { plan, facts, record }: Work,
  before: Readonly<Record<string, Before>>,
  program: string | undefined,
): InstallRecord["previous"] {
  if (plan.kind === "uninstall") return null;
  const replaced = before[PROGRAM] ?? null;
  // After a roll back it stays: doing it twice, as after a lost answer, is no way forward again.
  if (plan.kind === "roll-back" || replaced === null || replaced.digest === program) {
    return record.previous;
  }
  return {
    version: record.version ?? facts.installedVersion ?? "unknown",
    // The node's settings stay: somebody may have changed them since.
    files: Object.fromEntries(
      Object.entries(before).filter(([path]) => OF_A_VERSION.includes(stepIdOf(path))),
    ),
  };
}
