/**
 * Part of linux.ts: the control device of NVMe over fabrics, or the file that stands for it below a
 * root. The write is the connect; the answer is read from the same descriptor.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { FABRICS_CONNECT_MS } from "../common/timing.ts";
import { type Bounds, type Host, HostError } from "./host.ts";
import { wait, within } from "./linux_deadline.ts";
import { codeOf, hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

const DEVICE = "/dev/nvme-fabrics";
const DOING = `Cannot connect through "${DEVICE}"`;

/** The lock that all connects of a node share: the kernel has one mutex for them anyway. */
const LOCK = "nvme-fabrics";

/** What a bare read gives: the options that the kernel takes. */
const OPTIONS_LINE = /^instance=-1,.*$/m;

/** The kernel's words on a connect, success or (below a root) failure. */
const ANSWER = /^(?:(instance=[0-9]+,[^\n]*)|error=([A-Z0-9]+))\n/;

/** The two halves of `Host` that speak with the device. */
export function linuxFabrics(
  root: Root,
  lock: Host["lock"],
): Pick<Host, "connectFabrics" | "fabricsOptions"> {
  return {
    async connectFabrics(options, bounds) {
      const started = performance.now();
      const release = await lock(LOCK, bounds);
      const left = { ...bounds, deadlineMs: bounds.deadlineMs - (performance.now() - started) };
      if (root.isFolder) {
        try {
          return await connectSimulated(await root.follow(DEVICE), options, left);
        } finally {
          release();
        }
      }
      let begun = false;
      try {
        return await within(DOING, left, () => {
          begun = true;
          // Past the deadline the kernel is still at it, and nobody else could get through: the
          // lock is given back when the write is.
          return connectKernel(options).finally(release);
        });
      } finally {
        if (!begun) release();
      }
    },

    async fabricsOptions() {
      // Below a root it is one file for all: while somebody connects it holds his words.
      const release = root.isFolder
        ? await lock(LOCK, { deadlineMs: FABRICS_CONNECT_MS })
        : undefined;
      try {
        const handle = await open(await root.follow(DEVICE), "r");
        try {
          return OPTIONS_LINE.exec(await readSome(handle))?.[0];
        } finally {
          await handle.close();
        }
      } catch (error) {
        if (codeOf(error) === "ENOENT") return undefined;
        throw hostError(`Cannot read "${DEVICE}"`, error);
      } finally {
        release?.();
      }
    },
  };
}

type Handle = Awaited<ReturnType<typeof open>>;

/** The device answers one read with one line; the file below a root is short as well. */
async function readSome(handle: Handle): Promise<string> {
  const buffer = new Uint8Array(16384);
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
  return new TextDecoder().decode(buffer.subarray(0, bytesRead));
}

/** `fs/promises` only: the write takes up to 10 s in the kernel and must not stop the event loop. */
async function connectKernel(options: string): Promise<string> {
  try {
    const handle = await open(DEVICE, "r+");
    try {
      const bytes = new TextEncoder().encode(options);
      await handle.write(bytes, 0, bytes.length, null);
      return (await readSome(handle)).trim();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw hostError(DOING, error);
  }
}

async function connectSimulated(path: string, options: string, bounds: Bounds): Promise<string> {
  const end = performance.now() + bounds.deadlineMs;
  try {
    const handle = await open(path, constants.O_WRONLY | constants.O_TRUNC);
    try {
      await handle.writeFile(`${options}\n`);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw hostError(DOING, error);
  }
  for (let pause = 1;; pause = Math.min(pause * 2, 10)) {
    const left = end - performance.now();
    if (left <= 0) {
      throw new HostError("ETIMEDOUT", `${DOING}: no answer within ${bounds.deadlineMs} ms`);
    }
    await wait(Math.min(pause, left), bounds.signal);
    const handle = await open(path, "r");
    const answer = ANSWER.exec(await readSome(handle).finally(() => handle.close()));
    if (answer?.[1] !== undefined) return answer[1];
    if (answer?.[2] !== undefined) throw new HostError(answer[2], `${DOING}: ${answer[2]}`);
  }
}
