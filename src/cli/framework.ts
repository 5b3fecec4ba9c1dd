/** The command-line parser; the only file that knows which library it is (commander stands in for cliffy). */
import { Argument, Command, CommanderError, Option } from "@commander-js/extra-typings";

export { Argument, Command, Option };

/** What a command may touch of the process. */
export interface CommandContext {
  /** Writes data for the user or the caller. */
  readonly out: (text: string) => void;
  /** As {@link out}; resolves to false when nobody is there to read it. */
  readonly deliver: (text: string) => Promise<boolean>;
  /** Writes everything else. */
  readonly err: (text: string) => void;
  /** Standard input, in chunks. */
  readonly input: AsyncIterable<Uint8Array>;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** The environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The folder that stands for `/`. */
  readonly root: string;
  /**
   * Resolves when the process is asked to end (SIGTERM, SIGINT, SIGHUP). A command that never asks is
   * ended by the signal itself.
   */
  readonly stopped: () => Promise<void>;
}

/** Exit statuses that a command may end with; `tnblock help exit-codes` is the long form. */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  denied: 4,
  inUse: 5,
  unreachable: 6,
  timeout: 7,
  /** Some of several things failed; warnings only, where they count. */
  partly: 8,
  /** `doctor` found errors. */
  findings: 10,
  interrupted: 130,
} as const;

/** A command that ended with this status. */
export class Exit extends Error {
  constructor(readonly status: number) {
    super(`exit ${status}`);
  }
}

/**
 * Parses `args` and runs the command.
 *
 * @returns the exit status; every mistake in usage is {@link EXIT.usage}.
 */
export async function runProgram(
  // deno-lint-ignore no-explicit-any
  program: Command<any, any, any>,
  args: readonly string[],
  context: CommandContext,
): Promise<number> {
  const adjust = (command: { commands: readonly unknown[] }) => {
    const one = command as Command;
    one.exitOverride().configureOutput({ writeOut: context.out, writeErr: context.err })
      .showHelpAfterError("(run with --help for the usage)");
    for (const child of one.commands) adjust(child);
  };
  adjust(program);
  try {
    await program.parseAsync([...args], { from: "user" });
    return EXIT.done;
  } catch (error) {
    if (error instanceof Exit) return error.status;
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    throw error;
  }
}
