/** Making a volume a template's disk: a base of which linked clones are made. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { isAbsent, isUnknownOutcome } from "../truenas/errors.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { withVolumeLock } from "./attachment.ts";
import { DestroyCalls } from "./destroy_calls.ts";
import { doomedName, refuseDoomed } from "./doomed_names.ts";
import { supersede } from "./journaled.ts";
import { findMovable, type Movable, refuseActive, requireRename, wholeAgain } from "./movable.ts";
import { refuseLongPath } from "./path_length.ts";
import {
  moveTo,
  refuseTaken,
  type RenameChange,
  type RenamedVolume,
  takeBackRename,
} from "./rename.ts";
import { type OnFailure, type Storage, undoing } from "./storage.ts";
import { asArrayTold } from "./try_names.ts";

/** The snapshot that linked clones hang on; the Perl plugin's name, and one that PVE gives to no snapshot. */
export const BASE_SNAPSHOT = "__base__";

/** Which operation took it. A key of its own: a snapshot inherits `tnblock:op` from its zvol. */
const MADE_BY = "tnblock:base";

/**
 * Renames a volume to its base's name, and takes the snapshot {@link BASE_SNAPSHOT} of it. The snapshot
 * comes last: under its old name the volume is not found any more, so that nobody can write to it after.
 *
 * @param name the base's name: `base-<vmid>-...`.
 * @throws TnblockError `in-use`, `exists`, `has-dependents`, `invalid` (too long), `unsupported` (25.04):
 *   nothing was touched.
 */
export async function createBase(
  storage: Storage,
  volume: VolumeRef,
  name: string,
): Promise<RenamedVolume> {
  const array = await storage.array();
  requireRename(array, `make a base of the volume "${volume.zvol}"`);
  return await withVolumeLock(storage, volume.zvol, async () => {
    await refuseDoomed(storage, doomedName(name, BASE_SNAPSHOT), "take the snapshot");
    const found = await findMovable(storage, array, volume, (zvol) => zvol === name);
    if (found.zvol === name) {
      await completeBase(storage, array, volume, found);
      await supersede(storage, volume.zvol, ["create_base"]);
      return { zvol: name, tag: tagOf(found.source.export.identity), change: undefined };
    }
    refuseTaken(storage, found, name);
    await refuseDoomed(storage, name, "make the base");
    refuseLongPath(storage, name);
    const { source } = found;
    const old = await snapshots.read(
      array,
      source.zvol.name,
      BASE_SNAPSHOT,
      storage.deadline.bounds(),
    );
    if (old !== undefined) await refuseUsedLeftover(storage, array, source.zvol.name, old);
    await refuseActive(storage, volume, found, "make a base of");
    const movable = await wholeAgain(storage, array, volume, found);
    const path = movable.source.zvol.name;
    storage.deadline.check();
    if (old !== undefined) {
      // Before the base's name: what has that name has no snapshot but its own, wherever this call stops.
      storage.log.warning(`removing "${path}@${BASE_SNAPSHOT}", left by a template half made`);
      await removeSnapshot(storage, array, path);
    }
    return await moveTo(storage, array, movable, name, async (operation, onFailure) => {
      const base = path.slice(0, path.lastIndexOf("/") + 1) + name;
      await takeSnapshot(storage, array, base, operation, onFailure);
    }, "create_base").catch(asArrayTold);
  });
}

/** Takes the snapshot of what is a base already, when the call that made it one did not come to that. */
async function completeBase(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  movable: Movable,
): Promise<void> {
  const path = movable.source.zvol.name;
  const wait = storage.deadline.bounds();
  if (await snapshots.read(array, path, BASE_SNAPSHOT, wait) !== undefined) return;
  await refuseActive(storage, volume, movable, "make a base of");
  storage.deadline.check();
  const operation = storage.host.randomUuid();
  await undoing(
    storage,
    (onFailure) => takeSnapshot(storage, array, path, operation, onFailure),
  );
}

/** Makes a base an ordinary volume again, when nobody heard that it became one. */
export async function takeBackBase(
  storage: Storage,
  made: RenamedVolume & { readonly change: RenameChange },
): Promise<void> {
  await takeBackRename(storage, made, async (path) => {
    await removeSnapshot(storage, await storage.array(), path);
  });
}

/** Calls that remove the base's snapshot: while one may come yet nothing becomes a base of that name. */
function destroyCalls(storage: Storage, path: string): DestroyCalls {
  return new DestroyCalls(storage, doomedName(path, BASE_SNAPSHOT));
}

/** Removes the base's snapshot; after a lost answer it is looked for. */
async function removeSnapshot(storage: Storage, array: Caller, path: string): Promise<void> {
  try {
    await destroyCalls(storage, path).send(() => snapshots.remove(array, path, BASE_SNAPSHOT));
  } catch (error) {
    if (isAbsent(error)) return;
    if (!isUnknownOutcome(error)) throw error;
    if (await snapshots.read(await storage.array(), path, BASE_SNAPSHOT) !== undefined) throw error;
  }
}

/**
 * Refuses a snapshot of the base's name that something hangs on. One that is left by a template half made
 * is not used again: the guest may have written since.
 */
async function refuseUsedLeftover(
  storage: Storage,
  array: Caller,
  path: string,
  old: snapshots.Snapshot,
): Promise<void> {
  const clones = (await zvols.clones(array, path, storage.deadline.bounds()))
    .filter((clone) => clone.origin === `${path}@${BASE_SNAPSHOT}`)
    .map((clone) => `clone ${clone.name}`);
  const what = [...clones, ...old.holds.map((tag) => `hold ${tag}`)];
  if (what.length === 0) return;
  throw new TnblockError(
    "has-dependents",
    `Cannot make a base of "${path}": its snapshot ${BASE_SNAPSHOT} is older, and has ${
      what.slice(0, 10).join(", ")
    }`,
    { hint: "Free the clones and release the holds, then try again" },
  );
}

/**
 * Takes the base's snapshot, and believes only what is there then: answers get lost, and 26 says yes to what
 * it did not do.
 */
async function takeSnapshot(
  storage: Storage,
  array: Caller,
  path: string,
  operation: string,
  onFailure: OnFailure,
): Promise<void> {
  const isTaken = async () => {
    const found = await snapshots.read(await storage.array(), path, BASE_SNAPSHOT);
    return found?.userProperties[MADE_BY] === operation;
  };
  onFailure(`snapshot "${path}@${BASE_SNAPSHOT}"`, async () => {
    if (!await isTaken()) return false;
    const array = await storage.array();
    await destroyCalls(storage, path).send(() => snapshots.remove(array, path, BASE_SNAPSHOT));
    return true;
  });
  let lost: unknown;
  try {
    await snapshots.create(array, path, BASE_SNAPSHOT, { [MADE_BY]: operation });
  } catch (error) {
    if (!isUnknownOutcome(error)) throw error;
    lost = error;
  }
  if (await isTaken()) return;
  throw lost ?? new TnblockError(
    "array-fault",
    `Cannot take the snapshot "${path}@${BASE_SNAPSHOT}": TrueNAS answered that it did, but it is not there`,
  );
}
