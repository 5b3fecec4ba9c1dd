/**
 * The doctor's sessions: one with each array, whatever the number of storages and checks, kept for as long as it
 * looks (and looks again). Logins are counted by the array; a write is refused here.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { ApiSettings } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import { openNodeSession } from "../pve/node_session.ts";
import type { Caller } from "../truenas/caller.ts";
import type { Session } from "../truenas/session.ts";

/** TCP, TLS and login together; TrueNAS takes 1 to 2 s to refuse a key. */
const CONNECT_MS = 15_000;

/** Sessions by array and key. */
export class ArraySessions {
  readonly #sessions = new Map<string, Promise<Session>>();

  /** @param limitLogins whether logins draw on the node's budget. */
  constructor(private readonly host: Host, private readonly limitLogins: boolean) {}

  /** The session with an array; one that failed or ended is tried again by who asks next. */
  async open(api: ApiSettings): Promise<Session> {
    const key = JSON.stringify(api);
    const known = this.#sessions.get(key);
    if (known !== undefined) {
      const session = await known.catch(() => undefined);
      if (session?.isOpen === true) return session;
    }
    if (this.#sessions.get(key) === known) {
      // `dialectFile`: the host writes none, so each doctor finds out by itself.
      const opening = openNodeSession(
        {
          host: this.host,
          limitLogins: this.limitLogins,
          dialectFile: "/run/tnblock/doctor.dialect",
        },
        api,
        { deadlineMs: CONNECT_MS },
      );
      opening.catch(() => {});
      this.#sessions.set(key, opening);
    }
    return await this.#sessions.get(key)!;
  }

  /** The session, or why there is none. */
  async tryOpen(api: ApiSettings): Promise<Session | TnblockError> {
    try {
      return await this.open(api);
    } catch (error) {
      return asTnblockError(error);
    }
  }

  async close(): Promise<void> {
    for (const opening of this.#sessions.values()) (await opening.catch(() => undefined))?.close();
    this.#sessions.clear();
  }
}

/** A session for those who only read. */
export function readOnlyCaller(session: Caller): Caller {
  const refuse = (method: string): Promise<never> =>
    Promise.reject(
      new TnblockError("internal", `Cannot call "${method}": the doctor changes nothing`),
    );
  return {
    release: session.release,
    call: (method, params, options) =>
      options?.lane === "read" ? session.call(method, params, options) : refuse(method),
    callJob: refuse,
  };
}
