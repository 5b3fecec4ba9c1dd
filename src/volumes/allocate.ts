/**
 * Allocating a volume: one round of reads, then as few writes as the array allows (iSCSI three,
 * NVMe two). What a failure leaves behind is taken back before the failure is told.
 */
import { isDeepStrictEqual } from "node:util";
import { TnblockError } from "../common/error.ts";
import type { ExportTag } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import {
  type DiskIdentity,
  type Groundwork,
  tagOf,
  type VolumeExport,
} from "../transport/transport.ts";
import { destroyZvol } from "./destroy.ts";
import { freeName } from "./free_name.ts";
import { readKnownDisk } from "./known_disks.ts";
import { checkDataset, checkRoom, isOfOperation, isOurs, marks } from "./ownership.ts";
import { planSize, type VolumeSize } from "./size.ts";
import { type OnFailure, type Storage, undoing, zvolPath } from "./storage.ts";

/** What is wanted. */
export interface NewVolume {
  /** KiB, as PVE counts; may be fractional. */
  readonly sizeKiB: number;
  /** The zvol's name, when the caller chose it ... */
  readonly name?: string;
  /** ... or its beginning, which gets the first free number from 0 to 999. */
  readonly prefix?: string;
  /** An existing volume of ours of that name is the answer, not an error (cloud-init). */
  readonly repeatable: boolean;
}

/** What was made. */
export interface AllocatedVolume {
  readonly zvol: string;
  readonly tag: ExportTag;
  /** False when it was there before, and is not this operation's to take back. */
  readonly isNew: boolean;
}

/** How often another number is tried when somebody else took the name at the same moment. */
const NAME_TRIES = 25;

/** Allocates and exports a volume. */
export async function allocate(storage: Storage, wanted: NewVolume): Promise<AllocatedVolume> {
  const { settings, transport, deadline, log } = storage;
  const size = planSize(wanted.sizeKiB, settings.zvolBlockSize, transport.sectorSize);
  const array = await storage.array();
  const [listing, groundwork] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.survey(array, deadline),
  ]);
  checkDataset(storage, listing.parent);
  groundwork.warnings.forEach((text) => log.warning(text));
  const taken = new Set([...listing.zvols.map((zvol) => zvol.name), ...listing.filesystems]);
  const existing = wanted.name === undefined
    ? undefined
    : listing.zvols.find((zvol) => zvol.name === zvolPath(storage, wanted.name ?? ""));
  if (existing !== undefined && wanted.repeatable && isOurs(storage, existing)) {
    return await exportExisting(storage, array, existing, groundwork);
  }
  checkRoom(listing.parent, size.size);
  if (groundwork.full !== undefined) throw groundwork.full;
  if (size.note !== undefined) log.info(`new volume: ${size.note}`);
  deadline.check();
  return await create(storage, array, wanted, size, groundwork, taken, existing);
}

async function create(
  storage: Storage,
  array: Caller,
  wanted: NewVolume,
  size: VolumeSize,
  groundwork: Groundwork,
  taken: ReadonlySet<string>,
  existing: zvols.Zvol | undefined,
): Promise<AllocatedVolume> {
  const operation = storage.host.randomUuid();
  const names = new Set(taken);
  for (let attempt = 1;; attempt++) {
    const zvol = chooseName(storage, wanted, names, existing);
    try {
      return await undoing(storage, async (onFailure) => {
        await createZvol(storage, array, zvol, size, operation, onFailure);
        storage.deadline.check();
        const made = await createExport(storage, array, zvol, groundwork, operation, onFailure);
        // Nobody waits for the answer any more: a volume that no configuration names is an orphan.
        storage.deadline.check();
        return { zvol, tag: tagOf(made.identity), isNew: true };
      });
    } catch (error) {
      // Another node or cluster took the name between the reads and the write.
      if (!(error instanceof NameTaken) || wanted.name !== undefined || attempt >= NAME_TRIES) {
        throw error instanceof NameTaken ? error.cause : error;
      }
      names.add(zvolPath(storage, zvol));
    }
  }
}

/** The zvol's name was free when it was read, and is taken now. */
class NameTaken extends Error {}

