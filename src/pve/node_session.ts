/** A session of this node with an array: trust read, dialect remembered, login drawn from the node's budget. */
import { TnblockError } from "../common/error.ts";
import type { ApiSettings, TlsTrust } from "../common/storage_settings.ts";
import type { Bounds, Host } from "../host/host.ts";
import { bestDialect, type Dialect, DIALECTS } from "../truenas/dialect.ts";
import { ArrayError } from "../truenas/errors.ts";
import { readBootId } from "../truenas/boot_id.ts";
import { openRestSession } from "../truenas/rest_session.ts";
import { openSession, type Session, type SessionOptions } from "../truenas/session.ts";
import type { Trust } from "../truenas/socket.ts";
import { drawLogin, noteLockOut, requireLogin } from "./login_budget.ts";

/** What opening a session needs of the node. */
export interface SessionPlace {
  readonly host: Host;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** Path of the file that keeps the dialect of the last session. */
  readonly dialectFile: string;
  /** Told of each login right before it is made. */
  readonly onLogin?: () => void;
  /** Calls that may wait for a place on the session; see `SessionOptions`. */
  readonly maxQueued?: number;
}

/** With a second address to try, one that does not answer at all may not take the whole time. */
const EACH_ADDRESS_MS = 5_000;

/**
 * Connects and logs in.
 *
 * @param preferred the configured address that is tried first.
 * @throws ArrayError as `openSession` does; TnblockError `config` without a usable certificate authority,
 *   `rate-limited` when the node's budget is used up.
 */
export async function openNodeSession(
  place: SessionPlace,
  api: ApiSettings,
  bounds: Bounds,
  preferred: string | undefined = undefined,
): Promise<Session> {
  const { host } = place;
  const others = api.hosts.filter((address) => address !== preferred);
  const addresses = others.length < api.hosts.length && preferred !== undefined
    ? [preferred, ...others]
    : api.hosts;
  const options: SessionOptions = {
    addresses,
    port: api.port,
    apiKey: api.key,
    ...(api.user === undefined ? {} : { user: api.user }),
    trust: await trustOf(host, api.tls),
    connectDeadlineMs: addresses.length > 1
      ? Math.min(EACH_ADDRESS_MS, bounds.deadlineMs)
      : bounds.deadlineMs,
    ...(bounds.signal === undefined ? {} : { signal: bounds.signal }),
    clock: host,
    ...(place.maxQueued === undefined ? {} : { maxQueued: place.maxQueued }),
  };
  // TrueNAS does not count calls over REST as logins: the node's budget is left alone.
  if (api.transport === "rest") {
    return await openRestSession({ ...options, loginDeadlineMs: bounds.deadlineMs });
  }
  const array = `${api.hosts[0]}:${api.port}`;
  // Drawn when the array has been reached; without one left it is not even connected to.
  if (place.limitLogins) await requireLogin(host, array);
  const remembered = dialectOf(await host.files.readText(place.dialectFile));
  const session = await openSession({
    ...options,
    loginBudget: async () => {
      if (place.limitLogins) await drawLogin(host, array, bounds);
      place.onLogin?.();
    },
    ...(remembered === undefined ? {} : { dialect: remembered }),
  }).catch(async (error: unknown) => {
    const isLockedOut = error instanceof ArrayError && error.code === "rate-limited";
    if (isLockedOut && place.limitLogins) await noteLockOut(host, array, bounds).catch(() => {});
    throw error;
  });
  // Asking for a dialect that the array does not know costs a connection: remember the right one.
  const best = bestDialect(session.release);
  if (best !== remembered) await host.files.replaceText(place.dialectFile, `${best}\n`, 0o600);
  return session;
}

/** The boot id of the array that a session is with; undefined when it cannot be had. Never rejects. */
export async function readNodeBootId(
  host: Host,
  api: ApiSettings,
  address: string,
  deadlineMs: number,
): Promise<string | undefined> {
  const trust = await trustOf(host, api.tls).catch(() => undefined);
  if (trust === undefined) return undefined;
  return await readBootId({ address, trust, clock: host, deadlineMs });
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
