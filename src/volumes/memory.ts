/**
 * What the daemon remembers of a storage, as the verbs see it: answers that cost no call, or a failure
 * when what is remembered is too old. Memory answers reads; it never decides what is destroyed.
 */
import type { Deadline } from "../common/deadline.ts";
import type { VolumeExport } from "../transport/transport.ts";
import type { VolumeRef } from "../common/volume.ts";
import * as zvols from "../truenas/zvols.ts";
import type { StorageStatus } from "./status.ts";
import type { Storage } from "./storage.ts";

/** All zvols below a storage's dataset, and what its target or subsystem exports of them. */
export interface VolumeListing {
  readonly zvols: readonly zvols.Zvol[];
  readonly exports: readonly VolumeExport[];
}

/** The memory of one storage. */
export interface StorageMemory {
  /**
   * What was read last, with everything in it that this node has changed since. Waits for reads under way.
   *
   * @throws TnblockError with the code of what keeps the array from answering, when it is too old.
   */
  listing(deadline: Deadline): Promise<VolumeListing>;
  /**
   * Resolves when there is something to answer from, or the array is known not to answer: at once but for the
   * first second of a storage that nothing is known of.
   */
  begun(): Promise<void>;
  /** Never waits; `active` is 0 when it is too old or unknown. */
  status(): StorageStatus;
  /**
   * Whether zvol and export are there as the name says; false also while they are known to have changed, and
   * not how. Undefined when what is remembered is too old to tell.
   */
  has(volume: VolumeRef): boolean | undefined;
  /** False when the array and its portals are known to be away; true when it is not known. */
  isReachable(): boolean;
  /** Writes on these volumes are over: whatever is remembered of them is to be read again. */
  changed(zvols: readonly string[]): void;
}

/** Reads a listing from the array: at most three calls, whatever the number of volumes. */
export async function readListing(
  storage: Pick<Storage, "settings" | "transport" | "array">,
  deadline: Deadline,
): Promise<VolumeListing> {
  const { settings, transport } = storage;
  const array = await storage.array();
  const [listing, exports] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.listExports(array, settings.dataset, deadline),
  ]);
  return { zvols: listing.zvols, exports };
}
