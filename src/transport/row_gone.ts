/** The error for an export that somebody removed while it was worked on. */
import { TnblockError } from "../common/error.ts";
import type { VolumeExport } from "./transport.ts";

/** To be thrown when a row of the export is not on the array any more. */
export function rowGone(found: VolumeExport, what: string): TnblockError {
  return new TnblockError(
    "array-fault",
    `Cannot change the export of "${found.zvol}": its ${what} was removed at the same moment`,
    { hint: "Look at it in TrueNAS, then run tnblock cleanup-orphans" },
  );
}
