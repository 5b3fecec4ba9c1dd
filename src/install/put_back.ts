/** Puts back what a plan has changed before it failed, or before the user left. */
import { Cancelled } from "../common/asking.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { DAEMON_UNITS, SERVICE_MS, UNIT_FOLDER } from "./places.ts";
import { commandsAfter, reloadPveServices, stepIdOf, systemctl } from "./plan.ts";
import { removeRecord, type StepId, writeRecord } from "./record.ts";
import { commandLine, runCommand } from "./run_command.ts";
import { sweepKept, type Work } from "./work.ts";

const DOING = { "install": "install", "roll-back": "roll back", "uninstall": "uninstall" } as const;

/** Puts everything back, last first, and throws. */
export async function putBack(work: Work, failure: TnblockError | Cancelled): Promise<never> {
  const { tell } = work.world;
  const left = await undoAll(work);
  const doing = DOING[work.plan.kind];
  if (failure instanceof Cancelled) {
    tell(left.length === 0 ? "Everything is as it was." : `Left: ${left.join("; ")}`);
    throw failure;
  }
  throw new TnblockError(
    failure.code,
    `Cannot ${doing} tnblock: ${failure.message}; ${
      left.length === 0 ? "everything is as it was" : `left: ${left.join("; ")}`
    }`,
    {
      cause: failure,
      ...(left.length > 0
        ? { hint: "Run the same again: it goes on from there" }
        : failure.hint === undefined
        ? {}
        : { hint: failure.hint }),
    },
  );
}

/** Puts back all that the notes say was begun, last first; what could not be put back. */
export async function undoAll(work: Work): Promise<string[]> {
  const { host, tell } = work.world;
  const left: string[] = [];
  for (const id of work.record.pending?.begun.toReversed() ?? []) {
    try {
      await undoStep(work, id);
    } catch (error) {
      const { message } = asTnblockError(error);
      tell(`  not undone: ${message}`);
      left.push(message);
    }
  }
  // The notes stay as long as the next run needs them.
  if (left.length > 0) return left;
  work.record = { ...work.record, pending: null };
  try {
    const { version, files, previous } = work.record;
    const isBlank = version === null && previous === null && Object.keys(files).length === 0;
    if (isBlank) await removeRecord(host.files);
    else await writeRecord(host.files, work.record);
    await sweepKept(work);
  } catch (error) {
    left.push(asTnblockError(error).message);
  }
  return left;
}

async function undoStep({ world, facts, record }: Work, id: StepId): Promise<void> {
  const { host, programs, tell } = world;
  const { begun = [], before = {}, services } = record.pending ?? {};
  const paths = Object.keys(before).filter((path) => stepIdOf(path) === id).toReversed();
  await attempt(`Cannot undo ${id}`, async () => {
    for (const path of paths) {
      const was = before[path];
      if (was === undefined || was === null) await host.files.remove(path, { durable: true });
      else await programs.copy(was.copy, path, was.mode);
      tell(`  put back: ${path}`);
    }
    const commands = commandsAfter(id, facts);
    const isOn = services?.isEnabled === true || services?.isActive === true;
    if (id === "daemon" && isOn) commands.push(systemctl("enable", "--now", ...DAEMON_UNITS));
    // An earlier attempt may have taken the units away already.
    const hasUnits = await host.files.status(`${UNIT_FOLDER}/${DAEMON_UNITS[1]}`) !== undefined;
    if (id === "daemon" && !isOn && hasUnits) {
      commands.push(systemctl("disable", "--now", ...DAEMON_UNITS.toReversed()));
    }
    // In an installation the daemon was restarted after this; in a removal it was ended before.
    const isBefore = begun.indexOf(id) < begun.indexOf("daemon");
    if (id === "program" && isOn && isBefore) {
      commands.push(systemctl("restart", "tnblock.service"));
    }
    if (id === "shim" && begun.includes("pve-services")) commands.push(...reloadPveServices());
    for (const command of commands) {
      await runCommand(host, command, SERVICE_MS);
      tell(`  run: ${commandLine(command)}`);
    }
  });
}
