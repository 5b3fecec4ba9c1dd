/** Waiting for the array: a new zvol's device node appears up to seconds after the zvol. */
import { BACK_OFF_MS } from "../common/timing.ts";
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Host } from "../host/host.ts";
import { isDeviceMissing } from "../truenas/errors.ts";

/**
 * Longest wait for the device node. The array does not wait for udev after creating a zvol
 * (`middlewared/plugins/pool_/dataset.py`); more than a few seconds means that something is broken there.
 */
const DEVICE_NODE_MS = 20_000;

/** Does a write again, with back-off, as long as the array answers that the zvol has no device node yet. */
export async function withDeviceNode<T>(
  host: Host,
  deadline: Deadline,
  zvol: string,
  write: () => Promise<T>,
): Promise<T> {
  const until = host.monotonicMs() + DEVICE_NODE_MS;
  for (let attempt = 0;; attempt++) {
    try {
      return await write();
    } catch (error) {
      if (!isDeviceMissing(error)) throw error;
      if (host.monotonicMs() >= until) {
        throw new TnblockError(
          "array-fault",
          `Cannot export "${zvol}": the array made the zvol, but no device node for it in ${
            DEVICE_NODE_MS / 1000
          } s`,
          {
            cause: error,
            hint: "Look at the load and the system log of TrueNAS (udev)",
          },
        );
      }
      const next = BACK_OFF_MS[Math.min(attempt + 1, BACK_OFF_MS.length - 1)] ?? 250;
      await host.wait(next, deadline.signal);
    }
  }
}
