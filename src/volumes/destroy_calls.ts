/** Calls that destroy a zvol or a snapshot by its name: what is done about those whose answer was lost. */
import type { Deadline } from "../common/deadline.ts";
import { BACK_OFF_MS } from "../common/timing.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import { doom, doomHere, spare } from "./doomed_names.ts";
import type { Storage } from "./storage.ts";

/** For how long the outcome of a call whose answer was lost is looked for before it is sent once more, in ms. */
const OUTCOME_MS = 1000;

/** The calls that destroy one thing. */
export class DestroyCalls {
  #lost = 0;
  #isLastLost = false;
  /** Whether others than these calls may come: of a process that was killed. */
  #hasOthers: boolean | undefined;

  /** @param name see `doomedName`. */
  constructor(private readonly storage: Storage, private readonly name: string) {}

  /**
   * Sends one. While it is under way, and for some minutes when its answer is lost, nobody gets the name, which is
   * kept before anything is repeated.
   */
  async send<T>(work: () => Promise<T>): Promise<T> {
    const isDoomed = await doomHere(this.storage, this.name);
    this.#hasOthers ??= isDoomed;
    this.#isLastLost = false;
    try {
      const result = await work();
      await this.#answered();
      return result;
    } catch (error) {
      if (isUnknownOutcome(error)) {
        this.#lost++;
        this.#isLastLost = true;
        if (await doom(this.storage, this.name)) this.#hasOthers = true;
      } else {
        await this.#answered();
      }
      throw error;
    }
  }

  async #answered(): Promise<void> {
    if (this.#lost === 0 && this.#hasOthers === false) await spare(this.storage, this.name);
    // On this node only so far, if its process was killed.
    else if (this.#lost === 0) await doom(this.storage, this.name);
  }

  /** To be called when the thing is gone: if nothing was sent after the one call that was lost, that has done it. */
  async seenDone(): Promise<void> {
    const isOver = this.#lost === 1 && this.#isLastLost && this.#hasOthers === false;
    if (isOver) await spare(this.storage, this.name);
  }

  /**
   * Looks for a while whether the call whose answer was lost comes to its end.
   *
   * @param isGone looks at the array.
   * @returns false also when nothing was lost, or it cannot be seen.
   */
  async isSeenDone(deadline: Deadline, isGone: () => Promise<boolean>): Promise<boolean> {
    const { host } = this.storage;
    if (!this.#isLastLost) return false;
    const end = host.monotonicMs() + Math.min(OUTCOME_MS, deadline.leftMs());
    for (let attempt = 0; host.monotonicMs() < end; attempt++) {
      await host.wait(BACK_OFF_MS[attempt] ?? 250, deadline.signal);
      try {
        if (!await isGone()) continue;
        await this.seenDone();
        return true;
      } catch (error) {
        if (arrayErrorIn(error) === undefined) throw error;
      }
    }
    return false;
  }
}
