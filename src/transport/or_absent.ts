/** Removing what may be gone already. */
import { isAbsent } from "../truenas/errors.ts";

/** A row that is not there any more is what was wanted. */
export async function orAbsent(removal: Promise<void>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}
