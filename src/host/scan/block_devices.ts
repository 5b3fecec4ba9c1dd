/** One look at all block devices of a node that come over NVMe or iSCSI. */
import type { HostFiles } from "../host.ts";
import { entries } from "./attributes.ts";
import { scanNvme } from "./nvme.ts";
import { scanScsi } from "./scsi.ts";
import type { BlockScan } from "./types.ts";

/**
 * Everything there is, sorted by name. Works as an ordinary user; what vanishes during the scan is
 * left out, what cannot be read is undefined.
 */
export async function scanBlockDevices(files: HostFiles): Promise<BlockScan> {
  const names = await entries(files, "/sys/block");
  const [nvme, scsi] = await Promise.all([scanNvme(files, names), scanScsi(files, names)]);
  return { nvme, scsi };
}
