/** All links of the node: one for each array and key, whatever the number of storages on it. */
import { createHash } from "node:crypto";
import { Deadline } from "../common/deadline.ts";
import type { TnblockError } from "../common/error.ts";
import type { ApiSettings } from "../common/storage_settings.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import type { SharedSessions } from "../pve/connect_array.ts";
import { LoginsUsedUp } from "../pve/login_budget.ts";
import { openNodeSession, readNodeBootId } from "../pve/node_session.ts";
import { parseAddress } from "../truenas/address.ts";
import type { Session } from "../truenas/session.ts";
import { ArrayLink } from "./link.ts";
import type { LinkDriver } from "./link_driver.ts";
import { LINK_TIMES, type LinkState, type LinkTimes, whyAway } from "./link_state.ts";

export type { ArrayLink } from "./link.ts";
export type { LinkState } from "./link_state.ts";

/** Milliseconds for TCP and TLS; the login has its own time. */
const CONNECT_MS = 10_000;
/** The boot id is worth no more: without it everything is read again. */
const BOOT_ID_MS = 5_000;
/** An API that does not answer a question about ourselves for so long is not well. */
const ASK_MS = 15_000;
/** An array that was away is tried for the sake of a guest's start no more often than this ... */
const TRY_AGAIN_MS = 10_000;
/** ... and is waited for no longer: a session takes 1 to 2 s at worst where all is well, mostly a few ms. */
const MOMENT_MS = 2_000;
/** Calls that may wait on one session: those of as many requests as the daemon's socket takes. */
const MAX_QUEUED = 8_192;
/** Numbers for the jitter. */
const RANDOM = 1_000_000;

/** What the links work with. */
export interface LinkPlace {
  readonly host: Host;
  readonly log: Log;
  readonly limitLogins: boolean;
  /** For tests. */
  readonly times?: Partial<LinkTimes>;
}

/** All links of the node. */
export class ArrayLinks implements SharedSessions {
  readonly #links = new Map<string, ArrayLink>();
  /** When the authority's file that a link last failed with was written. */
  readonly #authorities = new WeakMap<ArrayLink, number>();

  /** When a link that was away was last tried for the sake of somebody who can do without. */
  readonly #tried = new WeakMap<ArrayLink, number>();

  constructor(readonly place: LinkPlace) {}

  async session(api: ApiSettings, deadline: Deadline): Promise<Session> {
    const link = this.link(api);
    if (await this.#isTrustChanged(link, api)) link.retryNow();
    return await link.session(deadline);
  }

  /**
   * Why the array is known not to answer: there has been no session for longer than a request would wait for one.
   * A guest that starts is a reason to try again, now and then, whatever the back-off.
   */
  async away(api: ApiSettings): Promise<TnblockError | undefined> {
    const { host } = this.place;
    const link = this.find(api);
    if (link === undefined) return undefined;
    const patienceMs = this.place.times?.patienceMs ?? LINK_TIMES.patienceMs;
    const before = whyAway(link.state(), patienceMs, host.monotonicMs());
    if (before === undefined) return undefined;
    const triedMs = this.#tried.get(link) ?? -Infinity;
    if (host.monotonicMs() - triedMs >= TRY_AGAIN_MS) {
      this.#tried.set(link, host.monotonicMs());
      link.retryNow();
      await link.session(new Deadline(host, MOMENT_MS)).catch(() => {});
    }
    return whyAway(link.state(), patienceMs, host.monotonicMs());
  }

  /** The link for these settings, when there is one. */
  find(api: ApiSettings): ArrayLink | undefined {
    return this.#links.get(keyOf(api));
  }

  /** The link for these settings: address, user, key and trust. */
  link(api: ApiSettings): ArrayLink {
    const key = keyOf(api);
    const known = this.#links.get(key);
    if (known !== undefined) return known;
    const link = new ArrayLink(
      driverOf(this.place, api, () => {
        // Old keys do not pile up; whoever still holds the link can go on with it.
        if (this.#links.get(key) === link) this.#links.delete(key);
      }),
      this.place.times,
    );
    this.#links.set(key, link);
    return link;
  }

  /** What each link is doing, with the addresses that it is configured with. */
  states(): { readonly hosts: readonly string[]; readonly state: LinkState }[] {
    return [...this.#links].map(([key, link]) => ({ hosts: hostsOf(key), state: link.state() }));
  }

  close(): void {
    for (const link of this.#links.values()) link.close();
  }

  /**
   * Whether the authority's file is another one than when the array was not trusted. Everything else that an
   * administrator changes on the node is in the settings, and makes another link.
   */
  async #isTrustChanged(link: ArrayLink, { tls }: ApiSettings): Promise<boolean> {
    const { kind, error } = link.state();
    const isRefused = error?.code === "tls" || error?.code === "config";
    if (tls.kind !== "ca" || kind !== "down" || !isRefused) return false;
    const written = (await this.place.host.files.status(tls.file))?.modifiedMs ?? 0;
    if (this.#authorities.get(link) === written) return false;
    this.#authorities.set(link, written);
    return true;
  }
}

/** All that makes another session of it; the key in it never leaves this file. */
function keyOf(api: ApiSettings): string {
  return JSON.stringify([api.hosts, api.transport, api.port, api.user, api.key, api.tls]);
}

function hostsOf(key: string): readonly string[] {
  return JSON.parse(key)[0];
}

function driverOf(place: LinkPlace, api: ApiSettings, onIdle: () => void): LinkDriver {
  const { host, log, limitLogins } = place;
  const array = createHash("sha256").update(JSON.stringify([api.hosts, api.port])).digest("hex");
  const dialectFile = `/run/tnblock/array-${array.slice(0, 16)}.dialect`;
  const method = api.transport === "rest" ? "system.version" : "auth.me";
  return {
    clock: host,
    log,
    random: () => host.randomInteger(RANDOM) / RANDOM,
    open: (last, signal, onLogin) =>
      openNodeSession(
        { host, limitLogins, dialectFile, onLogin, maxQueued: MAX_QUEUED },
        api,
        { deadlineMs: CONNECT_MS, signal },
        api.hosts.find((address) => isAt(last, address, api.port)),
      ),
    bootId: (session) => readNodeBootId(host, api, session.address, BOOT_ID_MS),
    ask: async (session) => {
      await session.call(method, [], {
        deadlineMs: ASK_MS,
        doing: "Cannot see whether TrueNAS still knows us",
      });
    },
    allowedInMs: (error: TnblockError) =>
      error instanceof LoginsUsedUp ? error.allowedInMs : undefined,
    onIdle,
  };
}

/** Whether a session's address (`nas:443`) is that of a configured one (`nas`, `nas:443`, `https://nas`). */
function isAt(last: string | undefined, configured: string, port: number): boolean {
  try {
    return parseAddress(configured, port).text === last;
  } catch {
    return false;
  }
}
