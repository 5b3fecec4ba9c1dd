/** Taking back what was done, last first. */
import { asTnblockError, TnblockError, withContext } from "../common/error.ts";

/** Notes what takes a step back; called before the step, whose failure may have done it all the same. */
export type OnFailure = (what: string, undo: () => Promise<void>) => void;

/** Steps that were begun, each with the way back. */
export type Undoing = { readonly what: string; readonly undo: () => Promise<void> }[];

/**
 * Takes all of it back, and fails with what went wrong in the first place.
 *
 * @throws TnblockError always; its message names what could not be taken back.
 */
export async function undoAll(
  undoing: Undoing,
  tell: (line: string) => void,
  reason: unknown,
): Promise<never> {
  const left: string[] = [];
  for (const { what, undo } of [...undoing].reverse()) {
    try {
      await undo();
      tell(`put back: ${what}`);
    } catch (error) {
      const why = asTnblockError(error).message;
      tell(`not put back: ${what}: ${why}`);
      left.push(`${what} (${why})`);
    }
  }
  // Whoever left has asked for it; a failure is told as it is.
  if (left.length === 0) throw reason;
  const error = withContext(reason, "Cannot migrate");
  throw new TnblockError(error.code, `${error.message}; still to be put back: ${left.join("; ")}`, {
    hint: "Look at /etc/pve/priv/tnblock/migrate-*.json, which holds what was there before",
    cause: error,
  });
}
