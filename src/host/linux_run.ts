/** Part of linux.ts: runs programs. No shell, a clean environment, an end in any case. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { Readable } from "node:stream";
import { HostError, type ProgramResult, type RunOptions } from "./host.ts";
import { timerMs, wait } from "./linux_deadline.ts";
import { hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** Each of stdout and stderr; the rest is read and dropped, so that the program never blocks on it. */
const MAX_OUTPUT = 1 << 20;

/** How long after its end a program's output may still come, when a grandchild holds the pipe. */
const DRAIN_MS = 200;

/** Nothing of our own environment reaches a program: no secrets, no language, no preloaded library. */
const ENVIRONMENT = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/**
 * How often, and how long apart in ms, a program is started again that somebody has open for writing. One that was
 * put in place a moment ago is held so by whatever this process started meanwhile, until that has begun (fork, exec).
 */
const BUSY_TRIES = 20;
const BUSY_PAUSE_MS = 25;

/** Runs `program` of the node and waits for its end. */
export async function runProgram(
  root: Root,
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<ProgramResult> {
  for (let tries = 1;; tries++) {
    try {
      return await runOnce(root, program, args, options);
    } catch (error) {
      if (tries === BUSY_TRIES || !isTextBusy(error)) throw error;
      await wait(BUSY_PAUSE_MS, options.signal);
    }
  }
}

/** Deno names no code for it, and the number in its text. */
function isTextBusy(error: unknown): boolean {
  if (!(error instanceof HostError)) return false;
  return error.code === "ETXTBSY" ||
    (error.cause instanceof Error && error.cause.message.includes("(os error 26)"));
}

async function runOnce(
  root: Root,
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<ProgramResult> {
  const doing = `Cannot run "${program}"`;
  if (!program.startsWith("/")) throw new HostError("EINVAL", `${doing}: not an absolute path`);
  const file = await root.follow(program);
  options.signal?.throwIfAborted();
  let child: ChildProcess;
  try {
    const env = { ...ENVIRONMENT, ...options.environment };
    child = spawn(file, [...args], { cwd: "/", env, shell: false });
  } catch (error) {
    throw hostError(doing, error);
  }
  return await ended(doing, child, options);
}

function ended(doing: string, child: ChildProcess, options: RunOptions): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    let drain: ReturnType<typeof setTimeout> | undefined;
    let status: number | undefined;

    const settle = (finish: () => void) => {
      clearTimeout(deadline);
      clearTimeout(drain);
      options.signal?.removeEventListener("abort", onAbort);
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.stdin?.destroy();
      finish();
    };
    const kill = (reason: unknown) => {
      child.kill("SIGKILL");
      settle(() => reject(reason));
    };
    const onAbort = () => kill(options.signal?.reason);
    const succeed = () =>
      settle(() => resolve({ status: status ?? 0, stdout: stdout(), stderr: stderr() }));

    const deadline = setTimeout(
      () => kill(new HostError("ETIMEDOUT", `${doing}: no end within ${options.deadlineMs} ms`)),
      timerMs(options.deadlineMs),
    );
    options.signal?.addEventListener("abort", onAbort, { once: true });
    child.on("error", (error) => settle(() => reject(hostError(doing, error))));
    child.on("exit", (code, signal) => {
      status = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      drain = setTimeout(succeed, DRAIN_MS);
    });
    child.on("close", () => {
      if (status !== undefined) succeed();
    });
    // A program that does not read its input closes the pipe early; that is its right.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input ?? "");
  });
}

function collect(stream: Readable | null): () => string {
  const parts: Uint8Array[] = [];
  let room = MAX_OUTPUT;
  stream?.on("data", (chunk: Uint8Array) => {
    if (room > 0) parts.push(chunk.subarray(0, room));
    room -= chunk.length;
  });
  stream?.on("error", () => {});
  return () => {
    const decoder = new TextDecoder();
    return parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
  };
}
