/** Letting go of what is attached to this node and has not been used for a while (design decision 6). */
import {
  attachName,
  ifVolumeIsFree,
  isSameDisk,
  letGoOfKnown,
  linkedIdentity,
} from "./attachment.ts";
import { deactivateReading } from "./deactivate_reading.ts";
import { type DiskIdentity, tagOf } from "../transport/transport.ts";
import { readKnownDisk } from "./known_disks.ts";
import { look } from "./look.ts";
import { isOurs } from "./ownership.ts";
import { attachableOf } from "./tidy_look.ts";
import type { Storage } from "./storage.ts";

/**
 * Deactivates what is attached under a name, unless another operation on it is under way.
 *
 * @param isWanted asked under the volume's lock, right before: whether somebody is about to use it after all.
 * @returns whether something was let go of.
 * @throws TnblockError `in-use` while anybody on this node uses it: nothing was touched.
 */
export async function letGoIdle(
  storage: Storage,
  name: string,
  isWanted: () => Promise<boolean>,
): Promise<boolean> {
  const place = attachableOf(name);
  if (place.snapshot !== undefined) {
    // With the API away all of it stays: nobody would remember the clone on the array.
    await storage.array();
    let stays = false;
    await deactivateReading(storage, place, place.snapshot, async () => stays = await isWanted());
    return !stays;
  }
  return await ifVolumeIsFree(storage, attachName(place), async () => {
    if (await isWanted()) return false;
    const known = await readKnownDisk(storage, name);
    const linked = await linkedIdentity(storage, place);
    const held = known ?? (linked && { tag: tagOf(linked), identity: linked });
    if (held === undefined) return false;
    await letGoOfKnown(storage, place, held, storage.deadline, true);
    return true;
  }) ?? false;
}

/**
 * Lets go of paths to a volume that this node holds under no name: some other program has scanned for all disks of
 * the target. Looks first whether they lead to that volume, and touches none that is not the storage's own.
 *
 * @returns whether something was let go of.
 * @throws TnblockError `in-use` while anybody on this node uses it: nothing was touched; what the look throws.
 */
export async function letGoOfStray(
  storage: Storage,
  zvol: string,
  identity: DiskIdentity,
): Promise<boolean> {
  const place = { zvol, tag: undefined };
  return await ifVolumeIsFree(storage, zvol, async () => {
    const isHeld = await readKnownDisk(storage, zvol) !== undefined ||
      await linkedIdentity(storage, place) !== undefined;
    if (isHeld) return false;
    const now = await look(storage, await storage.array(), zvol, storage.deadline);
    const isIt = now.found.kind === "ours" && isSameDisk(now.found.export.identity, identity);
    if (!isIt || now.zvol === undefined || !isOurs(storage, now.zvol)) return false;
    await letGoOfKnown(
      storage,
      place,
      { tag: tagOf(identity), identity },
      storage.deadline,
      true,
    );
    return true;
  }) ?? false;
}
