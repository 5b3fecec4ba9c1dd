/** Answers the requests that come over the daemon's socket: one line asked, one answered, then closed. */
import { TnblockError } from "../common/error.ts";
import { aboutLog, type Log } from "../common/log.ts";
import type { LocalLine, LocalServer } from "../host/host.ts";
import { answer, type HookAnswer, type HookWorld } from "../pve/hook.ts";
import {
  failureLine,
  type HookRequest,
  parseRequest,
  REQUEST_LIMIT,
  successLine,
} from "../pve/request.ts";
import type { AnsweredRequest } from "./counters.ts";
import { isChanging, kindOf, type MethodKind } from "./methods.ts";
import { SaidLately, sparingLog } from "./sparing_log.ts";

/** Where the shim and `tnblock hook` find the daemon. */
export const DAEMON_SOCKET = "/run/tnblock/daemon.sock";

/** Connections at once: PVE's processes of a large node, many times over. */
const MAX_CONNECTIONS = 2_000;

/** A caller sends its line at once; one that does not is no caller. */
const LINE_MS = 10_000;

/** Longest request id that is written to the log. */
const MAX_ID = 40;

/** The daemon's socket, being served. */
export interface Serving {
  /** Requests under way, those past their deadline included. */
  underWay(): number;
  /** Resolves when nothing is under way, what was begun for callers that have gone included. */
  idle(): Promise<void>;
  /**
   * Ends the service: lets what changes something come to its end while reading goes on, then listens no
   * more, and resolves when the last request has ended, or after `ms`.
   */
  drain(ms: number): Promise<void>;
  close(): Promise<void>;
}

/** Makes the log of one request. */
export type RequestLog = (about: string, level: () => number) => Log;

/** What is under way. */
interface Work {
  readonly kind: MethodKind;
  /** A method of the daemon's own: counted nowhere. */
  readonly isOwn: boolean;
  readonly ended: Promise<void>;
}

/** How the socket is served; what is left out is right but for tests. */
export interface ServingOptions {
  /** The world's log with the request's name before each line unless given. */
  readonly requestLog?: RequestLog | undefined;
  readonly maxConnections?: number;
  /** Milliseconds that a caller may take to send its line, and between two reads of the answer. */
  readonly lineMs?: number;
  /** Told of each request that was answered. */
  readonly onAnswered?: (request: AnsweredRequest) => void;
  /** Methods of the daemon's own, which PVE does not know: they change nothing. */
  readonly own?: ReadonlyMap<string, () => Promise<unknown>>;
}

/** Serves the socket; each request is a hook's, in the daemon's world. */
export async function serve(world: HookWorld, options: ServingOptions = {}): Promise<Serving> {
  const log: RequestLog = options.requestLog ?? ((about) => aboutLog(world.log, about));
  const said = new SaidLately();
  const maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
  const underWay = new Set<Work>();
  let phase: "open" | "leaving" | "over" = "open";
  const server: LocalServer = await world.host.serveLocal(DAEMON_SOCKET, {
    mode: 0o600,
    maxLine: REQUEST_LIMIT,
    lineDeadlineMs: options.lineMs ?? LINE_MS,
    maxConnections,
    full: notTaken(`it has ${maxConnections} at once already`),
  }, (line) => {
    const head = headOf(line.text, options.own);
    // The next daemon takes it: who asks tries again, or does it by himself.
    if (phase === "over" || (phase === "leaving" && head.kind !== "reads")) {
      line.answer(notTaken("it is about to end"));
      return;
    }
    const about = (level: () => number) => {
      const own = log(head.about, level);
      return head.isPolled ? sparingLog(own, head.storage, said, world.host.now) : own;
    };
    const ended = one(line, head, world, about, options).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      about(() => 0).error(`what it began could not be ended: ${reason}`);
    }).finally(() => underWay.delete(work));
    const work = { kind: head.kind, isOwn: head.own !== undefined, ended };
    underWay.add(work);
  });
  const all = async (which: (kind: MethodKind) => boolean) => {
    for (;;) {
      const some = [...underWay].filter((work) => which(work.kind));
      if (some.length === 0) return;
      await Promise.allSettled(some.map((work) => work.ended));
    }
  };
  return {
    idle: () => all(() => true),
    underWay: () => [...underWay].filter(({ isOwn }) => !isOwn).length,
    drain: async (ms) => {
      phase = "leaving";
      const enough = new AbortController();
      const late = world.host.wait(ms, enough.signal).catch(() => {});
      await Promise.race([all((kind) => kind !== "reads"), late]);
      await server.stopListening();
      await Promise.race([all(() => true), late]);
      // A connection may be there whose line has not come yet.
      phase = "over";
      enough.abort();
    },
    close: () => server.close(),
  };
}

