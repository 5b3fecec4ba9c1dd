/**
 * Rolling a volume back to its newest snapshot: everything is checked afresh, this node lets go of the disk,
 * the array rolls back in one write, and the disk is attached again if it was. Once that write is sent
 * it is finished, whoever still waits.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError, withContext } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { readLinkTarget } from "../host/links.ts";
import { type DiskIdentity, tagOf, type VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { attachDisk } from "./activate.ts";
import {
  detachVolume,
  inWords,
  isSameDisk,
  letGoOfKnown,
  linkOf,
  refuseKnownUsers,
  refuseUsers,
} from "./attachment.ts";
import { refuseRunningElsewhere } from "./guests.ts";
import { readJournal } from "./journal.ts";
import { journaledAlone, madeOf } from "./journaled.ts";
import { readKnownDisk } from "./known_disks.ts";
import { rollBackForGood, type Told } from "./rollback_call.ts";
import { forgetRollback, noteRollback } from "./rollback_notes.ts";
import { blockersInWords, type RollbackView, viewRollback } from "./rollback_possible.ts";
import {
  beginResync,
  cancelResync,
  isResyncBegun,
  needsResync,
  resyncSize,
} from "./resync_size.ts";
import type { Storage } from "./storage.ts";
import { keepVerified } from "./verified_disks.ts";

/**
 * Rolls a volume back.
 *
 * @throws TnblockError `not-found`, `unsupported` for a base, `has-dependents` that names newer snapshots
 *   and their clones, `in-use` while the disk is used here or its guest runs elsewhere, `denied` on 25.04
 *   without a full administrator's key: nothing was touched.
 */
export async function rollBack(
  storage: Storage,
  volume: VolumeRef,
  name: string,
): Promise<null> {
  return await journaledAlone(storage, volume.zvol, async (storage, entry) => {
    const array = await storage.array();
    const view = await viewRollback(storage, array, volume, name);
    if (view.newer.length > 0) throw await newerExist(storage, array, volume, name, view);
    const known = await readKnownDisk(storage, volume.zvol);
    const { identity } = view.volume.export;
    const older = known !== undefined && !isSameDisk(known.identity, identity) ? known : undefined;
    const refuseUse = async () => {
      await refuseUsers(storage, volume, identity);
      if (older !== undefined) await refuseKnownUsers(storage, volume, older);
      await refuseRunningElsewhere(storage, volume, "roll back");
    };
    await refuseUse();
    const isActive = await readLinkTarget(storage.host, linkOf(storage, volume)) !== undefined;
    const mayBeUnderWay = await wasStopped(storage, volume.zvol);
    storage.deadline.check();
    const details = {
      op: "rollback",
      tag: volume.tag,
      made: madeOf(view.volume.zvol),
      snapshot: name,
    } as const;
    await entry.begin(volume.zvol, details);
    const deadline = storage.undoDeadline();
    storage.deadline.goesOn(
      `this node lets go of ${inWords(volume)}, and the array is told to roll it back`,
      "Roll back once more before the guest is started, so that it is known to be done",
    );
    // Without the disk no cache of this node can outlive the rollback.
    await detachVolume(storage, volume, identity, deadline);
    if (older !== undefined) await letGoOfKnown(storage, volume, older, deadline);
    const isElsewhere = await noteRollback(storage, volume.zvol);
    const told: Told = { isLost: mayBeUnderWay || isElsewhere, isKeptOut: false };
    try {
      const doubt = await rollBackWithSize(storage, array, volume, view, deadline, refuseUse, told);
      await dropCaches(storage, volume, identity, deadline);
      if (doubt !== undefined) throw doubt;
    } catch (error) {
      if (!told.isLost) await entry.begin(volume.zvol, { ...details, isOver: true });
      throw error;
    } finally {
      if (!told.isLost || told.isKeptOut) await forgetRollback(storage, volume.zvol);
      // Also after a failure: the disk is there for this node as it was before.
      if (isActive) await attachAgain(storage, array, volume, view.volume.export, deadline);
    }
    return null;
  });
}

