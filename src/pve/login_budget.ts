/**
 * The logins of a node at one array: all its processes draw on one budget, because TrueNAS counts them
 * by address and locks out a node that makes more than 20 a minute (`middlewared/utils/rate_limit/cache.py`).
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Bounds, Host } from "../host/host.ts";

/** Logins that may come at once ... */
const BURST = 15;
/** ... and milliseconds after which one more is allowed. */
const REFILL_MS = 6000;

const stateSchema = v.object({ left: v.number(), at: v.number() });

/** What is left of the budget at a time, given what was left before. Pure; times in milliseconds. */
export function refill(
  state: { left: number; at: number },
  now: number,
): { left: number; at: number } {
  // A clock that was set back must not freeze the budget.
  const passed = Math.max(0, now - state.at);
  return { left: Math.min(BURST, state.left + passed / REFILL_MS), at: now };
}

/**
 * Takes one login from the node's budget for an array, known by its first address and port.
 *
 * @throws TnblockError `rate-limited` when there is none left, with the time until the next.
 */
export async function drawLogin(host: Host, array: string, bounds: Bounds): Promise<void> {
  const name = `logins-${createHash("sha256").update(array).digest("hex").slice(0, 16)}`;
  const file = `/run/tnblock/${name}.json`;
  const release = await attempt("Cannot log in to TrueNAS", () => host.lock(name, bounds));
  try {
    const text = await host.files.readText(file);
    const parsed = v.safeParse(stateSchema, text === undefined ? undefined : parseJson(text));
    const state = refill(
      parsed.success ? parsed.output : { left: BURST, at: host.now() },
      host.now(),
    );
    const granted = state.left >= 1;
    const after = { left: state.left - (granted ? 1 : 0), at: state.at };
    await host.files.replaceText(file, JSON.stringify(after), 0o600);
    if (!granted) {
      const seconds = Math.ceil((1 - state.left) * REFILL_MS / 1000);
      throw new TnblockError(
        "rate-limited",
        `Cannot log in to TrueNAS: this node has used up its logins, the next one is free in ${seconds} s`,
        { hint: "Start the tnblock daemon, which needs one login for all commands, or wait" },
      );
    }
  } finally {
    release();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
