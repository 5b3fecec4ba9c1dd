/**
 * `tnblock install` as a program: what a test's stand-in of the compiled program runs, so that there is a process
 * to be killed, and a terminal to be asked in.
 *
 *     install_program.ts EXECUTABLE VERSION ARGUMENT...
 */
import process from "node:process";
import { asker } from "../../src/cli/asker.ts";
import { type CommandContext, runProgram } from "../../src/cli/framework.ts";
import { Command, Exit } from "../../src/cli/framework.ts";
import { type InstallFlags, runInstall, runUninstall } from "../../src/cli/install.ts";
import { reportError } from "../../src/cli/report_error.ts";

const [executable = "", version = "", ...args] = process.argv.slice(2);
const root = process.env["TNBLOCK_ROOT"] ?? "/nowhere";
const context: CommandContext = {
  out: (text) => void process.stdout.write(text),
  deliver: () => Promise.resolve(true),
  err: (text) => void process.stderr.write(text),
  input: process.stdin,
  isTerminal: false,
  env: process.env,
  root,
  stopped: () =>
    new Promise((resolve) => {
      for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => resolve());
    }),
};
const surroundings = {
  ...{ version, executable },
  asker: asker({ input: process.stdin, output: process.stderr }),
};
const has = (flag: string) => args.includes(flag);
const said = { json: has("json"), yes: has("--yes"), dryRun: has("--dry-run") };
const flags: InstallFlags = {
  ...said,
  ...{ allNodes: has("--all-nodes"), rollBack: has("--roll-back"), allowOlder: false },
  ...{ lvmFilter: !has("--no-lvm-filter"), multipath: true, nvmeRule: true },
};
const program = new Command("tnblock");
for (const name of ["install", "uninstall"]) {
  program.command(name).allowUnknownOption().allowExcessArguments().action(async () => {
    throw new Exit(
      name === "install" ? await runInstall(context, flags, surroundings) : await runUninstall(
        context,
        { ...said, removeSecrets: has("--remove-secrets") },
        surroundings,
      ),
    );
  });
}
let status: number;
try {
  status = await runProgram(program, args, context);
} catch (error) {
  status = reportError(error, context);
}
process.exitCode = status;
setTimeout(() => process.exit(status), 50);
