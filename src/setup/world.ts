/** What setup works with, and who hears of its progress. */
import { Cancelled } from "../common/asking.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";

/** The surroundings of one run. */
export interface SetupWorld {
  readonly host: Host;
  readonly log: Log;
  /** Of the program that runs. */
  readonly version: string;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** Hears one line at a time of what is being done. */
  readonly tell: (line: string) => void;
  /** Standard input to its end, for a secret that is given as `-`. */
  readonly input: () => Promise<string>;
  /** Aborted when the user wants to leave. */
  readonly signal?: AbortSignal;
}

/** Waits for something that may be given up at any moment, because nothing of it must be undone. */
export async function orLeave<T>(world: Pick<SetupWorld, "signal">, work: Promise<T>): Promise<T> {
  const { signal } = world;
  if (signal === undefined) return await work;
  if (signal.aborted) throw new Cancelled();
  let leave = () => {};
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(new Cancelled());
    signal.addEventListener("abort", leave, { once: true });
  });
  work.catch(() => {});
  try {
    return await Promise.race([work, left]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
