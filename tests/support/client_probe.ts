/**
 * Runs the client against given addresses and prints what became of it, as one line of JSON: the same
 * source under Deno, under bun and compiled must say the same. Certificates and keys come as
 * arguments; nothing of a runtime is used.
 *
 * Usage: client_probe '[{"name": "...", "addresses": [...], "trust": {...}}, ...]'
 */
import process from "node:process";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { openSession, type SessionOptions } from "../../src/truenas/session.ts";

interface Probe {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly trust?: NonNullable<SessionOptions["trust"]>;
  readonly connectDeadlineMs?: number;
  readonly pingEveryMs?: number;
  /** Methods that are called, all at once, after the login. */
  readonly calls?: readonly string[];
  /** Waits for the end of the session instead of closing it. */
  readonly untilClosed?: boolean;
}

async function run(probe: Probe): Promise<unknown> {
  const { name: _, calls = [], untilClosed = false, ...options } = probe;
  try {
    const session = await openSession({ ...options, user: "u", apiKey: "1-k", clock: systemClock });
    const results = await Promise.allSettled(calls.map((method) => session.call(method, [])));
    if (untilClosed) return failure(await session.closed);
    session.close();
    return results.map((result) =>
      result.status === "fulfilled" ? result.value : failure(result.reason)
    );
  } catch (error) {
    return failure(error);
  }
}

function failure(error: unknown): unknown {
  if (!(error instanceof ArrayError)) return String(error);
  const hint = /[0-9A-F]{2}(:[0-9A-F]{2}){31}/.exec(error.hint ?? "")?.[0];
  return [error.code, error.outcome, error.reason ?? "", hint ?? ""];
}

const outcomes: Record<string, unknown> = {};
for (const probe of JSON.parse(process.argv[2] ?? "[]") as Probe[]) {
  outcomes[probe.name] = await run(probe);
}
process.stdout.write(`${JSON.stringify(outcomes)}\n`);
