/** Builds the real world once, runs one command, sets the exit status. */
import process from "node:process";
import { type CommandContext, EXIT, runProgram } from "./cli/framework.ts";
import { buildProgram } from "./cli/program.ts";

/** `--root DIR` before the command, or TNBLOCK_ROOT; the flag wins. */
function rootOf(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string {
  const index = args.findIndex((arg) => arg === "--root" || arg.startsWith("--root="));
  if (index < 0) return env["TNBLOCK_ROOT"] ?? "/";
  return args[index]?.startsWith("--root=")
    ? args[index].slice("--root=".length)
    : args[index + 1] ?? "/";
}

/** Commands that go on when nobody reads their output any more: they have something to finish or undo. */
const FINISHING = ["hook", "daemon", "simulate"];

/** Whether something that was written did not arrive, for another reason than that nobody reads it. */
let isOutputLost = false;

/** Writes whole texts in order; a closed pipe ends most programs quietly. */
function writer(stream: NodeJS.WriteStream, finishing: boolean): (text: string) => void {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (!finishing && error.code === "EPIPE") process.exit(EXIT.done);
  });
  return (text) =>
    void stream.write(text, (error?: NodeJS.ErrnoException | null) => {
      if (error && error.code !== "EPIPE") isOutputLost = true;
    });
}

/** Resolves when everything written has left the process. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.destroyed || stream.errored) return Promise.resolve();
  return new Promise((resolve) => stream.write("", () => resolve()));
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const finishing = args.some((arg) => FINISHING.includes(arg));
  let stopped: Promise<void> | undefined;
  const context: CommandContext = {
    out: writer(process.stdout, finishing),
    deliver: (text) =>
      new Promise((resolve) =>
        process.stdout.write(text, (error) => resolve(error === null || error === undefined))
      ),
    err: writer(process.stderr, true),
    input: process.stdin,
    isTerminal: process.stdout.isTTY === true,
    env: process.env,
    root: rootOf(args, process.env),
    stopped: () =>
      stopped ??= new Promise((resolve) => {
        for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
          process.on(signal, () => resolve());
        }
      }),
  };
  let status: number;
  try {
    status = await runProgram(buildProgram(context), args, context);
  } catch (error) {
    const { reportError } = await import("./cli/report_error.ts");
    status = reportError(error, context);
  }
  await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
  process.exit(status === EXIT.done && isOutputLost ? EXIT.failed : status);
}

await main();
