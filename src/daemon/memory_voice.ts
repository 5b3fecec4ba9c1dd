/** What a memory says to the administrator: each change once, never the same thing every ten seconds. */
import type { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import { classOf } from "./memory_trust.ts";

/**
 * A volume that nothing exports may be one that another node makes just now: its writes wait for each other in a
 * burst, and each is a reload of the array. In milliseconds.
 */
const MAKING_MS = 60_000;

/** The log of one storage's memory. */
export class Voice {
  #trouble: string | undefined;
  #unfollowed = "";
  #unexported = "";
  /** Since when each volume has been without export, by the monotonic clock. */
  #unexportedSince: ReadonlyMap<string, number> = new Map();
  #isUnkept = false;

  constructor(readonly log: Log, readonly storage: string) {}

  /**
   * Says why the storage is not answered for, or that it is again. Failures of the network are of one kind:
   * which of them it is changes by the second.
   */
  say(why: TnblockError | undefined): void {
    if (why === undefined) {
      if (this.#trouble !== undefined) this.log.info(`storage "${this.storage}" is active again`);
      this.#trouble = undefined;
      return;
    }
    const kind = classOf(why);
    const trouble = kind === "connectivity" ? kind : `${kind} ${why.code}`;
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    const text = `storage "${this.storage}" is inactive: ${why.message}`;
    if (kind === "connectivity") this.log.info(text);
    else if (kind === "configuration") this.log.error(text);
    else this.log.warning(text);
  }

  /** Says that changes are found late. */
  sayUnfollowed(collections: readonly string[]): void {
    const text = [...collections].sort().join(", ");
    if (text === this.#unfollowed) return;
    this.#unfollowed = text;
    this.log.info(
      `storage "${this.storage}": the array does not tell of changes (${text}); they are found at the next full read`,
    );
  }

  /**
   * Says which volumes PVE cannot be told of, because nothing exports them: they must not vanish in silence. What is
   * being made is none of them: what {@link underWay} names, and what has not been so for long.
   *
   * @param paths those that two reads of everything have shown to be so.
   * @param underWay those that the node's own journal has open; it says by itself what becomes of them.
   * @param nowMs of the monotonic clock.
   */
  sayUnexported(
    paths: readonly string[],
    underWay: ReadonlySet<string>,
    nowMs: number,
  ): void {
    const since = this.#unexportedSince;
    this.#unexportedSince = new Map(paths.map((path) => [path, since.get(path) ?? nowMs]));
    const lost = [...this.#unexportedSince].filter(([path, sinceMs]) =>
      nowMs - sinceMs >= MAKING_MS && !underWay.has(path)
    ).map(([path]) => path).sort();
    const text = lost.join(", ");
    if (text === this.#unexported) return;
    this.#unexported = text;
    if (lost.length === 0) return;
    const names = lost.slice(0, 5).join(", ") +
      (lost.length > 5 ? ` and ${lost.length - 5} more` : "");
    this.log.warning(`not listed, because nothing exports them: ${names}`);
  }

  /** Says that nothing is kept over a restart. */
  sayUnkept(error: unknown): void {
    if (this.#isUnkept) return;
    this.#isUnkept = true;
    const reason = error instanceof Error ? error.message : String(error);
    this.log.warning(
      `storage "${this.storage}": its volumes are not kept over a restart: ${reason}`,
    );
  }
}
