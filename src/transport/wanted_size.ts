/** How large a disk must be to be the one that is meant. */

/**
 * Bytes: exactly as many, as the array says them; or, where the array cannot be asked, at least as many
 * as it said last, for a volume grows on the array and shrinks only in a rollback.
 */
export type WantedSize = number | { readonly atLeast: number };

/** Whether a disk of `bytes` is large enough, or just as large. */
export function fits(bytes: number, wanted: WantedSize): boolean {
  return typeof wanted === "number" ? bytes === wanted : bytes >= wanted.atLeast;
}

/** For a message: `1048576` or `at least 1048576`. */
export function wantedText(wanted: WantedSize): string {
  return typeof wanted === "number" ? String(wanted) : `at least ${wanted.atLeast}`;
}
