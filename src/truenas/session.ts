/**
 * A session with one TrueNAS: found by its addresses, its dialect chosen, logged in, its release
 * known. Nothing is repeated here and nothing reconnects: whoever holds the session sees `closed`
 * and opens another one when it wants to.
 */
import * as v from "valibot";
import { type Endpoint, parseAddress } from "./address.ts";
import type { Caller, CallOptions } from "./caller.ts";
import type { WaitingClock } from "./clock.ts";
import { bestDialect, type Dialect, DIALECTS, parseRelease } from "./dialect.ts";
import { ArrayError } from "./errors.ts";
import { logIn } from "./login.ts";
import { OpenSession } from "./open_session.ts";
import { checked } from "./request.ts";
import { Rpc } from "./rpc.ts";
import { openSocket, type Trust } from "./socket.ts";
import { UnknownPathError } from "./socket_errors.ts";

/** What is needed to open a session. */
export interface SessionOptions {
  /** One or two: the second is tried when the first cannot be reached. See `parseAddress`. */
  readonly addresses: readonly string[];
  /** For addresses that name none; default 443. */
  readonly port?: number;
  /** The API key's user; see `login.ts` for what happens without. */
  readonly user?: string;
  readonly apiKey: string;
  /** Default: verified by the system's authorities. */
  readonly trust?: Trust;
  /** Milliseconds for TCP, TLS and the upgrade, for each attempt; default 10 s. */
  readonly connectDeadlineMs?: number;
  /**
   * Milliseconds for the answer to the login; default 25 s: TrueNAS takes 1 to 2 s to refuse a key and
   * up to 10 s to say that there were too many logins.
   */
  readonly loginDeadlineMs?: number;
  /** Draws one login from the node's budget; what it throws is what the caller gets. */
  readonly loginBudget?: () => Promise<void>;
  /** The dialect of the last session with this array: saves a refused upgrade. */
  readonly dialect?: Dialect;
  readonly clock: WaitingClock;
  readonly signal?: AbortSignal;
  /** Milliseconds between pings; default 25 s. */
  readonly pingEveryMs?: number;
  /** Calls that may wait for a place; default 256, which is enough for one request. */
  readonly maxQueued?: number;
}

/** A change that the array tells of (`collection_update`). */
export interface ArrayEvent {
  /** `added`, `changed`, `removed`; `unsubscribed` when the array ended the subscription. */
  readonly kind: string;
  /** E.g. `pool.dataset.query`. */
  readonly collection: string;
  readonly id: string | number | undefined;
  readonly fields: unknown;
}

/** A session. */
export interface Session extends Caller {
  /** Where it is connected to, e.g. `nas.example:443`. */
  readonly address: string;
  /** Whether it takes calls. */
  readonly isOpen: boolean;
  /** Resolves, with the reason, when the connection has ended. */
  readonly closed: Promise<ArrayError>;
  /**
   * When the array last said anything over the connection, be it a pong, by the session's monotonic clock:
   * until then its events have come. Undefined where there is no lasting connection (REST).
   */
  readonly heardMs?: number | undefined;
  /**
   * Tells of the changes of a collection until the returned function is called. Events may come
   * before or after the answer of the call that caused them; after a reconnect nothing is replayed.
   */
  subscribe(
    collection: string,
    listener: (event: ArrayEvent) => void,
    options?: CallOptions,
  ): Promise<() => Promise<void>>;
  /** Says goodbye; calls that were sent have the outcome `unknown`. */
  close(): void;
}

const DEFAULT_PORT = 443;
const CONNECT_DEADLINE_MS = 10_000;
const LOGIN_DEADLINE_MS = 25_000;

