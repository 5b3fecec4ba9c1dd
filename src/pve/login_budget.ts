/**
 * The logins of a node at one array: all its processes draw on one budget, because TrueNAS counts them
 * by address and locks out a node that makes more than 20 a minute (`middlewared/utils/rate_limit/cache.py`).
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Bounds, Host } from "../host/host.ts";

/** Logins that may come at once: with those that come in the minute after them no more than 20 ... */
const BURST = 15;
/** ... and milliseconds after which one more is allowed. */
const REFILL_MS = 12_000;

/** What the array refuses is counted too, in windows of this length: nobody tries before it is over. */
const LOCKED_MS = 60_000;

const stateSchema = v.object({
  left: v.number(),
  at: v.number(),
  /** Since when the array refuses logins; milliseconds since the epoch. */
  lockedAt: v.optional(v.number()),
});

type State = v.InferOutput<typeof stateSchema>;

/** No login is allowed before some time has passed. */
export class LoginsUsedUp extends TnblockError {
  /** @param allowedInMs milliseconds until the next one. */
  constructor(message: string, hint: string, readonly allowedInMs: number) {
    super("rate-limited", message, { hint });
  }
}

/** What is left of the budget at a time, given what was left before. Pure; times in milliseconds. */
export function refill(
  state: { left: number; at: number },
  now: number,
): { left: number; at: number } {
  // A clock that was set back must not freeze the budget.
  const passed = Math.max(0, now - state.at);
  return { left: Math.min(BURST, state.left + passed / REFILL_MS), at: now };
}

/** Milliseconds for which the array still refuses logins. Pure. */
export function lockedForMs(lockedAt: number | undefined, now: number): number {
  // A clock that was set back must not lock for longer than the array does: then one is tried.
  if (lockedAt === undefined || lockedAt > now) return 0;
  return Math.max(0, LOCKED_MS - (now - lockedAt));
}

const HINT = "Start the tnblock daemon, which needs one login for all commands, or wait";

/**
 * Takes one login from the node's budget for an array, known by its first address and port.
 *
 * @throws LoginsUsedUp `rate-limited` when there is none left, with the time until the next.
 */
export async function drawLogin(host: Host, array: string, bounds: Bounds): Promise<void> {
  await withState(host, array, bounds, oneLess);
}

/**
 * Looks whether a login would be allowed, and takes none: whoever has to be refused need not connect first.
 *
 * @throws LoginsUsedUp as {@link drawLogin} does.
 */
export async function requireLogin(host: Host, array: string): Promise<void> {
  // The file is replaced as a whole: reading needs no lock.
  oneLess(await readState(host, namesOf(array).file), host.now());
}

function oneLess(state: State, now: number): State {
  const inSeconds = (ms: number) => Math.ceil(ms / 1000);
  const locked = lockedForMs(state.lockedAt, now);
  if (locked > 0) {
    throw new LoginsUsedUp(
      `Cannot log in to TrueNAS: it had too many logins from this node, and takes the next one in ${
        inSeconds(locked)
      } s`,
      HINT,
      locked,
    );
  }
  const { left, at } = refill(state, now);
  if (left >= 1) return { left: left - 1, at };
  const wait = (1 - left) * REFILL_MS;
  throw new LoginsUsedUp(
    `Cannot log in to TrueNAS: this node has used up its logins, the next one is free in ${
      inSeconds(wait)
    } s`,
    HINT,
    wait,
  );
}

/** The array has just refused a login as one too many: no process of the node tries before it is over. */
export async function noteLockOut(host: Host, array: string, bounds: Bounds): Promise<void> {
  await withState(host, array, bounds, (state, now) => ({ ...refill(state, now), lockedAt: now }));
}

/** Changes the node's state for an array under its lock; the file stays as it is when `change` throws. */
async function withState(
  host: Host,
  array: string,
  bounds: Bounds,
  change: (state: State, now: number) => State,
): Promise<void> {
  const { name, file } = namesOf(array);
  const release = await attempt("Cannot log in to TrueNAS", () => host.lock(name, bounds));
  try {
    const state = await readState(host, file);
    await host.files.replaceText(file, JSON.stringify(change(state, host.now())), 0o600);
  } finally {
    release();
  }
}

/** Where the state for an array is kept: the name of its lock, and its file. */
function namesOf(array: string): { readonly name: string; readonly file: string } {
  const name = `logins-${createHash("sha256").update(array).digest("hex").slice(0, 16)}`;
  return { name, file: `/run/tnblock/${name}.json` };
}

/** What is kept for an array; a full budget when nothing readable is. */
async function readState(host: Host, file: string): Promise<State> {
  const text = await host.files.readText(file);
  const parsed = v.safeParse(stateSchema, text === undefined ? undefined : parseJson(text));
  return parsed.success ? parsed.output : { left: BURST, at: host.now() };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
