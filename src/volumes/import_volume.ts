/** Making a volume for bytes that somebody else writes into it; when they never come, all of it goes again. */
import type { VolumeRef } from "../common/volume.ts";
import { activate } from "./activate.ts";
import { allocate, type AllocatedVolume } from "./allocate.ts";
import { finishFree, prepareFree } from "./free.ts";
import { onceUnused } from "./once_unused.ts";
import { type Storage, undoing } from "./storage.ts";

/** What is wanted. */
export interface NewImport {
  /** Bytes that will be written. */
  readonly size: number;
  /** The zvol's name ... */
  readonly name?: string;
  /** ... or its beginning, which gets the first free number. */
  readonly prefix?: string;
}

/** How long the disk of a failed import may still be looked into by others, in ms. */
const SETTLE_MS = 30_000;

/**
 * Allocates and activates a blank volume; when either fails, nothing is left.
 *
 * @throws TnblockError `exists` for a name that is taken, whatever has it.
 */
export async function prepareImport(
  storage: Storage,
  wanted: NewImport,
): Promise<AllocatedVolume> {
  const { size, ...names } = wanted;
  return await undoing(storage, async (onFailure) => {
    // Never an existing volume, not even of cloud-init: only a new one is blank.
    const made = await allocate(storage, { sizeKiB: size / 1024, repeatable: false, ...names });
    onFailure(`the volume "${made.zvol}"`, async () => {
      await abortImport({ ...storage, deadline: storage.undoDeadline() }, made);
      return true;
    });
    await activate(storage, made);
    return made;
  });
}

/** Removes what {@link prepareImport} made: from this node and from the array, to the end. */
export async function abortImport(storage: Storage, volume: VolumeRef): Promise<null> {
  const token = await onceUnused(storage, SETTLE_MS, () => prepareFree(storage, volume));
  return token === undefined ? null : await finishFree(storage, token);
}
