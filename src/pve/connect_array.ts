/**
 * The array for the length of one request: one login at the first call, reads that are tried again on
 * a new session when the connection is lost, writes that never are.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { ApiSettings, TlsTrust } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import type { Caller, CallOptions } from "../truenas/caller.ts";
import { bestDialect, type Dialect, DIALECTS } from "../truenas/dialect.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import { openSession, type Session } from "../truenas/session.ts";
import type { Trust } from "../truenas/socket.ts";
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
  let opening: Promise<Session> | undefined;
  let closed = false;
  let deadline = callersDeadline;

  const connect = async (): Promise<Session> => {
    const bounds = deadline.bounds(CONNECT_MS);
    const memory = `/run/tnblock/${storage}.dialect`;
    const remembered = dialectOf(await host.files.readText(memory));
    const session = await openSession({
      addresses: api.hosts,
      port: api.port,
      apiKey: api.key,
      ...(api.user === undefined ? {} : { user: api.user }),
      trust: await trustOf(host, api.tls),
      connectDeadlineMs: bounds.deadlineMs,
      signal: bounds.signal,
      clock: host,
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

  const session = async (): Promise<Session> => {
    if (closed) throw new TnblockError("internal", "Cannot call the array: the request is over");
    const current = await opening?.catch(() => undefined);
    if (current?.isOpen !== true) opening = connect();
    return await (opening ??= connect());
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
        const lost = arrayErrorIn(error)?.code === "unreachable";
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
