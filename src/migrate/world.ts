/** What a migration works with, and who hears of its progress. */
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";

/** The surroundings of one run. */
export interface MigrateWorld {
  readonly host: Host;
  readonly log: Log;
  /** Of the program that runs. */
  readonly version: string;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** Hears one line at a time of what is being done. */
  readonly tell: (line: string) => void;
  /** Aborted when the user wants to leave: what was done is undone then. */
  readonly signal?: AbortSignal;
}
