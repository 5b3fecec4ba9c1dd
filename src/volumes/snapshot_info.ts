/** The snapshots of one volume. */
import type { VolumeRef } from "../common/volume.ts";
import * as snapshots from "../truenas/snapshots.ts";
import { resolveVolume } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** A snapshot as PVE asks for it. */
export interface SnapshotInfo {
  readonly name: string;
  /** ZFS's guid: no other snapshot ever has it. */
  readonly id: string;
  /** Epoch seconds. */
  readonly timestamp: number;
}

/**
 * All snapshots of a volume, oldest first: TrueNAS's own ones and the `__base__` of a template too, because
 * each of them bars the way back to older ones.
 */
export async function snapshotInfo(
  storage: Storage,
  volume: VolumeRef,
): Promise<SnapshotInfo[]> {
  const array = await storage.array();
  const path = zvolPath(storage, volume.zvol);
  const wait = storage.deadline.bounds();
  const [{ zvol }, atName] = await Promise.all([
    resolveVolume(storage, array, volume),
    snapshots.list(array, path, wait),
  ]);
  // Its path is another one when a rename of it stopped half-way.
  const found = zvol.name === path ? atName : await snapshots.list(array, zvol.name, wait);
  return found.map(({ name, guid, createTxg, createdMs }) => ({
    name,
    id: guid ?? String(createTxg),
    timestamp: Math.floor(createdMs / 1000),
  }));
}
