/**
 * Where the tests' played nodes live. A node is thousands of tiny files that are made, looked at and
 * removed: in memory that costs a third of what it costs on a disk.
 */
import { accessSync, constants, readFileSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";

const MEMORY = "/dev/shm";
/** Fewer bytes than these are a container's default, which many tests at once would fill. */
const ENOUGH = 1 << 30;

let base: string | undefined;

/** The folder to make temporary folders in; one in memory where programs may run there as well. */
export function scratchBase(): string {
  base ??= isUsable() ? MEMORY : tmpdir();
  return base;
}

function isUsable(): boolean {
  try {
    accessSync(MEMORY, constants.W_OK);
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= ENOUGH && mayRun(readFileSync("/proc/mounts", "utf8"));
  } catch {
    return false;
  }
}

/** Whether programs may run there: played nodes have some. The last mount at a place counts. */
function mayRun(mounts: string): boolean {
  // A sample: tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0
  const lines = mounts.split("\n").map((line) => line.split(" "));
  const [, , , options = "noexec"] = lines.findLast(([, place]) => place === MEMORY) ?? [];
  return !options.split(",").includes("noexec");
}
