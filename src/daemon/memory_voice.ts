/** What a memory says to the administrator: each change once, never the same thing every ten seconds. */
import type { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import { classOf } from "./memory_trust.ts";

/** The log of one storage's memory. */
export class Voice {
  #trouble: string | undefined;
  #unfollowed = "";
  #unexported = "";
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

  /** Says which volumes PVE cannot be told of, because nothing exports them: they must not vanish in silence. */
  sayUnexported(paths: readonly string[]): void {
    const text = [...paths].sort().join(", ");
    if (text === this.#unexported) return;
    this.#unexported = text;
    if (paths.length === 0) return;
    const names = paths.slice(0, 5).join(", ") +
      (paths.length > 5 ? ` and ${paths.length - 5} more` : "");
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
