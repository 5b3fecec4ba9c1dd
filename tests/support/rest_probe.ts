/**
 * Runs the REST client against given addresses and prints what became of it, as one line of JSON: the
 * same source under Deno and under bun must say the same.
 *
 * Usage: rest_probe '[{"name": "...", "addresses": [...], "trust": {...}, "calls": [[method, params]]}, ...]'
 */
import process from "node:process";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { openRestSession } from "../../src/truenas/rest_session.ts";
import type { SessionOptions } from "../../src/truenas/session.ts";

interface Probe {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly trust?: NonNullable<SessionOptions["trust"]>;
  readonly connectDeadlineMs?: number;
  /** Calls, one after another. */
  readonly calls?: readonly (readonly [string, readonly unknown[]])[];
}

async function run({ name: _, calls = [], ...options }: Probe): Promise<unknown> {
  try {
    const session = await openRestSession({ ...options, apiKey: "1-k", clock: systemClock });
    const results: unknown[] = [];
    for (const [method, params] of calls) {
      results.push(await session.call(method, params, { lane: "write" }).catch(failure));
    }
    session.close();
    return results;
  } catch (error) {
    return failure(error);
  }
}

function failure(error: unknown): unknown {
  return error instanceof ArrayError ? [error.code, error.outcome] : String(error);
}

const outcomes: Record<string, unknown> = {};
for (const probe of JSON.parse(process.argv[2] ?? "[]") as Probe[]) {
  outcomes[probe.name] = await run(probe);
}
process.stdout.write(`${JSON.stringify(outcomes)}\n`);
