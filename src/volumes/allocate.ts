/**
 * Allocating a volume: one round of reads, then as few writes as the array allows (iSCSI three,
 * NVMe two). What a failure leaves behind is taken back before the failure is told. A target that has no
 * weight gets one here, under PVE's lock.
 */
import { TnblockError } from "../common/error.ts";
import type { ExportTag } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { type Groundwork, tagOf } from "../transport/transport.ts";
import { withVolumeLock } from "./attachment.ts";
import { untilSpared } from "./doomed_names.ts";
import { journaled } from "./journaled.ts";
import { makeExported } from "./make_exported.ts";
import { refuseHalfRenamed } from "./half_renamed.ts";
import { checkDataset, checkRoom, isOurs, marks, takenPaths } from "./ownership.ts";
import { refuseLongPath } from "./path_length.ts";
import { resize } from "./resize.ts";
import { planSize, type VolumeSize } from "./size.ts";
import { type Storage, zvolPath } from "./storage.ts";
import { asArrayTold, tryNames } from "./try_names.ts";
import { isNoted, unfinishedName, writeUnfinished } from "./unfinished_frees.ts";
import { ensureWeight } from "./weight.ts";

/** What is wanted. */
export interface NewVolume {
  /** KiB, as PVE counts; may be fractional. */
  readonly sizeKiB: number;
  /** The zvol's name, when the caller chose it ... */
  readonly name?: string;
  /** ... or its beginning, which gets the first free number from 0 to 999. */
  readonly prefix?: string;
  /** User properties beside the marks, from the zvol's path. */
  readonly also?: (path: string) => Readonly<Record<string, string>>;
  /** An existing volume of ours of that name is the answer, not an error (cloud-init); a smaller one grows. */
  readonly repeatable: boolean;
  /** Whether bytes are to follow: what is left of it goes with all that an import does. */
  readonly isImport?: boolean;
}

/** What was made. */
export interface AllocatedVolume {
  readonly zvol: string;
  readonly tag: ExportTag;
  /** False when it was there before, and is not this operation's to take back. */
  readonly isNew: boolean;
}

/**
 * Allocates and exports a volume. One of a given name beside no other operation on that name: what is being freed, or
 * taken back, is there still when it is looked for, and gone a moment later.
 */
export async function allocate(storage: Storage, wanted: NewVolume): Promise<AllocatedVolume> {
  if (wanted.name !== undefined && !wanted.repeatable) await untilFreed(storage, wanted.name);
  const made = wanted.name === undefined
    ? await allocateNow(storage, wanted)
    : await withVolumeLock(storage, wanted.name, () => allocateNow(storage, wanted));
  // Never smaller: the guest has what is beyond.
  const bytes = Math.ceil(wanted.sizeKiB * 1024);
  if (made.size !== undefined && bytes > made.size) await resize(storage, made, bytes, false);
  return made;
}

/** For how long PVE's worker is waited for that is to free what has the name, in ms: it comes at once. */
const WORKER_MS = 10_000;

/** Pause between two looks, in ms. */
const LOOK_EVERY_MS = 250;

/**
 * Waits while the volume of the name is being freed, by a worker that may not have begun (`unfinished_frees.ts`). A
 * note of another volume that had the name says nothing.
 */
async function untilFreed(storage: Storage, name: string): Promise<void> {
  if (!await isNoted(storage, name)) return;
  const { deadline, host } = storage;
  const array = await storage.array();
  const end = host.monotonicMs() + Math.min(WORKER_MS, deadline.leftMs() / 2);
  while (host.monotonicMs() < end) {
    const zvol = await zvols.read(array, zvolPath(storage, name), deadline.bounds());
    if (zvol === undefined || await unfinishedName(storage, name, zvol) === undefined) return;
    await host.wait(LOOK_EVERY_MS, deadline.signal);
  }
}