function chooseName(
  storage: Storage,
  wanted: NewVolume,
  taken: ReadonlySet<string>,
  existing: zvols.Zvol | undefined,
): string {
  if (wanted.name !== undefined) {
    if (!taken.has(zvolPath(storage, wanted.name))) return wanted.name;
    const path = zvolPath(storage, wanted.name);
    if (existing !== undefined && isOurs(storage, existing)) {
      throw new TnblockError(
        "exists",
        `Cannot make the volume "${wanted.name}": it exists already`,
      );
    }
    throw new TnblockError(
      "not-ours",
      `Cannot make the volume "${wanted.name}": "${path}" is on the array, but carries no mark of this storage`,
      {
        hint: "Rename or delete it in TrueNAS if nobody needs it; tnblock leaves it alone",
      },
    );
  }
  const { dataset } = storage.settings;
  return freeName(wanted.prefix ?? "", (name) => taken.has(`${dataset}/${name}`));
}

async function createZvol(
  storage: Storage,
  array: Caller,
  zvol: string,
  size: VolumeSize,
  operation: string,
  onFailure: OnFailure,
): Promise<void> {
  const path = zvolPath(storage, zvol);
  const { settings } = storage;
  // Before the call: its failure does not prove that nothing was made.
  onFailure(`zvol "${path}"`, async () => {
    const fresh = await storage.array();
    if (!await isStillOurs(storage, fresh, zvol, operation)) return false;
    await destroyZvol(storage, fresh, path, storage.undoDeadline());
    return true;
  });
  try {
    await zvols.create(array, {
      name: path,
      volsize: size.size,
      volblocksize: size.blockSize < 1024 ? String(size.blockSize) : `${size.blockSize / 1024}K`,
      sparse: settings.sparse,
      ...(settings.compression === undefined ? {} : { compression: settings.compression }),
      userProperties: marks(storage, zvol, operation),
    });
  } catch (error) {
    if (isExists(error)) throw new NameTaken("taken", { cause: error });
    if (!isUnknownOutcome(error)) throw error;
    // The answer was lost, not necessarily the deed: look for what carries this operation's token.
    const found = await zvols.read(await storage.array(), path);
    if (found === undefined || !isOfOperation(found, operation)) throw error;
    storage.log.info(`the array's answer was lost, but "${path}" was made`);
  }
}

async function createExport(
  storage: Storage,
  array: Caller,
  zvol: string,
  groundwork: Groundwork,
  operation: string,
  onFailure: OnFailure,
): Promise<VolumeExport> {
  const path = zvolPath(storage, zvol);
  const { transport } = storage;
  onFailure(`the export of "${path}"`, async () => {
    const fresh = await storage.array();
    // A late undo must not reach what was made under the same name since.
    if (!await isStillOurs(storage, fresh, zvol, operation)) return false;
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
    () => isStillOurs(storage, array, zvol, operation),
    storage.deadline,
  );
}

/** Whether what stands under the name is what this operation made, not what was made there since. */
async function isStillOurs(
  storage: Storage,
  array: Caller,
  zvol: string,
  operation: string,
): Promise<boolean> {
  const found = await zvols.read(array, zvolPath(storage, zvol));
  return found !== undefined && isOfOperation(found, operation);
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

/** A volume that is there already: its export is used, or made when it is missing. */
async function exportExisting(
  storage: Storage,
  array: Caller,
  existing: zvols.Zvol,
  groundwork: Groundwork,
): Promise<AllocatedVolume> {
  const { transport, deadline, settings } = storage;
  const zvol = existing.name.slice(settings.dataset.length + 1);
  const found = await transport.lookUp(array, existing.name, deadline);
  if (found.kind === "ours") return { zvol, tag: tagOf(found.export.identity), isNew: false };
  if (found.kind === "foreign") {
    throw new TnblockError(
      "not-ours",
      `Cannot use the volume "${zvol}": it is exported as ${found.what}`,
    );
  }
  const made = await transport.createExport(
    array,
    existing.name,
    groundwork,
    () => Promise.resolve(false),
    deadline,
  );
  return { zvol, tag: tagOf(made.identity), isNew: false };
}
