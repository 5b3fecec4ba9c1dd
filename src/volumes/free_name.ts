/** Choosing the name of a new disk. */
import { TnblockError } from "../common/error.ts";

/** PVE's own highest number of a disk that it names by itself. */
const HIGHEST = 999;

/**
 * The first free name `<prefix>0` to `<prefix>999`.
 *
 * @throws TnblockError `no-space` when none is free.
 */
export function freeName(prefix: string, isTaken: (name: string) => boolean): string {
  for (let number = 0; number <= HIGHEST; number++) {
    const name = `${prefix}${number}`;
    if (!isTaken(name)) return name;
  }
  throw new TnblockError(
    "no-space",
    `Cannot name a new disk: "${prefix}0" to "${prefix}${HIGHEST}" are all taken`,
    { hint: "Run tnblock cleanup-orphans, or delete disks that are not needed" },
  );
}