/**
 * Opens a session: one connection and one login.
 *
 * @throws ArrayError `config`, `unreachable`, `tls`, `auth`, `denied`, `rate-limited`, `unsupported`
 *   (release or login method), or what `loginBudget` throws. The API key is in none of them.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  if (options.addresses.length === 0) {
    throw configError("no address is configured (tnb-api-host)");
  }
  if (!/^[\x21-\x7e]{1,1000}$/.test(options.apiKey)) {
    throw configError("the API key is empty or holds blanks (tnb-api-key)");
  }
  const endpoints = options.addresses.map((address) =>
    parseAddress(address, options.port ?? DEFAULT_PORT)
  );
  const failures: ArrayError[] = [];
  for (const endpoint of endpoints) {
    try {
      return await openAt(endpoint, options, true);
    } catch (error) {
      if (!(error instanceof ArrayError) || error.code !== "unreachable") throw error;
      failures.push(error);
    }
  }
  throw failures.length === 1 && failures[0] !== undefined ? failures[0] : new ArrayError(
    "unreachable",
    `Cannot connect to TrueNAS: ${
      failures.map((error, index) =>
        `"${endpoints[index]?.text}": ${error.reason ?? error.message}`
      ).join("; ")
    }`,
    { outcome: "not-sent", cause: failures[0] },
  );
}

function configError(what: string): ArrayError {
  return new ArrayError("config", `Cannot log in to TrueNAS: ${what}`, { outcome: "not-sent" });
}

/** Opens a session at one address; follows one redirect to the other controller of an HA pair. */
async function openAt(
  endpoint: Endpoint,
  options: SessionOptions,
  mayRedirect: boolean,
): Promise<Session> {
  const { rpc, dialect } = await connect(endpoint, options);
  try {
    await options.loginBudget?.();
    // Needs no login and is not counted: sent along, it costs no time.
    const optionsSet = dialect === "current" ? undefined : rpc.call(
      "core.set_options",
      [{ legacy_jobs: false }],
      { doing: "Cannot log in to TrueNAS" },
    );
    const [urls] = await Promise.all([
      logIn(rpc, credentialsOf(options), {
        deadlineMs: options.loginDeadlineMs ?? LOGIN_DEADLINE_MS,
        ...(options.signal ? { signal: options.signal } : {}),
      }),
      optionsSet,
    ]);
    if (urls !== undefined) {
      rpc.close();
      const next = urls[0];
      if (!mayRedirect || next === undefined) {
        throw new ArrayError(
          "unreachable",
          `Cannot log in to TrueNAS: "${endpoint.text}" is not the active controller`,
          { outcome: "answered" },
        );
      }
      return await openAt(parseAddress(next, endpoint.port), options, false);
    }
    rpc.setAuthenticated();
    const request = {
      method: "system.version",
      params: [],
      doing: "Cannot read the release of TrueNAS",
    };
    const version = await rpc.call(request.method, request.params, {
      doing: request.doing,
      ...(options.signal ? { signal: options.signal } : {}),
    });
    const release = parseRelease(checked(v.string(), version, request), dialect);
    if (options.dialect === dialect && bestDialect(release) !== dialect) {
      // The array was updated since that dialect was remembered.
      rpc.close();
      const { dialect: _, ...fresh } = options;
      return await openAt(endpoint, fresh, mayRedirect);
    }
    if (release.can.jobResults && optionsSet === undefined) {
      await rpc.call("core.set_options", [{ legacy_jobs: false }]);
    }
    return new OpenSession(rpc, endpoint, release, options.clock);
  } catch (error) {
    rpc.close();
    throw error;
  }
}

function credentialsOf(options: SessionOptions): { user?: string; apiKey: string } {
  return options.user === undefined || options.user === ""
    ? { apiKey: options.apiKey }
    : { user: options.user, apiKey: options.apiKey };
}

/** Connects with the newest dialect that the server knows. */
async function connect(
  endpoint: Endpoint,
  options: SessionOptions,
): Promise<{ rpc: Rpc; dialect: Dialect }> {
  const { clock, signal, pingEveryMs, maxQueued } = options;
  const first = options.dialect;
  const order = first === undefined
    ? DIALECTS
    : [first, ...DIALECTS.filter((dialect) => dialect !== first)];
  let refusal: unknown;
  for (const dialect of order) {
    try {
      const socket = await openSocket({
        endpoint,
        path: `/api/${dialect}`,
        trust: options.trust ?? { kind: "verified" },
        deadlineMs: options.connectDeadlineMs ?? CONNECT_DEADLINE_MS,
        clock,
        ...(signal ? { signal } : {}),
      });
      const rpc = new Rpc(socket, {
        clock,
        ...(pingEveryMs === undefined ? {} : { pingEveryMs }),
        ...(maxQueued === undefined ? {} : { maxQueued }),
      });
      return { rpc, dialect };
    } catch (error) {
      if (!(error instanceof UnknownPathError)) throw error;
      refusal = error;
    }
  }
  throw refusal;
}
