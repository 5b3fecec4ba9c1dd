/** Processes that the bench starts, and ends again. */

/** A running process. */
export interface Child {
  readonly pid: number;
  readonly process: Deno.ChildProcess;
  /** Writes to its standard input. */
  write(text: string): Promise<void>;
  /** Lines of its standard output. */
  lines(): AsyncIterator<string>;
  /** Closes its input and asks it to end; kills it after ten seconds. */
  end(): Promise<void>;
}

const END_MS = 10_000;

const running = new Set<Deno.ChildProcess>();

/** Kills what still runs: for a bench that is told to end. */
export function killAll(): void {
  for (const process of running) kill(process, "SIGKILL");
}

function kill(process: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    process.kill(signal);
  } catch {
    // It has ended already.
  }
}

/** Starts a process with nothing in its environment but what is given. */
export function startChild(
  program: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Child {
  const process = new Deno.Command(program, {
    args: [...args],
    clearEnv: true,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", ...kept(), ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: Deno.env.get("TNBLOCK_BENCH_STDERR") === "1" ? "inherit" : "null",
  }).spawn();
  running.add(process);
  process.status.finally(() => running.delete(process));
  const writer = process.stdin.getWriter();
  const encoder = new TextEncoder();
  const lines = linesOf(process.stdout);
  return {
    pid: process.pid,
    process,
    write: (text) => writer.write(encoder.encode(text)),
    lines: () => lines,
    end: async () => {
      await writer.close().catch(() => {});
      kill(process, "SIGCONT");
      kill(process, "SIGTERM");
      const timer = setTimeout(() => kill(process, "SIGKILL"), END_MS);
      for (;;) if ((await lines.next()).done) break;
      await process.status;
      clearTimeout(timer);
    },
  };
}

/** The first line of a process. @throws Error when it ends without one. */
export async function firstLine(child: Child): Promise<string> {
  const { value, done } = await child.lines().next();
  if (done) throw new Error("the process ended before it was ready");
  return value;
}

/** What deno needs to find its cache. */
function kept(): Record<string, string> {
  const names = ["HOME", "DENO_DIR", "TMPDIR"];
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = Deno.env.get(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    rest += text;
    for (let at = rest.indexOf("\n"); at >= 0; at = rest.indexOf("\n")) {
      yield rest.slice(0, at);
      rest = rest.slice(at + 1);
    }
  }
}
