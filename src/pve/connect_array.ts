/**
 * The array for the length of one request: one login at the first call (none over REST, where each call
 * brings the key), reads that are tried again on a new session when the connection is lost, writes that
 * never are.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { ApiSettings, TlsTrust } from "../common/storage_settings.ts";
import type { Bounds, Host } from "../host/host.ts";
import type { Caller, CallOptions } from "../truenas/caller.ts";
import { bestDialect, type Dialect, DIALECTS } from "../truenas/dialect.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import { openRestSession } from "../truenas/rest_session.ts";
import { openSession, type Session, type SessionOptions } from "../truenas/session.ts";
import type { Trust } from "../truenas/socket.ts";
import { distrustFeatures, noteFeatures } from "./features.ts";
import type { HookWorld } from "./hook.ts";
import { drawLogin } from "./login_budget.ts";

/** The connection of one request. */
export interface ArrayConnection {
  /** The array; connects and logs in when that has not been done, or the connection was lost. */
  open(): Promise<Caller>;
  /** From now on connecting and trying again go by this deadline: what was begun is undone or finished. */
  useDeadline(deadline: Deadline): void;
  close(): Promise<void>;
}

/** Longest time for TCP, TLS and login together; TrueNAS takes 1 to 2 s to refuse a key. */
const CONNECT_MS = 15_000;

/** Prepares a connection; nothing is sent before {@link ArrayConnection.open}. */
export function connectArray(
  storage: string,
  api: ApiSettings,
  world: Pick<HookWorld, "host" | "log" | "limitLogins" | "onArrayCall">,
  callersDeadline: Deadline,
): ArrayConnection {
  const { host, log } = world;
  const notes = { host, log, storage, api };
  let opening: Promise<Session> | undefined;
  let closed = false;
  let deadline = callersDeadline;

  const overWebSocket = async (options: SessionOptions, bounds: Bounds): Promise<Session> => {
    const memory = `/run/tnblock/${storage}.dialect`;
    const remembered = dialectOf(await host.files.readText(memory));
    const session = await openSession({
      ...options,
      loginBudget: () =>
        world.limitLogins
          ? drawLogin(host, `${api.hosts[0]}:${api.port}`, bounds)
          : Promise.resolve(),
      ...(remembered === undefined ? {} : { dialect: remembered }),
    });
    // Asking for a dialect that the array does not know costs a connection: remember the right one.
    const best = bestDialect(session.release);
    if (best !== remembered) await host.files.replaceText(memory, `${best}\n`, 0o600);
    return session;
  };

  const connect = async (): Promise<Session> => {
    const bounds = deadline.bounds(CONNECT_MS);
    const options: SessionOptions = {
      addresses: api.hosts,
      port: api.port,
      apiKey: api.key,
      ...(api.user === undefined ? {} : { user: api.user }),
      trust: await trustOf(host, api.tls),
      connectDeadlineMs: bounds.deadlineMs,
      signal: bounds.signal,
      clock: host,
    };
    // TrueNAS does not count calls over REST as logins: the node's budget is left alone.
    return api.transport === "rest"
      ? await openRestSession({ ...options, loginDeadlineMs: bounds.deadlineMs })
      : await overWebSocket(options, bounds);
  };

  const connectAndNote = async (): Promise<Session> => {
    const session = await connect();
    await noteFeatures(notes, session, deadline.bounds(CONNECT_MS));
    return session;
  };

  const session = async (): Promise<Session> => {
    if (closed) throw new TnblockError("internal", "Cannot call the array: the request is over");
    const known = opening;
    const current = await known?.catch(() => undefined);
    // Of several calls that find it lost, the first opens another one for all.
    if (current?.isOpen !== true && opening === known) opening = connectAndNote();
    return await (opening ??= connectAndNote());
  };

  const timed = async (method: string, work: () => Promise<unknown>): Promise<unknown> => {
    const start = host.monotonicMs();
    let done = false;
    try {
      const result = await work();
      done = true;
      return result;
    } finally {
      world.onArrayCall?.({ method, ms: host.monotonicMs() - start, done });
    }
  };

  const call = async (
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> => {
    for (let attempt = 0;; attempt++) {
      try {
        const open = await session();
        return await timed(method, () => open.call(method, params, options));
      } catch (error) {
        const code = arrayErrorIn(error)?.code;
        if (code === "denied") await distrustFeatures(notes);
        const lost = code === "unreachable";
        if (closed || options.lane !== "read" || !lost || attempt >= api.retryMax) throw error;
        const pause = api.retryDelayMs * 2 ** attempt;
        if (pause >= deadline.leftMs()) throw error;
        log.info(`the connection to the array was lost; asking again in ${pause} ms`);
        await host.wait(pause, deadline.signal);
      }
    }
  };

  return {
    open: async () => {
      const first = await session();
      return {
        release: first.release,
        call,
        callJob: async (method, params, options) => {
          const open = await session();
          return await timed(method, () => open.callJob(method, params, options));
        },
      };
    },
    useDeadline: (next) => {
      deadline = next;
    },
    close: async () => {
      closed = true;
      (await opening?.catch(() => undefined))?.close();
    },
  };
}

function dialectOf(text: string | undefined): Dialect | undefined {
  return DIALECTS.find((dialect) => dialect === text?.trim());
}

async function trustOf(host: Host, tls: TlsTrust): Promise<Trust> {
  if (tls.kind !== "ca") return tls;
  const pem = await host.files.readText(tls.file);
  if (pem?.includes("-----BEGIN CERTIFICATE-----") === true) return { kind: "ca", pem };
  if (pem !== undefined) {
    throw new TnblockError(
      "config",
      `Cannot read the certificate authority: ${tls.file} holds no PEM certificate`,
      { field: "tnb-tls-ca" },
    );
  }
  throw new TnblockError(
    "config",
    `Cannot read the certificate authority: there is no ${tls.file}`,
    { field: "tnb-tls-ca" },
  );
}