/** Whether a rollback of the volume was killed, or failed, on this node: the array may be at it still. */
async function wasStopped(storage: Storage, zvol: string): Promise<boolean> {
  try {
    const { entries } = await readJournal(storage.host);
    return entries.some((entry) =>
      entry.storage === storage.settings.id && entry.zvol === zvol &&
      entry.details.op === "rollback" && entry.details.isOver !== true
    );
  } catch (error) {
    storage.log.warning(error instanceof Error ? error.message : String(error));
    return true;
  }
}

async function newerExist(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  name: string,
  view: RollbackView,
): Promise<TnblockError> {
  const wanted = inWords({ ...volume, snapshot: name });
  return new TnblockError(
    "has-dependents",
    `Cannot roll back to ${wanted}: ${await blockersInWords(storage, array, view)}`,
    { hint: "Delete the newer snapshots first; their content is lost then" },
  );
}

/**
 * Rolls back, and lets the export follow when the snapshot is from before the volume grew. That is marked
 * before, so that a kill at any moment leaves a sign.
 *
 * @returns the failure when it is not known whether it was rolled back.
 */
async function rollBackWithSize(
  storage: Storage,
  array: Caller,
  named: VolumeRef,
  view: RollbackView,
  deadline: Deadline,
  refuseUse: () => Promise<void>,
  told: Told,
): Promise<Error | undefined> {
  const mayChange = view.snapshot.volsize !== view.volume.zvol.volsize && needsResync(view.volume);
  const volume = mayChange ? await beginResync(array, view.volume) : view.volume;
  let doubt: Error | undefined;
  try {
    doubt = await rollBackForGood(storage, array, named, view, refuseUse, told);
  } catch (error) {
    // Refused outright: nothing has changed.
    if (mayChange) {
      await cancelResync(await storage.array(), volume).catch((second: unknown) => {
        storage.log.warning(second instanceof Error ? second.message : String(second));
      });
    }
    throw error;
  }
  // It may have been done: this is right in either case.
  await followSize(storage, array, volume, deadline, refuseUse);
  return doubt;
}

/** A snapshot from before the volume grew takes its size back with it. */
async function followSize(
  storage: Storage,
  array: Caller,
  volume: RollbackView["volume"],
  deadline: Deadline,
  refuseUse: () => Promise<void>,
): Promise<void> {
  const now = await zvols.read(array, volume.zvol.name, deadline.bounds());
  if (now === undefined) return;
  if (now.volsize === volume.zvol.volsize && !isResyncBegun(volume.zvol)) return;
  // The export goes off for a moment: not under a guest that was started since.
  if (storage.deadline.leftMs() === 0) await refuseUse();
  storage.log.info(
    `"${volume.zvol.name}" has ${now.volsize} bytes again, after ${volume.zvol.volsize}`,
  );
  await resyncSize(storage, array, volume, deadline);
}

async function dropCaches(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity,
  deadline: Deadline,
): Promise<void> {
  try {
    await storage.transport.dropCaches(identity, deadline);
  } catch (error) {
    throw withContext(
      error,
      `Cannot finish rolling back ${
        inWords(volume)
      }: the array has done it, but this node may still hold older content`,
    );
  }
}

/** A failure is a warning: the volume is activated, and verified, before anybody uses it. */
async function attachAgain(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  exported: VolumeExport,
  deadline: Deadline,
): Promise<void> {
  const { zvol, identity } = exported;
  try {
    const now = await zvols.read(array, zvol, deadline.bounds());
    if (now === undefined) return;
    const disk = { tag: tagOf(identity), identity, size: now.volsize };
    await attachDisk(storage, volume, disk, deadline);
    // Letting go of it has forgotten that.
    await keepVerified(storage, volume.zvol, { zvol: now, export: exported });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(`${inWords(volume)} is not attached here any more: ${reason}`);
  }
}
