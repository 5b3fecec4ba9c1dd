/** Listing a storage's volumes: at most three calls, whatever their number. */
import type { VolumeRef } from "../common/volume.ts";
import type { ExportTag } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import * as zvols from "../truenas/zvols.ts";
import { isProtected, notesOf } from "./attributes.ts";
import { isOurs } from "./ownership.ts";
import { BASE_SNAPSHOT } from "./create_base.ts";
import { exportInListing } from "./half_renamed.ts";
import { readingOf } from "./reading.ts";
import type { Storage } from "./storage.ts";
import { isWeight } from "./weight.ts";

/** A volume in a listing. */
export interface ListedVolume {
  readonly zvol: string;
  readonly tag: ExportTag;
  /** Bytes. */
  readonly size: number;
  /** Bytes on disk. */
  readonly used: number;
  /** Epoch seconds. */
  readonly created: number;
  /** The volume that it is a linked clone of. */
  readonly base: VolumeRef | undefined;
  /** Empty when there are none. */
  readonly notes: string;
  readonly protected: boolean;
}

/**
 * All volumes that carry this storage's marks and are exported by it; the hidden clones through which
 * nodes read snapshots are none.
 *
 * Foreign zvols, extents and namespaces are left out; an array that does not answer is an error,
 * because an empty list reads as "free to use".
 */
export async function listVolumes(storage: Storage): Promise<ListedVolume[]> {
  const { settings, transport, deadline } = storage;
  const array = await storage.array();
  const [listing, exports] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.listExports(array, settings.dataset, deadline),
  ]);
  const byPath = new Map(exports.map((one) => [one.zvol, one]));
  const tags = new Map(exports.map((one) => [one.zvol, tagOf(one.identity)]));
  const nameOf = (path: string) => path.slice(settings.dataset.length + 1);
  const baseOf = (origin: string | undefined): VolumeRef | undefined => {
    const path = origin?.slice(0, origin.indexOf("@"));
    // Clones of other snapshots go by their plain names, also when their volume became a base since.
    if (path === undefined || !nameOf(path).startsWith("base-")) return undefined;
    if (origin !== `${path}@${BASE_SNAPSHOT}`) return undefined;
    const tag = tags.get(path);
    return tag === undefined ? undefined : { zvol: nameOf(path), tag };
  };
  const ours = listing.zvols.filter((zvol) =>
    isOurs(storage, zvol) && readingOf(zvol) === undefined && !isWeight(zvol)
  );
  const found = ours.map((zvol) => ({ zvol, export: exportInListing(zvol, byPath) }));
  warnUnexported(
    storage,
    found.filter((one) => one.export === undefined).map(({ zvol }) => zvol.name),
  );
  return found.flatMap(({ zvol, export: exported }) => {
    if (exported === undefined) return [];
    return [{
      zvol: nameOf(exported.zvol),
      tag: tagOf(exported.identity),
      size: zvol.volsize,
      used: zvol.used,
      created: Math.floor(zvol.createdMs / 1000),
      base: baseOf(zvol.origin),
      notes: notesOf(zvol),
      protected: isProtected(zvol),
    }];
  });
}

/** Volumes that PVE cannot be told of, because nothing exports them: they must not vanish in silence. */
function warnUnexported(storage: Storage, paths: readonly string[]): void {
  if (paths.length === 0) return;
  const names = paths.slice(0, 5).join(", ") +
    (paths.length > 5 ? ` and ${paths.length - 5} more` : "");
  storage.log.warning(`not listed, because nothing exports them: ${names}`);
}
