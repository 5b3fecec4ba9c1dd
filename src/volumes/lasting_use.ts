/** Use of a volume that nobody on this node can end by closing it. */
import { type ErrorDetails, TnblockError } from "../common/error.ts";

/**
 * `in-use` by what stays until an administrator acts: a guest on another node, an export that is not ours.
 * Whoever waits for a disk to be closed here has nothing to wait for.
 */
export class LastingUse extends TnblockError {
  constructor(message: string, details: ErrorDetails = {}) {
    super("in-use", message, details);
  }
}
