/** Linked clones: a zvol that shares its blocks with a snapshot of another, exported on its own. */
import { TnblockError } from "../common/error.ts";
import type { ExportTag, VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as zvols from "../truenas/zvols.ts";
import { BASE_SNAPSHOT } from "./create_base.ts";
import { makeExported } from "./make_exported.ts";
import { MarkedClone } from "./marked_clone.ts";
import { checkDataset, checkRoom, marks, takenPaths } from "./ownership.ts";
import { resolveVolume } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";
import { tryNames } from "./try_names.ts";

/** What is wanted. */
export interface NewClone {
  /** Of the source; a base's own snapshot when absent. */
  readonly snapshot: string | undefined;
  /** The beginning of the clone's name, which gets the first free number from 0 to 999. */
  readonly prefix: string;
}

/** What was made. */
export interface ClonedVolume {
  readonly zvol: string;
  readonly tag: ExportTag;
  /** Whether it hangs on a base: PVE's name for it holds the base's then. */
  readonly isOfBase: boolean;
}

/**
 * Clones a base, or a named snapshot of any volume, and exports the clone.
 *
 * @throws TnblockError `not-found` (the snapshot), `invalid` (no base and no snapshot), `no-space`.
 */
export async function cloneVolume(
  storage: Storage,
  volume: VolumeRef,
  { snapshot: wanted, prefix }: NewClone,
): Promise<ClonedVolume> {
  const { settings, transport, deadline, log } = storage;
  const isBase = volume.zvol.startsWith("base-");
  if (!isBase && wanted === undefined) {
    throw new TnblockError(
      "invalid",
      `Cannot clone the volume "${volume.zvol}": it is no base, and no snapshot is named`,
      { field: "args.snapshot" },
    );
  }
  const name = wanted ?? BASE_SNAPSHOT;
  const path = zvolPath(storage, volume.zvol);
  const array = await storage.array();
  const [{ zvol: source, export: exported }, listing, groundwork, snapshot] = await Promise.all([
    resolveVolume(storage, array, volume),
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.survey(array, deadline),
    snapshots.read(array, path, name, deadline.bounds()),
  ]);
  checkDataset(storage, listing.parent);
  groundwork.warnings.forEach((text) => log.warning(text));
  if (snapshot === undefined) throw noSnapshot(volume, name, isBase);
  const size = snapshot.volsize ?? source.volsize;
  // A sparse clone needs next to nothing; a thick one reserves all of its size.
  if (!settings.sparse) checkRoom(listing.parent, size);
  if (groundwork.full !== undefined) throw groundwork.full;
  const taken = takenPaths(storage, listing);
  deadline.check();
  const operation = storage.host.randomUuid();
  return await tryNames(storage, prefix, taken, async (zvol) => {
    const clone = new MarkedClone(storage, {
      snapshot: `${path}@${name}`,
      path: zvolPath(storage, zvol),
      operation,
      marks: {
        userProperties: marks(storage, zvol, operation),
        ...(settings.sparse ? {} : { refreservation: size }),
      },
    });
    const made = await makeExported(storage, array, {
      zvol,
      operation,
      // The partition table counts in the source's blocks, whatever the storage is set to by now.
      groundwork: { ...groundwork, sectorSize: exported.sectorSize },
      details: { op: "clone", operation, origin: `${path}@${name}` },
      make: () => clone.make(array),
      isUnmarked: (found) => clone.isUnmarked(found),
    });
    return { zvol, tag: tagOf(made.identity), isOfBase: isBase && name === BASE_SNAPSHOT };
  });
}

function noSnapshot(volume: VolumeRef, name: string, isBase: boolean): TnblockError {
  return new TnblockError(
    "not-found",
    `Cannot clone the volume "${volume.zvol}": it has no snapshot "${name}"`,
    isBase && name === BASE_SNAPSHOT
      ? { hint: "The template was left half made, or its snapshot deleted by hand: make it again" }
      : {},
  );
}
