/** Runs one of the node's programs that must succeed. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host, ProgramResult } from "../host/host.ts";
import type { NodeCommand } from "./plan.ts";

/** How it is typed, for people. */
export function commandLine({ program, args }: NodeCommand): string {
  const name = program.slice(program.lastIndexOf("/") + 1);
  const shown = args.map((arg) => /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg}'`);
  return [name, ...shown].join(" ");
}

/** @throws TnblockError `host-fault` with what it said last, `timeout`. */
export async function runCommand(
  host: Host,
  command: NodeCommand,
  deadlineMs: number,
): Promise<ProgramResult> {
  const doing = `Cannot run ${commandLine(command)}`;
  const result = await attempt(
    doing,
    () => host.run(command.program, command.args, { deadlineMs }),
  );
  // What a node does not have need not be reloaded.
  const isAbsent = command.args[0] === "reload-or-try-restart" &&
    /not (be )?(found|loaded)/.test(result.stderr);
  if (result.status === 0 || isAbsent) return result;
  const said = result.stderr.trim().split("\n").at(-1) ?? "";
  throw new TnblockError("host-fault", `${doing}: ${said || `status ${result.status}`}`);
}
