/**
 * Making a zvol and exporting it, whatever it is made of: the two steps that allocating and cloning
 * share, with what takes each back.
 */
import { isDeepStrictEqual } from "node:util";
import { TnblockError } from "../common/error.ts";
import type { DiskIdentity, Groundwork, VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { destroyZvol } from "./destroy.ts";
import type { Details } from "./journal.ts";
import { journaled } from "./journaled.ts";
import { readKnownDisk } from "./known_disks.ts";
import { isOfOperation } from "./ownership.ts";
import { type OnFailure, type Storage, undoing, zvolPath } from "./storage.ts";

/** The zvol's name was free when it was read, and is taken now; the cause is the array's error. */
export class NameTaken extends Error {}

/** What is to be made. */
export interface NewExport {
  /** Last component of the new zvol's path. */
  readonly zvol: string;
  /** The token that the new zvol carries as `tnblock:op`: only what has it is ever taken back. */
  readonly operation: string;
  readonly groundwork: Groundwork;
  /** What the journal keeps of it. */
  readonly details: Details;
  /** Makes the zvol with {@link operation} among its marks. */
  readonly make: () => Promise<void>;
  /** Knows what {@link make} left behind before it came to the marks; nothing is unless given. */
  readonly isUnmarked?: (found: zvols.Zvol) => boolean;
}

/**
 * Makes and exports. What a failure leaves behind is taken back before the failure is told; so is
 * everything when the caller's deadline has passed, because nobody would know of it.
 *
 * @throws NameTaken when a zvol of that name exists by now.
 */
export async function makeExported(
  storage: Storage,
  array: Caller,
  wanted: NewExport,
): Promise<VolumeExport> {
  return await journaled(storage, async (storage, entry) => {
    await entry.begin(wanted.zvol, wanted.details);
    return await undoing(storage, async (onFailure) => {
      await makeZvol(storage, wanted, onFailure);
      storage.deadline.check();
      const made = await exportIt(storage, array, wanted, onFailure);
      // Nobody waits for the answer any more: a volume that no configuration names is an orphan.
      storage.deadline.check();
      return made;
    });
  });
}

async function makeZvol(
  storage: Storage,
  wanted: NewExport,
  onFailure: OnFailure,
): Promise<void> {
  const path = zvolPath(storage, wanted.zvol);
  // Before the call: its failure does not prove that nothing was made.
  onFailure(`zvol "${path}"`, async () => {
    const fresh = await storage.array();
    const made = await findOurs(storage, fresh, wanted);
    if (made === undefined) return false;
    await destroyZvol(storage, fresh, made, storage.undoDeadline());
    return true;
  });
  try {
    await wanted.make();
  } catch (error) {
    if (isExists(error)) throw new NameTaken("taken", { cause: error });
    if (!isUnknownOutcome(error)) throw error;
    // The answer was lost, not necessarily the deed: look for what carries this operation's token.
    const found = await zvols.read(await storage.array(), path);
    if (found === undefined || !isOfOperation(found, wanted.operation)) throw error;
    storage.log.info(`the array's answer was lost, but "${path}" was made`);
  }
}

async function exportIt(
  storage: Storage,
  array: Caller,
  wanted: NewExport,
  onFailure: OnFailure,
): Promise<VolumeExport> {
  const { zvol, groundwork } = wanted;
  const path = zvolPath(storage, zvol);
  const { transport } = storage;
  onFailure(`the export of "${path}"`, async () => {
    const fresh = await storage.array();
    // A late undo must not reach what was made under the same name since.
    if (await findOurs(storage, fresh, wanted) === undefined) return false;
    const found = await transport.lookUp(fresh, path, storage.undoDeadline());
    if (found.kind !== "ours" && found.kind !== "half") return false;
    if (found.kind === "ours" && await isAttachedHere(storage, zvol, found.export.identity)) {
      throw new TnblockError("in-use", `Cannot take back "${zvol}": it is attached on this node`);
    }
    await transport.removeExport(fresh, found.kind === "ours" ? found.export.rows : found.rows);
    return true;
  });
  return await transport.createExport(
    array,
    path,
    groundwork,
    async () => await findOurs(storage, array, wanted) !== undefined,
    storage.deadline,
  );
}

/** The zvol under the name, when it is what this operation made, not what was made there since. */
async function findOurs(
  storage: Storage,
  array: Caller,
  { zvol, operation, isUnmarked }: NewExport,
): Promise<zvols.Zvol | undefined> {
  const found = await zvols.read(array, zvolPath(storage, zvol));
  const isOurs = found !== undefined &&
    (isOfOperation(found, operation) || (isUnmarked?.(found) ?? false));
  return isOurs ? found : undefined;
}

/**
 * Whether this node uses that very disk: its name's answer may have been lost, and the volume found in
 * a listing and attached, long before it is to be taken back.
 */
async function isAttachedHere(
  storage: Storage,
  zvol: string,
  identity: DiskIdentity,
): Promise<boolean> {
  const known = await readKnownDisk(storage, zvol);
  if (known === undefined || !isDeepStrictEqual(known.identity, identity)) return false;
  storage.log.warning(`"${zvol}" was to be taken back, but is attached on this node: it stays`);
  return true;
}
