/**
 * Loop devices on a disk. The kernel holds what lies below one without a claim, without an entry among the
 * holders, and without a process that has it open: what is mounted from it is nowhere else to be seen.
 */
import type { Host } from "./host.ts";
import type { BlockNode } from "./mount_use.ts";
import { attribute, deviceNumber, entries, mapBounded, place } from "./scan/attributes.ts";

/** What the kernel writes after a name that is not there any more (`d_path` in fs/d_path.c). */
const DELETED = / \(deleted\)$/;

/**
 * The loop devices that these devices lie below, in words for a message.
 *
 * The kernel names what is below (`/sys/block/loop0/loop/backing_file`, drivers/block/loop.c) as it was opened,
 * links followed. A name that has gone since counts: whoever holds a disk keeps its name and numbers from the next.
 */
export async function loopsOn(
  host: Host,
  devices: readonly BlockNode[],
): Promise<readonly string[]> {
  const { files } = host;
  const loops = (await entries(files, "/sys/block")).filter((name) => /^loop\d+$/.test(name));
  const isOn = async (loop: string): Promise<boolean> => {
    // Only a loop device that is set up has the attribute.
    const backing = await attribute(files, `/sys/block/${loop}/loop/backing_file`);
    // A file elsewhere is no disk, and the share that it lies on may answer nobody.
    if (!backing?.startsWith("/dev/")) return false;
    const path = backing.replace(DELETED, "");
    const node = await place(files, path) ?? path;
    if (devices.some((each) => each.node === node)) return true;
    // Another node of the same device, such as one in `/dev/mapper` that is no link.
    const number = await deviceNumber(files, node);
    return number !== undefined && devices.some(({ device }) => device === number);
  };
  const found = await mapBounded(loops, isOn);
  return loops.filter((_, index) => found[index]).map((name) => `the loop device ${name}`);
}
