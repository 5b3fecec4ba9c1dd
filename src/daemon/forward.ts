/**
 * Asks the daemon to do a request, for `tnblock hook`. What the shim does on its own side in Perl is the same:
 * who has not been told that his request was taken does it himself; who has, and then hears nothing, asks again
 * where that is harmless.
 */
import { TnblockError } from "../common/error.ts";
import { type Bounds, type Host, HostError } from "../host/host.ts";
import { failureLine, type HookRequest, parseRequest } from "../pve/request.ts";
import { isRepeatable, kindOf } from "./methods.ts";
import { DAEMON_SOCKET } from "./serve.ts";

/** Longest time until a daemon that works has taken a request. */
const TAKE_MS = 5_000;

/** The daemon answers at the deadline by itself; it is given up this much later. */
const GRACE_MS = 2_000;

/** Longest answer in bytes: some 400,000 volumes. */
const MAX_ANSWER = 64 * 1024 * 1024;

/** Pause before a daemon that takes no more is asked again, in ms. */
const BUSY_PAUSE_MS = 100;

/** How a request is forwarded. */
export interface ForwardOptions {
  /** Aborted when the process is told to end. */
  readonly signal: AbortSignal;
  /** Gives the answer to whoever asked; false when nobody is there. */
  readonly deliver: (text: string) => Promise<boolean>;
}

/** What came of it. */
export type Forwarded =
  /** It was answered, and the answer delivered. */
  | { readonly kind: "answered"; readonly ok: boolean }
  /** It failed on the way; this line is the answer. */
  | { readonly kind: "failed"; readonly text: string }
  /** It is to be done here: this line, which has the time that is left. */
  | { readonly kind: "here"; readonly line: string };

/** Forwards a request line. Never rejects. */
export async function forward(
  line: string,
  host: Host,
  options: ForwardOptions,
): Promise<Forwarded> {
  const { id, request } = parseRequest(line);
  if (request === undefined) return { kind: "here", line };
  const start = host.monotonicMs();
  const left = () => Math.max(1, Math.floor(request.deadlineMs - (host.monotonicMs() - start)));
  const here = (): Forwarded => ({ kind: "here", line: withDeadline(line, left()) });
  const takeUntil = start + Math.min(TAKE_MS, request.deadlineMs / 2);
  for (;;) {
    const takenMs = takeUntil - host.monotonicMs();
    if (takenMs <= 0) return here();
    const bounds = { deadlineMs: left() + GRACE_MS, signal: options.signal };
    const fate = await askOnce(line, request, host, { ...bounds, takenMs }, options.deliver);
    switch (fate.kind) {
      case "answered":
        return fate;
      case "absent":
        return { kind: "here", line };
      case "unable":
        return here();
      case "busy":
        await host.wait(BUSY_PAUSE_MS, options.signal).catch(() => {});
        break;
      case "lost":
        if (fate.mayRepeat && !options.signal.aborted && isRepeatable(kindOf(request.method))) {
          return here();
        }
        return { kind: "failed", text: failureLine(id, lostError(request, fate.why)) };
      case "refused":
        return { kind: "failed", text: failureLine(id, fate.error) };
    }
  }
}

/** What came of asking once. */
type Fate =
  | { readonly kind: "answered"; readonly ok: boolean }
  /** Nobody serves the socket. */
  | { readonly kind: "absent" }
  /** Not taken: it works to its limit, or ends, and the next one may be there in a moment. */
  | { readonly kind: "busy" }
  /** Nothing was begun: it stands still, or is of another version and does not know the method. */
  | { readonly kind: "unable" }
  /** Taken, and then no answer that could be used; no repeating once the deadline has passed. */
  | { readonly kind: "lost"; readonly why: string; readonly mayRepeat: boolean }
  | { readonly kind: "refused"; readonly error: TnblockError };

/** What an error means before the request was taken. */
const UNTAKEN: Readonly<Record<string, "unable" | "busy">> = {
  ETIMEDOUT: "unable",
  ECONNRESET: "busy",
  EPIPE: "busy",
};

async function askOnce(
  line: string,
  request: HookRequest,
  host: Host,
  bounds: Bounds & { readonly takenMs: number },
  deliver: (text: string) => Promise<boolean>,
): Promise<Fate> {
  let isTaken = false;
  let fate: Fate = { kind: "lost", why: "its answer is none", mayRepeat: true };
  try {
    await host.askLocal(DAEMON_SOCKET, line, {
      ...bounds,
      maxLine: MAX_ANSWER,
      onTaken: () => isTaken = true,
      passOn: async (text) => {
        fate = readAnswer(text, request.id);
        return fate.kind === "answered" ? await deliver(`${text}\n`) : true;
      },
    });
    return fate;
  } catch (error) {
    if (!(error instanceof HostError)) {
      return { kind: "lost", why: "this process was told to end", mayRepeat: false };
    }
    if (error.code === "EPERM") {
      return { kind: "refused", error: new TnblockError("host-fault", error.message) };
    }
    if (!isTaken) return { kind: UNTAKEN[error.code] ?? "absent" };
    return error.code === "ETIMEDOUT"
      ? { kind: "lost", why: "it gave no answer in time", mayRepeat: false }
      : { kind: "lost", why: "it went away", mayRepeat: true };
  }
}

/** What an answer line says about the request's fate. */
export function readAnswer(text: string, id: HookRequest["id"]): Fate {
  // As our own daemon writes it; a list of thousands is not read twice.
  const head = `{"id":${JSON.stringify(id)},"ok":true,`;
  if (text.startsWith(head) && text.endsWith("}")) return { kind: "answered", ok: true };
  let answer: { id?: unknown; ok?: unknown; error?: { code?: unknown; field?: unknown } | null };
  try {
    answer = JSON.parse(text);
  } catch {
    return { kind: "lost", why: "its answer is none", mayRepeat: true };
  }
  const isObject = typeof answer === "object" && answer !== null;
  const { code, field } = (isObject ? answer.error : undefined) ?? {};
  if (isObject && answer.id === null && code === "busy") return { kind: "busy" };
  if (!isObject || answer.id !== id || typeof answer.ok !== "boolean") {
    return { kind: "lost", why: "its answer is one to another request", mayRepeat: true };
  }
  if (code === "unsupported" && (field === "method" || field === "protocol")) {
    return { kind: "unable" };
  }
  return { kind: "answered", ok: answer.ok };
}

/** What a caller is told whose request was taken and never answered. */
function lostError(request: HookRequest, why: string): TnblockError {
  const kind = kindOf(request.method);
  const then = kind === "undone"
    ? "; what it made is taken back"
    : kind === "finished"
    ? "; what it began is finished"
    : "";
  return new TnblockError(
    "host-fault",
    `Cannot finish ${request.method} on storage "${request.storage}": ` +
      `the tnblock daemon was at it, and ${why}${then}`,
    { hint: "Look at journalctl -u tnblock" },
  );
}

/** The same request with another deadline. */
function withDeadline(line: string, deadlineMs: number): string {
  return JSON.stringify({ ...JSON.parse(line), deadlineMs });
}
