/** The size of a volume, from the array: it need not be attached here. */
import type { VolumeRef } from "../common/volume.ts";
import { resolveVolume } from "./resolve.ts";
import type { Storage } from "./storage.ts";
import { diskWithoutArray, isNoAnswer } from "./without_array.ts";

/**
 * Size, space taken (bytes) and creation time (epoch seconds).
 *
 * A cloud-init disk is described without the array too, as it is attached without it: at a guest's start
 * qemu-server asks for its size, and allocates it anew when there is none (`PVE/QemuServer/Cloudinit.pm`).
 */
export async function sizeInfo(
  storage: Storage,
  volume: VolumeRef,
): Promise<{ readonly size: number; readonly used: number; readonly created: number }> {
  try {
    const away = volume.tag === undefined ? await storage.arrayAway?.() : undefined;
    if (away !== undefined) throw away;
    const { zvol } = await resolveVolume(storage, await storage.array(), volume);
    return { size: zvol.volsize, used: zvol.used, created: Math.floor(zvol.createdMs / 1000) };
  } catch (error) {
    if (volume.tag !== undefined || !isNoAnswer(error)) throw error;
    const { size, createdMs } = await diskWithoutArray(storage, volume, error, "describe");
    return { size, used: size, created: Math.floor(createdMs / 1000) };
  }
}
