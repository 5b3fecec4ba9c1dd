/** The size of a volume, from the array: it need not be attached here. */
import type { VolumeRef } from "../common/volume.ts";
import { resolveVolume } from "./resolve.ts";
import type { Storage } from "./storage.ts";

/** Size, space taken (bytes) and creation time (epoch seconds). */
export async function sizeInfo(
  storage: Storage,
  volume: VolumeRef,
): Promise<{ readonly size: number; readonly used: number; readonly created: number }> {
  const { zvol } = await resolveVolume(storage, await storage.array(), volume);
  return { size: zvol.volsize, used: zvol.used, created: Math.floor(zvol.createdMs / 1000) };
}
