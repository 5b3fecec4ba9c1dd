/** Functions that are to be told of something; a defect of one is not the others'. */
import { asTnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";

/** Those who listen. */
export class Listeners<Told extends readonly unknown[]> {
  readonly #listeners = new Set<(...told: Told) => void>();
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Tells from now on, and at once when there is something to tell, until the returned function is called. */
  add(listener: (...told: Told) => void, now?: Told): () => void {
    // A function of its own: the same listener may be given twice.
    const own = (...told: Told) => listener(...told);
    this.#listeners.add(own);
    if (now !== undefined) this.#tellOne(own, now);
    return () => this.#listeners.delete(own);
  }

  tell(...told: Told): void {
    for (const listener of this.#listeners) this.#tellOne(listener, told);
  }

  #tellOne(listener: (...told: Told) => void, told: Told): void {
    try {
      listener(...told);
    } catch (error) {
      this.#log.warning(`a listener failed: ${asTnblockError(error).message}`);
    }
  }
}
