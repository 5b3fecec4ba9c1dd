/** What a link does things with, and what it tells of. */
import type { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { WaitingClock } from "../truenas/clock.ts";
import type { Session } from "../truenas/session.ts";

/** The world of a link. */
export interface LinkDriver {
  readonly clock: WaitingClock;
  readonly log: Log;
  /** From 0 up to, not including, 1. */
  random(): number;
  /**
   * Connects and logs in, once.
   *
   * @param last the address that worked last.
   * @param onLogin told of each login.
   */
  open(last: string | undefined, signal: AbortSignal, onLogin: () => void): Promise<Session>;
  /** The boot id of the array that a session is with; never rejects. */
  bootId(session: Session): Promise<string | undefined>;
  /** Asks the array something that needs a login. */
  ask(session: Session): Promise<void>;
  /** Milliseconds until a login is allowed, when a failure says so. */
  allowedInMs(error: TnblockError): number | undefined;
  /** The link has closed itself. */
  onIdle(): void;
}

/** What is told with a new session. */
export interface SessionInfo {
  /** Whether the array may have been booted since the session before. */
  readonly rebooted: boolean;
}
