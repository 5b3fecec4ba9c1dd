/** `tnblock daemon`: answers the shim's requests until it is told to end. */
import process from "node:process";
import { lineLog } from "../common/log.ts";
import { startDaemon } from "../daemon/daemon.ts";
import { notifier, notifySettings } from "../daemon/notify.ts";
import { UNITS } from "../daemon/unit.ts";
import { isJournal, linuxHost } from "../host/linux.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { VERSION } from "./version.ts";

/** Runs the daemon; ends with success after SIGTERM, when nothing is under way any more. */
export async function runDaemon(context: CommandContext): Promise<number> {
  let level = 0;
  const host = linuxHost({ root: context.root });
  const priorities = isJournal(context.env["JOURNAL_STREAM"]);
  const write = (line: string) => context.err(`${line}\n`);
  const log = lineLog(write, () => level, { priorities });
  const manager = notifier(host, notifySettings(context.env, process.pid), log);
  const stopped = context.stopped();
  // A defect, and no reason to leave alone all that is under way.
  process.on("unhandledRejection", (reason) => {
    log.error(`a failure that nobody awaited: ${reason instanceof Error ? reason.stack : reason}`);
  });
  const daemon = await startDaemon({
    host,
    log,
    requestLog: (about, level) => lineLog(write, level, { priorities, about }),
    setDebugLevel: (value) => level = value,
    limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
    version: VERSION,
  });
  await manager.ready();
  await stopped;
  await Promise.all([manager.stopping(), daemon.stop()]);
  manager.close();
  return EXIT.done;
}

/** Prints the units, each below its name. */
export function printUnits(context: CommandContext): void {
  for (const [name, text] of Object.entries(UNITS)) {
    context.out(`# /etc/systemd/system/${name}\n${text}\n`);
  }
}