/** @returns with `size` in bytes for one that was there before. */
async function allocateNow(
  storage: Storage,
  wanted: NewVolume,
): Promise<AllocatedVolume & { readonly size?: number }> {
  const { settings, transport, deadline, log } = storage;
  const size = planSize(wanted.sizeKiB, settings.zvolBlockSize, transport.sectorSize);
  // Also one that is there: it may be destroyed yet.
  if (wanted.name !== undefined) await untilSpared(storage, wanted.name, "make the volume");
  const array = await storage.array();
  const [listing, groundwork] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.survey(array, deadline),
  ]);
  checkDataset(storage, listing.parent);
  groundwork.warnings.forEach((text) => log.warning(text));
  const taken = takenPaths(storage, listing);
  const existing = wanted.name === undefined
    ? undefined
    : listing.zvols.find((zvol) => zvol.name === zvolPath(storage, wanted.name ?? ""));
  if (existing !== undefined && wanted.repeatable && isOurs(storage, existing)) {
    return {
      ...await exportExisting(storage, array, existing, groundwork),
      size: existing.volsize,
    };
  }
  checkRoom(listing.parent, size.size);
  if (groundwork.full !== undefined) throw groundwork.full;
  if (size.note !== undefined) log.info(`new volume: ${size.note}`);
  deadline.check();
  return await journaled(storage, async (storage) => {
    const made = await create(
      storage,
      array,
      wanted,
      size,
      groundwork,
      taken,
      existing,
      listing.filesystems,
    );
    // After the volume, which the caller waits for; its LUN is taken by now.
    const withIt = made.tag.kind === "lun" ? [made.tag.lun] : [];
    const now = { ...groundwork, taken: new Set([...groundwork.taken, ...withIt]) };
    await ensureWeight(storage, array, listing, now, deadline, groundwork.taken.size === 0);
    return made;
  });
}

async function create(
  storage: Storage,
  array: Caller,
  wanted: NewVolume,
  size: VolumeSize,
  groundwork: Groundwork,
  taken: ReadonlySet<string>,
  existing: zvols.Zvol | undefined,
  filesystems: readonly string[],
): Promise<AllocatedVolume> {
  const operation = storage.host.randomUuid();
  const make = async (zvol: string) => {
    const made = await makeExported(storage, array, {
      zvol,
      operation,
      groundwork,
      details: wanted.isImport === true
        ? { op: "import", operation }
        : { op: "alloc", operation, repeatable: wanted.repeatable },
      make: () =>
        createZvol(storage, array, zvol, size, {
          ...marks(storage, zvol, operation),
          ...wanted.also?.(zvolPath(storage, zvol)),
        }),
    });
    return { zvol, tag: tagOf(made.identity), isNew: true };
  };
  if (wanted.name === undefined) {
    return await tryNames(storage, wanted.prefix ?? "", taken, make);
  }
  refuseLongPath(storage, wanted.name);
  const path = zvolPath(storage, wanted.name);
  if (existing !== undefined || filesystems.includes(path)) {
    throw nameTaken(storage, wanted.name, existing);
  }
  // Left behind by a rename: gone for good, as a rule.
  if (taken.has(path)) await refuseHalfRenamed(storage, array, path);
  return await make(wanted.name).catch(asArrayTold);
}

function nameTaken(
  storage: Storage,
  name: string,
  existing: zvols.Zvol | undefined,
): TnblockError {
  if (existing !== undefined && isOurs(storage, existing)) {
    return new TnblockError("exists", `Cannot make the volume "${name}": it exists already`);
  }
  return new TnblockError(
    "not-ours",
    `Cannot make the volume "${name}": "${
      zvolPath(storage, name)
    }" is on the array, but carries no mark of this storage`,
    { hint: "Rename or delete it in TrueNAS if nobody needs it; tnblock leaves it alone" },
  );
}

async function createZvol(
  storage: Storage,
  array: Caller,
  zvol: string,
  size: VolumeSize,
  userProperties: Readonly<Record<string, string>>,
): Promise<void> {
  const { settings } = storage;
  await zvols.create(array, {
    name: zvolPath(storage, zvol),
    volsize: size.size,
    volblocksize: size.blockSize < 1024 ? String(size.blockSize) : `${size.blockSize / 1024}K`,
    sparse: settings.sparse,
    ...(settings.compression === undefined ? {} : { compression: settings.compression }),
    userProperties,
  });
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
  // The drive may have been removed a moment ago, with PVE's worker on its way to free it.
  await writeUnfinished(storage, { zvol }, undefined);
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
