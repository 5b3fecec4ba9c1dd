/** An array that was updated while a request was under way: what it decided may be wrong for the new release. */
import type { Release } from "./dialect.ts";
import { ArrayError, doingOf, type ErrorContext } from "./errors.ts";

/** Whether calls that were decided for one may be made on the other. */
export function isSameRelease(a: Release, b: Release): boolean {
  return a.text === b.text && a.dialect === b.dialect;
}

/**
 * Refuses a call that was decided for another release: e.g. a recursive destroy is harmless to clones on
 * 25.10, and takes them along on 26.
 *
 * @throws ArrayError `busy` with the outcome `not-sent`: asking again works with the new release.
 */
export function refuseOtherRelease(
  decidedFor: Release,
  found: Release,
  context: ErrorContext,
): void {
  if (isSameRelease(decidedFor, found)) return;
  throw new ArrayError(
    "busy",
    `${doingOf(context)}: TrueNAS was updated meanwhile, from ${decidedFor.text} to ${found.text}`,
    { outcome: "not-sent", method: context.method, hint: "Try again" },
  );
}
