/** Dropping what the kernel caches of a block device's content. */
import { TnblockError } from "../common/error.ts";
import { PROGRAM_MS } from "../common/timing.ts";
import { hostFailure } from "./failure.ts";
import { type Host, HostError } from "./host.ts";

const BLOCKDEV = "/usr/sbin/blockdev";

/**
 * Writes back and drops the buffers of a device (`BLKFLSBUF`). With the last close of a device the
 * kernel does the same by itself (`blkdev_flush_mapping` in block/bdev.c), but multipathd keeps the paths
 * of its maps open, and a device-mapper target on top keeps what is below it.
 *
 * What is dirty is written: ask only when nobody has used the device since its content was changed on
 * the array.
 *
 * @throws TnblockError `host-fault`, `timeout`.
 */
export async function flushBuffers(host: Host, node: string, signal?: AbortSignal): Promise<void> {
  const doing = `Cannot drop what this node caches of "${node}"`;
  const bounds = { deadlineMs: PROGRAM_MS, ...(signal === undefined ? {} : { signal }) };
  try {
    const result = await host.run(BLOCKDEV, ["--flushbufs", node], bounds);
    if (result.status === 0) return;
    const said = result.stderr.trim() || `status ${result.status}`;
    throw new TnblockError("host-fault", `${doing}: blockdev says ${said}`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code !== "ENOENT") throw hostFailure(doing, error);
    throw new TnblockError("host-fault", `${doing}: blockdev is not installed`, {
      cause: error,
      hint: "Run apt install util-linux",
    });
  }
}
