/** A log for what is asked every ten seconds: it says the same once an hour. */
import type { Log } from "../common/log.ts";

/** How long a line is not said again, in ms. */
const SILENT_MS = 3_600_000;

/** Lines that are remembered; past that the one said longest ago is forgotten. */
const MOST_LINES = 1_000;

/** Remembers what was said lately. */
export class SaidLately {
  readonly #said = new Map<string, number>();

  /** Whether this may be said now, which then counts as said. */
  mayBeSaid(line: string, nowMs: number): boolean {
    const lastMs = this.#said.get(line);
    if (lastMs !== undefined && nowMs - lastMs < SILENT_MS) return false;
    // To the end of the map's order.
    this.#said.delete(line);
    this.#said.set(line, nowMs);
    const [oldest] = this.#said.keys();
    if (this.#said.size > MOST_LINES && oldest !== undefined) this.#said.delete(oldest);
    return true;
  }
}

/**
 * The log without what it has said lately; debug lines are asked for, and all said.
 *
 * @param about what tells apart who says the same: a storage's name.
 */
export function sparingLog(log: Log, about: string, said: SaidLately, now: () => number): Log {
  const once = (level: "error" | "warning" | "info") => (text: string) => {
    if (said.mayBeSaid(`${about} ${level} ${text}`, now())) log[level](text);
  };
  return {
    error: once("error"),
    warning: once("warning"),
    info: once("info"),
    debug: (text) => log.debug(text),
  };
}
