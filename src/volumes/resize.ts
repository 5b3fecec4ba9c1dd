/**
 * Growing a volume: one write on the array, then this node follows, for QEMU is told right after. A
 * repeat grows nothing twice, and brings up a node that could not follow.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError, withContext } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { type DiskIdentity, tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as datasets from "../truenas/datasets.ts";
import { arrayErrorIn, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { isSameDisk, linkedIdentity } from "./attachment.ts";
import { refuseBase } from "./base.ts";
import { journaledAlone, madeOf } from "./journaled.ts";
import { writeKnownDisk } from "./known_disks.ts";
import { resolveVolume } from "./resolve.ts";
import { planGrowth } from "./size.ts";
import { isRenameStopped, takeBackStopped } from "./stopped_rename.ts";
import type { Storage } from "./storage.ts";

/**
 * Grows the volume to `bytes`, aligned up. Where it is attached here, every path and the map have the
 * new size on return. Once the write is sent, the caller's deadline ends nothing: it is finished.
 *
 * @param running whether the guest runs, as PVE says; the disk is looked for either way.
 * @throws TnblockError `invalid` for a smaller size, `unsupported` for a base, `no-space`; when only the
 *   node failed the message says that the array is done.
 */
export async function resize(
  storage: Storage,
  volume: VolumeRef,
  bytes: number,
  running: boolean,
): Promise<null> {
  return await journaledAlone(storage, volume.zvol, async (storage, entry) => {
    const array = await storage.array();
    const { zvol, sector, identity, parent } = await lookUp(storage, array, volume);
    refuseBase(volume, "grow");
    const wanted = planGrowth(
      { zvol: volume.zvol, size: zvol.volsize, blockSize: zvol.volblocksize, sector },
      bytes,
    );
    let { deadline } = storage;
    if (wanted !== undefined) {
      checkRoom(volume.zvol, parent, wanted - zvol.volsize);
      deadline.check();
      await entry.begin(volume.zvol, {
        op: "resize",
        tag: volume.tag,
        made: madeOf(zvol),
        from: zvol.volsize,
        to: wanted,
        thick: zvol.reserved >= zvol.volsize,
      });
      deadline = storage.undoDeadline();
      const name = `"${volume.zvol}"`;
      storage.deadline.goesOn(`the array was told to grow ${name} to ${wanted} bytes`, NOT_TWICE);
      await grow(storage, zvol, wanted, deadline);
      storage.deadline.goesOn(
        `${name} has ${wanted} bytes on the array, and this node follows`,
        NOT_TWICE,
      );
      if (zvol.reserved >= zvol.volsize) await keepThick(storage, zvol.name, wanted, deadline);
      storage.log.info(`"${volume.zvol}" grew from ${zvol.volsize} to ${wanted} bytes`);
    }
    const size = wanted ?? zvol.volsize;
    if (await isHere(storage, volume, identity)) {
      await followHere(storage, volume, identity, size, deadline);
    } else if (running) {
      storage.log.warning(
        `the guest is said to run, but "${volume.zvol}" is not attached on this node`,
      );
    }
    return null;
  });
}

/** One round of reads. */
async function lookUp(storage: Storage, array: Caller, volume: VolumeRef) {
  const wait = storage.deadline.bounds();
  const [resolved, parent] = await Promise.all([
    resolveVolume(storage, array, volume),
    datasets.read(array, storage.settings.dataset, wait),
  ]);
  // The array tells its services of a new size by the path that they know, which a stopped rename took away.
  const { zvol, export: found } = isRenameStopped(storage, resolved, volume.zvol)
    ? await takeBackStopped(storage, array, resolved, volume.zvol)
    : resolved;
  // A legacy extent keeps the block size that it was made with, whatever the storage is set to.
  return { zvol, identity: found.identity, sector: found.sectorSize, parent };
}

/** Free space that must be left beyond the growth: a fifth of it, as for a new volume. */
const MARGIN = 1.2;

