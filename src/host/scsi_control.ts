/**
 * Writes to the control files of SCSI hosts and disks. They hang in the kernel while the path is dead
 * and cannot be killed, so that a lock allows one at a time for each SCSI host (an iSCSI session has
 * one of its own), as the kernel itself does most of them.
 */
import { NODE_LOCK_MS, SCSI_CONTROL_MS } from "../common/timing.ts";
import { type Bounds, type Host, HostError } from "./host.ts";
import { lastName, place } from "./scan/attributes.ts";
import type { ScsiDisk } from "./scan/types.ts";

/** Writes a text to a control file; false when there is none any more. */
export type ControlWrite = (path: string, text: string) => Promise<boolean>;

/**
 * Runs `work`, which may look, and then do one write, under the lock of the SCSI host. A write that
 * goes on after its deadline keeps the lock until the kernel ends it.
 *
 * @throws HostError; `LockError` while another write to that SCSI host hangs.
 */
export async function onScsiHost<T>(
  host: Host,
  scsiHost: number,
  signal: AbortSignal | undefined,
  work: (write: ControlWrite) => Promise<T>,
): Promise<T> {
  const bounds = (deadlineMs: number): Bounds =>
    signal === undefined ? { deadlineMs } : { deadlineMs, signal };
  const release = await host.lock(`scsi-host-${scsiHost}`, bounds(NODE_LOCK_MS));
  let handedOver = false;
  try {
    return await work(async (path, text) => {
      if (handedOver) throw new Error("One lock covers one write");
      handedOver = true;
      const limits = { ...bounds(SCSI_CONTROL_MS), onEnd: release };
      try {
        await host.files.writeControl(path, text, limits);
        return true;
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        if (error.code === "ENOENT" || error.code === "ENODEV") return false;
        throw error;
      }
    });
  } finally {
    if (!handedOver) release();
  }
}

/**
 * Where the path's SCSI device lies in sysfs (`…/target1:0:0/1:0:0:5`), undefined when it is gone.
 * Kernel names are given anew at once, even between a look and a write; this place has the address
 * in it and never becomes that of another LUN.
 */
export async function scsiDevice(
  host: Host,
  disk: Pick<ScsiDisk, "name" | "hctl">,
): Promise<string | undefined> {
  const device = await place(host.files, `/sys/block/${disk.name}/device`);
  return device !== undefined && lastName(device) === disk.hctl ? device : undefined;
}
