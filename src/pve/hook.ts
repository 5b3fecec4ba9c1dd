/**
 * Answers one request of the shim: reads the storage's settings, runs the verb, and puts its result
 * into the protocol's words. What each method does is in `methods/`.
 */
import { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { KEPT_ENTRY } from "../volumes/journaled.ts";
import type { HeldEntry } from "../volumes/operation_entry.ts";
import type { Storage } from "../volumes/storage.ts";
import type { StorageMemory } from "../volumes/memory.ts";
import type { StorageUpkeep } from "../volumes/upkeep.ts";
import type { SharedSessions } from "./connect_array.ts";
import { Revocable } from "./methods/method.ts";
import { METHODS } from "./methods/methods.ts";
import { PURE_METHODS } from "./methods/pure.ts";
import { openStorage } from "./open_storage.ts";
import { failureLine, type HookRequest, parseRequest, successLine } from "./request.ts";
import { parseStorageId } from "./settings.ts";

/** What answering needs of the world. */
export interface HookWorld {
  readonly host: Host;
  readonly log: Log;
  /** Told the storage's `tnb-debug` once it is known. */
  readonly setDebugLevel: (level: number) => void;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** The daemon's sessions; without them each request logs in by itself. */
  readonly sessions?: SharedSessions;
  /** What the daemon remembers of a storage; without it every answer comes from the array. */
  readonly memoryOf?: (storage: MemorizedStorage) => StorageMemory | undefined;
  /** The daemon's work for a storage on this node; undefined where nobody does any. */
  readonly upkeepOf?: (storage: MemorizedStorage) => StorageUpkeep | undefined;
  /** Told each array call: for the demo and the bench. */
  readonly onArrayCall?: (call: ArrayCall) => void;
}

/** What a memory is kept of: all that reading the array for it needs. */
export type MemorizedStorage = Omit<
  Storage,
  "unknownWrites" | "deadline" | "undoDeadline" | "array" | "memory" | "upkeep"
>;

/** One call on the array. */
export interface ArrayCall {
  readonly method: string;
  readonly ms: number;
  /** False when it failed or was refused: a new zvol's device node may take several tries. */
  readonly done: boolean;
}

/** An answer under way. */
export interface HookAnswer {
  /** The reply line; there by the deadline at the latest. */
  readonly reply: Promise<{ readonly text: string; readonly ok: boolean }>;
  /** Resolves when nothing is under way any more: past the deadline, what was begun has been undone or finished. */
  readonly settled: Promise<void>;
  /** To be called when the process is told to end: what is under way stops where it can, and is undone or finished. */
  abandon(): void;
  /** To be called when the caller has the reply: until then what was made for him stays in the journal. */
  delivered(): Promise<void>;
  /** To be called instead when nobody could be given the reply: what was made for the caller is taken back. */
  undelivered(): Promise<void>;
}

/** What a request came to. */
interface Outcome {
  readonly text: string;
  readonly ok: boolean;
  readonly heard: () => Promise<void>;
  readonly takeBack: () => Promise<void>;
}

/** A method's result, with the journal's entries of what it made for the caller. */
interface Done {
  readonly result: unknown;
  readonly held: readonly HeldEntry[];
}

/** Time for taking back what nobody wants any more: longer than any reload. */
const TAKE_BACK_MS = 150_000;

/** Answers one request line. Never rejects: every failure becomes a reply. */
export function answer(line: string, world: HookWorld): HookAnswer {
  const { id, request, error } = parseRequest(line);
  if (request === undefined) {
    return {
      reply: Promise.resolve({ text: failureLine(id, error), ok: false }),
      settled: nothing(),
      abandon: () => {},
      delivered: nothing,
      undelivered: nothing,
    };
  }
  const deadline = new Deadline(world.host, request.deadlineMs);
  const reply = Promise.withResolvers<{ readonly text: string; readonly ok: boolean }>();
  /** Who came first; the other one comes too late. */
  let first: "work" | "deadline" | undefined;
  const work: Promise<Outcome> = perform(request, world, deadline).then(
    (done) => ({
      text: successLine(id, done.result instanceof Revocable ? done.result.result : done.result),
      ok: true,
      heard: async () => void await Promise.all(done.held.map((entry) => entry.heard())),
      takeBack: () => takeBack(done, request, world),
    }),
    (failure: unknown) => ({
      text: failureLine(id, failure),
      ok: false,
      heard: nothing,
      takeBack: nothing,
    }),
  );
  const finished = new AbortController();
  const settled = work.then(async (outcome) => {
    first ??= "work";
    finished.abort();
    if (first === "work") reply.resolve(outcome);
    // It was done after all, a moment after the caller was told that it was not.
    else await outcome.takeBack();
  });
  world.host.wait(request.deadlineMs, finished.signal).then(
    () => {
      const timeout = tooLate(request, deadline);
      first ??= "deadline";
      deadline.expire(timeout);
      if (first === "deadline") reply.resolve({ text: failureLine(id, timeout), ok: false });
    },
    // The work was done first.
    () => {},
  );
  /** What was too late is taken back already, whoever got the reply. */
  const inTime = async (then: (outcome: Outcome) => Promise<void>) => {
    const outcome = await work;
    if (first === "work") await then(outcome);
  };
  return {
    reply: reply.promise,
    settled,
    abandon: () =>
      deadline.expire(
        new TnblockError("timeout", `Cannot finish ${request.method}: tnblock was told to end`),
      ),
    delivered: () => inTime((outcome) => outcome.heard()),
    undelivered: () => inTime((outcome) => outcome.takeBack()),
  };
}

const nothing = () => Promise.resolve();

/** What a caller is told whose deadline has passed: also what goes on without him, when that is so. */
function tooLate(request: HookRequest, { goingOn }: Deadline): TnblockError {
  const what =
    `Cannot finish ${request.method} on storage "${request.storage}": ${request.deadlineMs} ms have passed`;
  return goingOn === undefined
    ? new TnblockError("timeout", what)
    : new TnblockError("timeout", `${what}; ${goingOn.known}, and it goes on`, {
      hint: goingOn.hint,
    });
}

/**
 * Takes back what nobody hears of, under its entries of the journal, in a storage opened anew: the request's own is
 * closed by then. What cannot be taken back now stays in the journal.
 */
async function takeBack(
  { result, held }: Done,
  request: HookRequest,
  world: HookWorld,
): Promise<void> {
  if (!(result instanceof Revocable)) {
    await Promise.all(held.map((entry) => entry.heard()));
    return;
  }
  const revoke = () =>
    inStorage(
      request,
      world,
      new Deadline(world.host, TAKE_BACK_MS),
      (storage) => result.takeBack({ storage, within: { ...storage, entry: KEPT_ENTRY } }),
    );
  try {
    await held.reduce((work, entry) => () => entry.unheard(work), revoke)();
    world.log.info(`took back what ${request.method} made: nobody was there for the answer`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    world.log.warning(`could not take back what ${request.method} made: ${reason}`);
  }
}

async function perform(
  request: HookRequest,
  world: HookWorld,
  deadline: Deadline,
): Promise<Done> {
  const pure = Object.hasOwn(PURE_METHODS, request.method)
    ? PURE_METHODS[request.method]
    : undefined;
  if (pure !== undefined) {
    const result = pure(parseStorageId(request.storage), request.args, request.config);
    return { result, held: [] };
  }
  const method = Object.hasOwn(METHODS, request.method) ? METHODS[request.method] : undefined;
  if (method === undefined) {
    throw new TnblockError(
      "unsupported",
      `Cannot do "${request.method}": this tnblock has no such method`,
      {
        // Told from what the array does not support: nothing was looked at, let alone begun.
        field: "method",
        hint:
          "The shim and the binary may be of different versions: run tnblock version on this node",
      },
    );
  }
  parseStorageId(request.storage);
  const held: HeldEntry[] = [];
  try {
    const result = await inStorage(
      request,
      world,
      deadline,
      (storage) => method({ ...storage, hold: (entry) => void held.push(entry) }, request.args),
    );
    for (const entry of held) await entry.tell();
    return { result, held };
  } catch (error) {
    // The caller is told that it failed.
    for (const entry of held) entry.leave();
    throw error;
  }
}

async function inStorage<T>(
  request: HookRequest,
  world: HookWorld,
  deadline: Deadline,
  work: (storage: Storage) => Promise<T>,
): Promise<T> {
  const storage = await openStorage(request, world, deadline);
  try {
    return await work(storage);
  } finally {
    await storage.close();
  }
}