/** A line without id: nothing of the request was looked at. */
function notTaken(why: string): string {
  return failureLine(
    null,
    new TnblockError("busy", `Cannot take the request: the daemon takes no more, ${why}`),
  );
}

/** What is known of a request before it is answered. */
interface Head {
  readonly kind: MethodKind;
  /** Whether PVE asks it every 10 s of each storage. */
  readonly isPolled: boolean;
  readonly storage: string;
  /** What the lines of its log begin with: `7f3a alloc_image san`. */
  readonly about: string;
  readonly id: string | number | null;
  /** Undefined for what cannot be read. */
  readonly request: HookRequest | undefined;
  /** What answers a method of the daemon's own. */
  readonly own: (() => Promise<unknown>) | undefined;
}

function headOf(line: string | undefined, methods: ServingOptions["own"]): Head {
  const { id, request } = line === undefined ? { id: null } : parseRequest(line);
  const about = [String(id ?? "?").slice(0, MAX_ID), request?.method, request?.storage];
  const own = request === undefined ? undefined : methods?.get(request.method);
  // What cannot be read is answered, and changes nothing.
  const kind = request === undefined || own !== undefined ? "reads" : kindOf(request.method);
  return {
    kind,
    isPolled: kind === "reads" || request?.method === "activate_storage",
    storage: request?.storage ?? "",
    about: about.join(" ").replaceAll(/[^\x20-\x7e]/g, "?").trim(),
    id,
    request,
    own,
  };
}

/** Answers one line; resolves when nothing of it is under way any more. */
async function one(
  line: LocalLine,
  { kind, storage, id, request, own }: Head,
  world: HookWorld,
  requestLog: (level: () => number) => Log,
  { onAnswered }: ServingOptions,
): Promise<void> {
  // Whoever left before it was taken may be asking somebody else by now.
  if (!await line.take()) return;
  if (line.text === undefined) {
    const error = new TnblockError("invalid", "Cannot read the request: it is longer than 1 MiB");
    await line.answer(failureLine(null, error));
    return;
  }
  let level = 0;
  const log = requestLog(() => level);
  const setDebugLevel = (value: number) => {
    level = value;
    world.setDebugLevel(value);
  };
  const start = world.host.monotonicMs();
  const work = own === undefined
    ? answer(line.text, { ...world, log, setDebugLevel })
    : answerOwn(id, own);
  const leave = () => {
    log.info("the caller left before its answer");
    work.abandon();
  };
  line.gone.addEventListener("abort", leave, { once: true });
  const { text, ok } = await work.reply;
  line.gone.removeEventListener("abort", leave);
  const ms = world.host.monotonicMs() - start;
  const error = ok ? undefined : failureIn(text);
  const method = request?.method ?? "";
  if (own === undefined) {
    onAnswered?.({ method, storage, ms, ...(error === undefined ? {} : { error }) });
  }
  const outcome = error === undefined ? "done" : `failed: ${error.message} [${error.code}]`;
  if (isChanging(kind)) log.info(`${outcome} after ${Math.round(ms)} ms`);
  // Polled, too: the same words each time.
  else if (kind === "attaches" && !ok) log.info(outcome);
  await (await line.answer(text) ? work.delivered() : work.undelivered());
  await work.settled;
}

/** What a line of ours says that failed. */
function failureIn(text: string): NonNullable<AnsweredRequest["error"]> {
  const { error } = JSON.parse(text) as { error: NonNullable<AnsweredRequest["error"]> };
  return error;
}

function answerOwn(id: Head["id"], method: () => Promise<unknown>): HookAnswer {
  const nothing = () => Promise.resolve();
  const reply = method().then(
    (result) => ({ text: successLine(id, result), ok: true }),
    (error: unknown) => ({ text: failureLine(id, error), ok: false }),
  );
  return {
    reply,
    settled: nothing(),
    abandon: () => {},
    delivered: nothing,
    undelivered: nothing,
  };
}
