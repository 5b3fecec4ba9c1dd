/** What a template's disk is spared: its linked clones come from its one snapshot, and it stays like it. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";

/**
 * Refuses a base. PVE itself keeps snapshots and rollbacks from templates, but lets `qm disk resize`
 * through: the base would have a size then that none of its linked clones gets.
 *
 * @param doing as in a message: `roll back`.
 * @throws TnblockError `unsupported`.
 */
export function refuseBase(volume: VolumeRef, doing: string): void {
  if (!volume.zvol.startsWith("base-")) return;
  throw new TnblockError(
    "unsupported",
    `Cannot ${doing} the base "${volume.zvol}": it is a template's disk, and stays as its linked clones are`,
    { hint: "Make a clone of the template, and change that" },
  );
}