/** The array is told to lift its own rule (`force_size`), which counts sparse volumes as full. */
function checkRoom(zvol: string, parent: datasets.Dataset | undefined, growth: number): void {
  if (parent === undefined || parent.available >= growth * MARGIN) return;
  const gib = (bytes: number) => `${(bytes / 1024 ** 3).toFixed(2)} GiB`;
  throw new TnblockError(
    "no-space",
    `Cannot grow the volume "${zvol}" by ${gib(growth)}: ${
      gib(parent.available)
    } are free in "${parent.name}", and a margin of 20 % is kept`,
    { hint: "Free space in the pool, or grow the volume by less" },
  );
}

/** How often growing is tried, when its answer was lost and the size shows that it was not done. */
const TRIES = 3;

/** Grows the zvol; what became of a lost answer is looked up. The size is absolute: a repeat is safe. */
async function grow(
  storage: Storage,
  zvol: zvols.Zvol,
  size: number,
  deadline: Deadline,
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await zvols.grow(await storage.array(), zvol.name, size);
    } catch (error) {
      const isLost = isUnknownOutcome(error) || arrayErrorIn(error)?.code === "unreachable";
      if (!isLost) throw error;
      const now = await zvols.read(await storage.array(), zvol.name, deadline.bounds());
      // Another one of that name is none of ours to grow.
      if (now?.guid !== zvol.guid || now?.createdMs !== zvol.createdMs) throw error;
      if (now.volsize >= size) {
        storage.log.info(`the array's answer was lost, but "${zvol.name}" has grown`);
        return;
      }
      if (attempt >= TRIES) throw error;
    }
  }
}

/**
 * ZFS lets the reservation follow only when it is the one that ZFS computes itself, metadata included;
 * TrueNAS makes thick zvols with the bare size (`middlewared/plugins/pool_/dataset.py`). A failure is a
 * warning: the volume has grown, and the guest is to be told.
 */
async function keepThick(
  storage: Storage,
  zvol: string,
  size: number,
  deadline: Deadline,
): Promise<void> {
  try {
    const array = await storage.array();
    const now = await zvols.read(array, zvol, deadline.bounds());
    if (now === undefined || now.reserved >= size) return;
    await zvols.reserve(array, zvol, size);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(`"${zvol}" has grown, but the new part is not reserved: ${reason}`);
  }
}

/** Whether this node uses the disk: by its link, or by what else has it open. */
async function isHere(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity,
): Promise<boolean> {
  const linked = await linkedIdentity(storage, volume);
  if (linked !== undefined && isSameDisk(linked, identity)) return true;
  return (await storage.transport.users(identity)).length > 0;
}

/** Lets every path and the map take the new size, and looks once more at what the link reaches. */
async function followHere(
  storage: Storage,
  volume: VolumeRef,
  identity: DiskIdentity,
  size: number,
  deadline: Deadline,
): Promise<void> {
  const { transport } = storage;
  try {
    const disk = await transport.attach(identity, size, deadline);
    if (await transport.attached(identity, size, false, deadline) === undefined) {
      throw new TnblockError("host-fault", `the disk ${disk.device} changed after it was resized`);
    }
    await writeKnownDisk(storage, volume.zvol, { tag: tagOf(identity), identity, size });
    storage.log.info(`${disk.device} has ${size} bytes over ${disk.paths} paths`);
  } catch (error) {
    throw nodeBehind(volume, size, error);
  }
}

/** What to do when the array has grown it, and the caller does not know that all is done. */
const NOT_TWICE =
  "The volume is not grown twice: repeat the resize once the node is well. PVE leaves out a resize to the size " +
  "that the array has; grow it by a little more then, so that the guest is told";

/** The array is done and this node is not. */
function nodeBehind(volume: VolumeRef, size: number, error: unknown): TnblockError {
  const inner = withContext(
    error,
    `Cannot use the new size of the volume "${volume.zvol}" on this node: it has ${size} bytes on the array, but`,
  );
  return new TnblockError(inner.code, inner.message, {
    cause: error,
    hint: inner.hint === undefined ? NOT_TWICE : `${inner.hint}. ${NOT_TWICE}`,
    ...(inner.steps === undefined ? {} : { steps: inner.steps }),
  });
}
