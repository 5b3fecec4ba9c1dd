/** The scanner over a real file system, for programs that import tnblock. */
import { linuxHost } from "./linux.ts";
import { scanBlockDevices as scan } from "./scan/block_devices.ts";
import type { BlockScan } from "./scan/types.ts";

/**
 * Every NVMe and iSCSI disk that a machine sees, with controllers, sessions and multipath maps.
 *
 * @param root the folder that stands for `/`; a recorded tree works as well.
 *
 * @example
 * ```ts
 * import { scanBlockDevices } from "@tnblock/tnblock";
 * const { nvme } = await scanBlockDevices("/");
 * const heads = nvme.disks.filter((disk) => disk.kind === "head");
 * ```
 */
export async function scanBlockDevices(root = "/"): Promise<BlockScan> {
  return await scan(linuxHost({ root }).files);
}
