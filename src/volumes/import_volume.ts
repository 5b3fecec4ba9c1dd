/** Making a volume for bytes that somebody else writes into it; when they never come, all of it goes again. */
import type { VolumeRef } from "../common/volume.ts";
import { TnblockError } from "../common/error.ts";
import * as zvols from "../truenas/zvols.ts";
import { activate } from "./activate.ts";
import { allocate, type AllocatedVolume } from "./allocate.ts";
import { finishCopy } from "./export_volume.ts";
import { finishFree, prepareFree } from "./free.ts";
import { journaled } from "./journaled.ts";
import { onceUnused } from "./once_unused.ts";
import { type Storage, undoing, zvolPath } from "./storage.ts";

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

/** On a volume whose bytes are still coming: its path, so that no other zvol inherits it. */
const IMPORTING = "tnblock:importing";

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
  return await journaled(storage, (storage) =>
    undoing(storage, async (onFailure) => {
      // Never an existing volume, not even of cloud-init: only a new one is blank.
      const made = await allocate(storage, {
        sizeKiB: size / 1024,
        repeatable: false,
        isImport: true,
        also: (path) => ({ [IMPORTING]: path }),
        ...names,
      });
      onFailure(`the volume "${made.zvol}"`, async () => {
        await abortImport({ ...storage, deadline: storage.undoDeadline() }, made);
        return true;
      });
      await activate(storage, made);
      return made;
    }));
}

/** Lets go of a volume whose bytes have all come; from now on it is one like any other. */
export async function finishImport(storage: Storage, volume: VolumeRef): Promise<null> {
  await finishCopy(storage, volume);
  try {
    const path = zvolPath(storage, volume.zvol);
    await zvols.setUserProperties(await storage.array(), path, { [IMPORTING]: undefined });
  } catch (error) {
    // The bytes are there: a failure now would have them thrown away.
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(`"${volume.zvol}" is imported, but still marked as coming: ${reason}`);
  }
  return null;
}

/**
 * Removes what {@link prepareImport} made: from this node and from the array, to the end.
 *
 * @throws TnblockError `not-ours` for a volume that is not being imported.
 */
export async function abortImport(storage: Storage, volume: VolumeRef): Promise<null> {
  const path = zvolPath(storage, volume.zvol);
  const found = await zvols.read(await storage.array(), path, storage.deadline.bounds());
  if (found !== undefined && found.userProperties[IMPORTING] !== path) {
    throw new TnblockError(
      "not-ours",
      `Cannot abort the import of the volume "${volume.zvol}": it is not being imported`,
    );
  }
  const token = await onceUnused(storage, SETTLE_MS, () => prepareFree(storage, volume));
  return token === undefined ? null : await finishFree(storage, token);
}
