/**
 * Answers one request of the shim: reads the storage's settings, runs the verb, and puts its result
 * into the protocol's words. What each method does is in `methods/`.
 */
import { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import type { Storage } from "../volumes/storage.ts";
import type { StorageMemory } from "../volumes/memory.ts";
import type { StorageUpkeep } from "../volumes/upkeep.ts";
import type { SharedSessions } from "./connect_array.ts";
import { Revocable } from "./methods/method.ts";
import { METHODS } from "./methods/methods.ts";
import { PURE_METHODS } from "./methods/pure.ts";
import { type OpenStorage, openStorage } from "./open_storage.ts";
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
  /** To be called when nobody could be given the reply: what was made for the caller is taken back. */
  undelivered(): Promise<void>;
}

/** What a request came to. */
interface Outcome {
  readonly text: string;
  readonly ok: boolean;
  readonly takeBack: () => Promise<void>;
}

/** Time for taking back what nobody wants any more: longer than any reload. */
const TAKE_BACK_MS = 150_000;

/** Answers one request line. Never rejects: every failure becomes a reply. */
export function answer(line: string, world: HookWorld): HookAnswer {
  const { id, request, error } = parseRequest(line);
  if (request === undefined) {
    return {
      reply: Promise.resolve({ text: failureLine(id, error), ok: false }),
      settled: Promise.resolve(),
      abandon: () => {},
      undelivered: () => Promise.resolve(),
    };
  }
  const deadline = new Deadline(world.host, request.deadlineMs);
  const nothing = () => Promise.resolve();
  const work: Promise<Outcome> = perform(request, world, deadline).then(
    (result) =>
      result instanceof Revocable
        ? {
          text: successLine(id, result.result),
          ok: true,
          takeBack: revoker(result, request, world),
        }
        : { text: successLine(id, result), ok: true, takeBack: nothing },
    (failure: unknown) => ({ text: failureLine(id, failure), ok: false, takeBack: nothing }),
  );
  const finished = new AbortController();
  let isLate = false;
  const late = world.host.wait(request.deadlineMs, finished.signal).then(
    () => {
      const timeout = tooLate(request, deadline);
      isLate = true;
      deadline.expire(timeout);
      return { text: failureLine(id, timeout), ok: false };
    },
    // The work was done first.
    () => work,
  );
  const settled = work.then(async ({ takeBack }) => {
    finished.abort();
    // It was done after all, a moment after the caller was told that it was not.
    if (isLate) await takeBack();
  });
  return {
    reply: Promise.race([work, late]),
    settled,
    abandon: () =>
      deadline.expire(
        new TnblockError("timeout", `Cannot finish ${request.method}: tnblock was told to end`),
      ),
    undelivered: async () => await (await work).takeBack(),
  };
}

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

/** Takes a result back in a storage opened anew: the request's own is closed by then. */
function revoker(made: Revocable, request: HookRequest, world: HookWorld): () => Promise<void> {
  return async () => {
    let storage: OpenStorage | undefined;
    try {
      storage = await openStorage(request, world, new Deadline(world.host, TAKE_BACK_MS));
      await made.takeBack(storage);
      world.log.info(`took back what ${request.method} made: nobody was there for the answer`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      world.log.warning(`could not take back what ${request.method} made: ${reason}`);
    } finally {
      await storage?.close();
    }
  };
}

async function perform(
  request: HookRequest,
  world: HookWorld,
  deadline: Deadline,
): Promise<unknown> {
  const pure = Object.hasOwn(PURE_METHODS, request.method)
    ? PURE_METHODS[request.method]
    : undefined;
  if (pure !== undefined) {
    return pure(parseStorageId(request.storage), request.args, request.config);
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
  const storage = await openStorage(request, world, deadline);
  try {
    return await method(storage, request.args);
  } finally {
    await storage.close();
  }
}
