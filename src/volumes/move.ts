/**
 * Giving a volume another name on the array: marks, export and zvol, in an order that no reload by
 * anybody can break, each step with what takes it back. The disk keeps its number and its identity.
 *
 * 1. The marks first: they are right before and after, so that a crash leaves nothing unrecognised.
 * 2. NVMe: the namespace is switched off, which a path that is gone would prevent.
 * 3. The zvol is renamed; what the target has open stays open, and no reload looks at an old path.
 * 4. The export is pointed at the new path, and on again.
 */
import { isDeepStrictEqual } from "node:util";
import { TnblockError } from "../common/error.ts";
import type { VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { NameTaken } from "./make_exported.ts";
import {
  isOfOperation,
  isRenameBegun,
  marksBefore,
  renameMarks,
  wasRenamedAs,
} from "./ownership.ts";
import type { ResolvedVolume } from "./resolve.ts";
import type { OnFailure, Storage } from "./storage.ts";

/** What is to be moved. */
export interface Move {
  readonly source: ResolvedVolume;
  /** Full path of a zvol that does not exist, directly below the storage's dataset. */
  readonly to: string;
  /** The token that the volume carries from now on as `tnblock:op`. */
  readonly operation: string;
}

/**
 * Moves a volume; to be called within `undoing`, when nobody uses the volume.
 *
 * @throws NameTaken when the new name is taken by now.
 */
export async function moveVolume(
  storage: Storage,
  array: Caller,
  move: Move,
  onFailure: OnFailure,
): Promise<VolumeExport> {
  const { transport, deadline } = storage;
  const { source, to } = move;
  const unknownBefore = storage.unknownWrites();
  const isDoubtful = () => storage.unknownWrites() > unknownBefore;
  // Off while a rename has begun: a rename that stopped there switched it off, not the administrator.
  const enabled = source.export.enabled || isRenameBegun(source.zvol);
  const found = { ...source.export, enabled };
  await writeMarks(storage, array, move, isDoubtful, onFailure);
  deadline.check();
  onFailure(`the export of "${source.zvol.name}"`, async () => {
    if (!await isThere(storage, source.zvol.name, move.operation)) return false;
    const fresh = await storage.array();
    return await transport.repoint(fresh, found, source.zvol.name, storage.undoDeadline());
  });
  await transport.suspend(array, found);
  deadline.check();
  await rename(storage, array, move, onFailure);
  // Before the zvol goes back: as before it came here.
  onFailure(`the export of "${to}"`, async () => {
    if (!await isThere(storage, to, move.operation)) return false;
    return await transport.suspend(await storage.array(), found);
  });
  // At once, whoever waits: until then the export's path leads nowhere.
  await transport.repoint(array, found, to, deadline);
  return await verifyMoved(storage, array, found, to);
}

async function writeMarks(
  storage: Storage,
  array: Caller,
  { source, to, operation }: Move,
  isDoubtful: () => boolean,
  onFailure: OnFailure,
): Promise<void> {
  const from = source.zvol.name;
  onFailure(`the marks on "${from}"`, async () => {
    // The array may be at a step yet. They are right under both names, and the journal's entry stays open: its
    // recovery puts right what still comes, and takes them back.
    if (isDoubtful()) return false;
    if (!await isThere(storage, from, operation)) return false;
    await zvols.setUserProperties(await storage.array(), from, marksBefore(source.zvol));
    return true;
  });
  const marks = renameMarks(from, to, source.export.identity, operation);
  // Without them the zvol would be nobody's under its new path.
  await verified(
    `mark "${from}" for its rename`,
    () => zvols.setUserProperties(array, from, marks),
    () => isThere(storage, from, operation),
  );
}

async function rename(
  storage: Storage,
  array: Caller,
  { source, to, operation }: Move,
  onFailure: OnFailure,
): Promise<void> {
  const from = source.zvol.name;
  onFailure(`the rename of "${from}" to "${to}"`, async () => {
    const fresh = await storage.array();
    if (!await isThere(storage, to, operation)) return false;
    await verified(
      `rename "${to}" to "${from}"`,
      () => zvols.rename(fresh, to, from),
      () => isThere(storage, from, operation),
    );
    return true;
  });
  try {
    await verified(
      `rename "${from}" to "${to}"`,
      () => zvols.rename(array, from, to),
      () => isThere(storage, to, operation),
    );
  } catch (error) {
    throw isExists(error) ? new NameTaken("taken", { cause: error }) : error;
  }
}

/** Whether the volume that this operation moves has this path. */
async function isThere(storage: Storage, path: string, operation: string): Promise<boolean> {
  const found = await zvols.read(await storage.array(), path);
  return found !== undefined && isOfOperation(found, operation);
}

/**
 * Writes, and believes only what is there then: answers get lost, and 26 says `true` to what it did not do.
 *
 * @param doing as in a message.
 */
async function verified(
  doing: string,
  write: () => Promise<void>,
  isDone: () => Promise<boolean>,
): Promise<void> {
  let lost: unknown;
  try {
    await write();
  } catch (error) {
    if (!isUnknownOutcome(error)) throw error;
    lost = error;
  }
  if (await isDone()) return;
  throw lost ?? new TnblockError(
    "array-fault",
    `Cannot ${doing}: TrueNAS answered that it did, but it is not so`,
  );
}

/**
 * Takes a rename back that stopped half-way: the zvol gets the path again that its export still has, and the
 * export is switched on there.
 *
 * @param half a zvol and the export that it left behind.
 */
export async function moveBack(
  storage: Storage,
  array: Caller,
  half: ResolvedVolume,
): Promise<void> {
  const from = half.zvol.name;
  const to = half.export.zvol;
  await verified(
    `rename "${from}" back to "${to}"`,
    () => zvols.rename(array, from, to),
    async () => {
      const found = await zvols.read(await storage.array(), to);
      return found !== undefined && wasRenamedAs(found, half.export.identity);
    },
  );
  await storage.transport.repoint(array, { ...half.export, enabled: true }, to, storage.deadline);
}

/** Reads back: it must be the same disk under the new path. */
async function verifyMoved(
  storage: Storage,
  array: Caller,
  before: VolumeExport,
  to: string,
): Promise<VolumeExport> {
  const now = await storage.transport.lookUp(array, to, storage.deadline);
  if (now.kind === "ours" && isDeepStrictEqual(now.export.identity, before.identity)) {
    return now.export;
  }
  throw new TnblockError(
    "array-fault",
    `Cannot rename "${before.zvol}": the array exports "${to}" as another disk than before`,
    { hint: "Look at the extents or namespaces of both names in TrueNAS" },
  );
}
