/** Names of extents: readable, at most 64 characters, and different for different zvols. */
import { createHash } from "node:crypto";

/** TrueNAS allows 64; eight hex digits and a hyphen are kept for the hash. */
const READABLE = 55;

/**
 * The extent's name for a zvol: its last component and a hash of its full path. TrueNAS compares
 * names after turning `.` into `_` and `/` into `-` (`middlewared/plugins/iscsi_/extents.py`), so
 * that is done here already.
 *
 * @param attempt above 0 for another name, where the first one is taken.
 */
export function extentName(zvol: string, attempt = 0): string {
  const last = zvol.slice(zvol.lastIndexOf("/") + 1);
  const readable = last.toLowerCase().replaceAll(/[^a-z0-9_-]/g, "_").slice(0, READABLE);
  const hash = createHash("sha1").update(attempt === 0 ? zvol : `${zvol} ${attempt}`).digest("hex")
    .slice(0, 8);
  return `${readable}-${hash}`;
}
