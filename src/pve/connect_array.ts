/**
 * The array for the length of one request: one login at the first call (none over REST, where each call
 * brings the key), reads that are tried again on a new session when the connection is lost, writes that
 * never are.
 */
import { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { ApiSettings } from "../common/storage_settings.ts";
import type { Caller, CallOptions } from "../truenas/caller.ts";
import type { Release } from "../truenas/dialect.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import { refuseOtherRelease } from "../truenas/release_changed.ts";
import type { Session } from "../truenas/session.ts";
import { distrustFeatures, noteFeatures } from "./features.ts";
import type { HookWorld } from "./hook.ts";
import { openNodeSession } from "./node_session.ts";

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

/** What goes on whatever its caller does waits this long for a session and its turn: longer than any reload. */
const GOES_ON_MS = 150_000;

/** Who is told of the writes of a request. */
export interface WriteWatch {
  /** Told the parameters of each write before it is sent. */
  readonly onSend?: (params: readonly unknown[]) => void;
  /** Told when the outcome of a write is unknown: the array may be at it still. */
  readonly onUnknown?: () => void;
}

/** Sessions that are shared by all requests of a process. */
export interface SharedSessions {
  /** The session with an array; opens one when there is none. The deadline bounds the wait alone. */
  session(api: ApiSettings, deadline: Deadline): Promise<Session>;
  /** Why the array is known not to answer, found out in no more than a moment; undefined while it may answer. */
  away?(api: ApiSettings): Promise<TnblockError | undefined>;
}

/**
 * Prepares a connection; nothing is sent before {@link ArrayConnection.open}.
 */
export function connectArray(
  storage: string,
  api: ApiSettings,
  world: Pick<HookWorld, "host" | "log" | "limitLogins" | "onArrayCall" | "sessions">,
  callersDeadline: Deadline,
  writes: WriteWatch = {},
): ArrayConnection {
  const { host, log } = world;
  const notes = { host, log, storage, api };
  let opening: Promise<Session> | undefined;
  let closed = false;
  let deadline = callersDeadline;

  /** What bounds the wait for a session, and for a write's turn. */
  const patience = (): Deadline =>
    deadline.goingOn === undefined && deadline.leftMs() > 0
      ? deadline
      : new Deadline(host, GOES_ON_MS);

  const connectAndNote = async (): Promise<Session> => {
    const session = world.sessions === undefined
      ? await openNodeSession(
        { host, limitLogins: world.limitLogins, dialectFile: `/run/tnblock/${storage}.dialect` },
        api,
        deadline.bounds(CONNECT_MS),
      )
      : await world.sessions.session(api, patience());
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

  /** The session, if it is with the release that the call was decided for; bounds what the caller did not. */
  const ready = async (
    decidedFor: Release,
    method: string,
    params: readonly unknown[],
    options: CallOptions,
  ) => {
    const open = await session();
    const { doing } = options;
    refuseOtherRelease(
      decidedFor,
      open.release,
      doing === undefined ? { method } : { method, doing },
    );
    if (options.lane !== "write") return { open, bound: options };
    writes.onSend?.(params);
    return { open, bound: { ...options, sendBy: patience().bounds(), owner: storage } };
  };

  /** Does a call; tells of a write that nobody knows the outcome of. */
  const watched = async (
    method: string,
    options: CallOptions,
    work: () => Promise<unknown>,
  ): Promise<unknown> => {
    try {
      return await timed(method, work);
    } catch (error) {
      if (options.lane === "write" && isUnknownOutcome(error)) writes.onUnknown?.();
      throw error;
    }
  };

  const call = async (
    decidedFor: Release,
    method: string,
    params: readonly unknown[],
    options: CallOptions = {},
  ): Promise<unknown> => {
    for (let attempt = 0;; attempt++) {
      let wasOpen = false;
      try {
        const { open, bound } = await ready(decidedFor, method, params, options);
        wasOpen = true;
        return await watched(method, options, () => open.call(method, params, bound));
      } catch (error) {
        const code = arrayErrorIn(error)?.code;
        if (code === "denied") await distrustFeatures(notes);
        const lost = code === "unreachable";
        if (closed || options.lane !== "read" || !lost || attempt >= api.retryMax) throw error;
        // A shared session is opened again at its own pace: it knows when trying makes sense.
        if (world.sessions !== undefined) {
          if (!wasOpen) throw error;
          continue;
        }
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
        call: (method, params, options) => call(first.release, method, params, options),
        callJob: async (method, params, options = {}) => {
          const { open, bound } = await ready(first.release, method, params, options);
          return await watched(method, options, () => open.callJob(method, params, bound));
        },
      };
    },
    useDeadline: (next) => {
      deadline = next;
    },
    close: async () => {
      closed = true;
      // The daemon's session is everybody's.
      if (world.sessions !== undefined) return;
      (await opening?.catch(() => undefined))?.close();
    },
  };
}
