/**
 * Who uses a disk on this node. Three looks see what one alone does not: the kernel's own claims
 * (mounts, maps), the locks of QEMU, and open descriptors. Use on other nodes is not visible here.
 */
import type { Host } from "./host.ts";
import { entries, lastName } from "./scan/attributes.ts";

/** The outcome. */
export interface Use {
  readonly inUse: boolean;
  /** Who, in words for a message. */
  readonly by: readonly string[];
  /** False where the runtime cannot ask for the kernel's claims; then mounts are not seen. */
  readonly certain: boolean;
}

/** multipathd keeps the paths of every map open: that is no use of the volume. */
const CARETAKERS = new Set(["multipathd"]);

/**
 * Looks for users of a disk.
 *
 * @param device path of what a user would open: the NVMe disk, the map, or the only path; links are followed.
 * @param paths nodes of the single paths below a map, which somebody may have opened past the map.
 */
export async function usersOf(
  host: Host,
  device: string,
  paths: readonly string[] = [],
): Promise<Use> {
  const node = await host.files.resolve(device);
  if (node === undefined) return { inUse: false, by: [], certain: true };
  const others: string[] = [];
  for (const path of paths) {
    const other = await host.files.resolve(path);
    if (other !== undefined && other !== node) others.push(other);
  }
  const nodes = [node, ...others];
  const [claim, above, processes, locked] = await Promise.all([
    host.probeExclusive(node),
    Promise.all(nodes.map((each) => entries(host.files, `/sys/block/${lastName(each)}/holders`))),
    Promise.all(nodes.map((each) => host.holders(each))),
    lockedInodes(host),
  ]);

  const by: string[] = [];
  const names = new Map(processes.flat().map(({ pid, name }) => [pid, name]));
  for (const [pid, name] of names) {
    if (!CARETAKERS.has(name)) by.push(`${name} (process ${pid})`);
  }
  for (const holder of new Set(above.flat())) {
    if (holder !== lastName(node)) by.push(`the device ${holder} on top of it`);
  }
  if (by.length === 0) {
    for (const each of nodes) {
      const inode = (await host.files.status(each))?.inode;
      if (inode !== undefined && locked.has(inode)) by.push("a virtual machine that has locked it");
    }
  }
  if (by.length === 0 && claim === "busy") by.push("a mount or another part of the kernel");
  return { inUse: by.length > 0, by, certain: claim !== "unknown" };
}

/** Inodes of nodes in `/dev` that carry an open-file-description lock, as QEMU takes them. */
async function lockedInodes(host: Host): Promise<ReadonlySet<number>> {
  const [locks, mounts] = await Promise.all([
    host.files.readText("/proc/locks"),
    host.files.readText("/proc/self/mountinfo"),
  ]);
  return parseLockedInodes(locks ?? "", deviceOfDev(mounts ?? ""));
}

/**
 * The inodes in `/proc/locks` with OFD locks on one file system. A line of it:
 * `7: OFDLCK ADVISORY  READ  -1 00:06:951 100 101`, the device in hexadecimal.
 *
 * @param device `major:minor` of the file system in decimal; undefined takes any.
 */
export function parseLockedInodes(locks: string, device: string | undefined): Set<number> {
  const inodes = new Set<number>();
  for (const line of locks.split("\n")) {
    const match = /^\d+: OFDLCK\s+\S+\s+\S+\s+-?\d+\s+([0-9a-f]+):([0-9a-f]+):(\d+)\s/.exec(line);
    if (match === null) continue;
    const on = `${parseInt(match[1] ?? "", 16)}:${parseInt(match[2] ?? "", 16)}`;
    if (device === undefined || on === device) inodes.add(Number(match[3]));
  }
  return inodes;
}

/** `major:minor` of what is mounted at `/dev`; the last such line is the one on top. */
export function deviceOfDev(mountinfo: string): string | undefined {
  const lines = mountinfo.split("\n").map((line) => line.split(" "));
  return lines.findLast((fields) => fields[4] === "/dev")?.[2];
}
