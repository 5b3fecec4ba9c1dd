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

/** Writes whole texts in order, and lets a closed pipe end the program quietly. */
function writer(stream: NodeJS.WriteStream): (text: string) => void {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed);
  });
  return (text) => void stream.write(text);
}

/** Resolves when everything written has left the process. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => stream.write("", () => resolve()));
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const context: CommandContext = {
    out: writer(process.stdout),
    err: writer(process.stderr),
    input: process.stdin,
    isTerminal: process.stdout.isTTY === true,
    env: process.env,
    root: rootOf(args, process.env),
    stopped: new Promise((resolve) => {
      process.once("SIGTERM", () => resolve());
      process.once("SIGINT", () => resolve());
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
  process.exit(status);
}

await main();
