/** Listing a storage's volumes: at most three calls, whatever their number. */
import type { VolumeRef } from "../common/volume.ts";
import type { ExportTag } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import { isProtected, notesOf } from "./attributes.ts";
import type { Zvol } from "../truenas/zvols.ts";
import { readListing, type VolumeListing } from "./memory.ts";
import { isOurs } from "./ownership.ts";
import { BASE_SNAPSHOT } from "./create_base.ts";
import { exportInListing } from "./half_renamed.ts";
import { readingOf } from "./reading.ts";
import type { Storage } from "./storage.ts";
import { unfinishedName } from "./unfinished_frees.ts";
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

/** Listings that were looked through already: the daemon gives the same one until something changes. */
const KNOWN = new WeakMap<VolumeListing, readonly ListedVolume[]>();

/**
 * All volumes that carry this storage's marks and are exported by it; the hidden clones through which
 * nodes read snapshots are none. The same list again while a memory has nothing new.
 *
 * Foreign zvols, extents and namespaces are left out; an array that does not answer is an error,
 * because an empty list reads as "free to use".
 */
export async function listVolumes(storage: Storage): Promise<readonly ListedVolume[]> {
  const { deadline, memory } = storage;
  if (memory === undefined) {
    const listing = await readListing(storage, deadline);
    await warnUnexported(storage, withoutExport(storage, listing));
    return volumesIn(storage, listing);
  }
  const listing = await memory.listing(deadline);
  const known = KNOWN.get(listing) ?? volumesIn(storage, listing);
  KNOWN.set(listing, known);
  return known;
}

/** What a listing belongs to. */
type Owner = Pick<Storage, "settings" | "clusterId">;

function volumesIn(storage: Owner, listing: VolumeListing): ListedVolume[] {
  const { exports } = listing;
  const byPath = new Map(exports.map((one) => [one.zvol, one]));
  const tags = new Map(exports.map((one) => [one.zvol, tagOf(one.identity)]));
  const nameOf = (path: string) => path.slice(storage.settings.dataset.length + 1);
  const baseOf = (origin: string | undefined): VolumeRef | undefined => {
    const path = origin?.slice(0, origin.indexOf("@"));
    // Clones of other snapshots go by their plain names, also when their volume became a base since.
    if (path === undefined || !nameOf(path).startsWith("base-")) return undefined;
    if (origin !== `${path}@${BASE_SNAPSHOT}`) return undefined;
    const tag = tags.get(path);
    return tag === undefined ? undefined : { zvol: nameOf(path), tag };
  };
  return guestVolumes(storage, listing).flatMap((zvol) => {
    const exported = exportInListing(zvol, byPath);
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

function guestVolumes(storage: Owner, { zvols }: VolumeListing): Zvol[] {
  return zvols.filter((zvol) =>
    isOurs(storage, zvol) && readingOf(zvol) === undefined && !isWeight(zvol)
  );
}

/** Full paths of volumes that PVE cannot be told of, because nothing exports them: they must not vanish in silence. */
export function unexported(storage: Owner, listing: VolumeListing): string[] {
  return withoutExport(storage, listing).map((zvol) => zvol.name);
}

function withoutExport(storage: Owner, listing: VolumeListing): Zvol[] {
  const byPath = new Map(listing.exports.map((one) => [one.zvol, one]));
  return guestVolumes(storage, listing)
    .filter((zvol) => exportInListing(zvol, byPath) === undefined);
}

/** So many of them are named. */
const NAMED = 5;

/** Without an export they have no volume name. Where a free has begun, freeing again under the old one ends it. */
async function warnUnexported(storage: Storage, found: readonly Zvol[]): Promise<void> {
  if (found.length === 0) return;
  const { settings, log } = storage;
  const named = await Promise.all(
    found.slice(0, NAMED).map(async (zvol) => {
      const own = zvol.name.slice(settings.dataset.length + 1);
      const volname = await unfinishedName(storage, own, zvol);
      return volname === undefined
        ? `"${zvol.name}"`
        : `"${zvol.name}" (being freed; if that has stopped: pvesm free ${settings.id}:${volname})`;
    }),
  );
  const more = found.length > NAMED ? ` and ${found.length - NAMED} more` : "";
  log.warning(
    `not listed, because nothing exports them: ${
      named.join(", ")
    }${more}; look at what is not being freed in TrueNAS, then run tnblock cleanup-orphans`,
  );
}
