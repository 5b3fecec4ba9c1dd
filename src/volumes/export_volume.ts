/** Handing out a volume's bytes: the disk is made ready here, and copied by whoever asked. */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { activate } from "./activate.ts";
import { deactivate } from "./deactivate.ts";
import { onceUnused } from "./once_unused.ts";
import { sizeInfo } from "./size_info.ts";
import type { Storage } from "./storage.ts";

/** How long a disk may still be looked into after its last writer or reader closed it, in ms. */
const SETTLE_MS = 3_000;

/** Activates the volume; gives its size in bytes, as the array has it now. */
export async function prepareExport(storage: Storage, volume: VolumeRef): Promise<number> {
  await activate(storage, volume);
  return (await sizeInfo(storage, volume)).size;
}

/** Deactivates a volume whose bytes were copied, from or to it; what somebody uses stays, and is no error. */
export async function finishCopy(storage: Storage, volume: VolumeRef): Promise<null> {
  try {
    return await onceUnused(storage, SETTLE_MS, () => deactivate(storage, volume));
  } catch (error) {
    if (!(error instanceof TnblockError) || error.code !== "in-use") throw error;
    storage.log.info(`"${volume.zvol}" stays attached: ${error.message}`);
    return null;
  }
}
