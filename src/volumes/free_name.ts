/** Choosing the name of a new disk. */
import { TnblockError } from "../common/error.ts";

/** PVE counts a little further where it chooses by itself (1023, `PVE/Storage/Plugin.pm`). */
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
