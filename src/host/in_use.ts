/**
 * Who uses a disk on this node. Several looks see what one alone does not: the kernel's own claims,
 * mounts, swap, devices on top, loop devices, the locks of QEMU, and open descriptors. Use on other nodes is not
 * visible here.
 */
import { attempt } from "./failure.ts";
import type { Host } from "./host.ts";
import { loopsOn } from "./loop_use.ts";
import { type BlockNode, mountsAndSwap } from "./mount_use.ts";
import { attribute, entries, lastName } from "./scan/attributes.ts";

/** The outcome. */
export interface Use {
  /** Who, in words for a message; empty when nobody is seen. */
  readonly by: readonly string[];
}

/** multipathd keeps the paths of every map open: that is no use of the volume. */
const CARETAKERS = new Set(["multipathd"]);

/**
 * Looks for users of a disk and of the partitions on it.
 *
 * @param device path of what a user would open: the NVMe disk, the map, or the only path; links are followed.
 * @param paths nodes of the single paths below a map, which somebody may have opened past the map.
 * @throws TnblockError `host-fault` when a look fails: nobody seen then means nothing.
 */
export async function usersOf(
  host: Host,
  device: string,
  paths: readonly string[] = [],
): Promise<Use> {
  return await attempt(`Cannot look for users of "${device}"`, async () => {
    const node = await host.files.resolve(device);
    if (node === undefined) return { by: [] };
    const nodes = new Set([node]);
    for (const path of paths) nodes.add(await host.files.resolve(path) ?? node);
    const disks = await Promise.all([...nodes].map((each) => readDisk(host, each)));
    return { by: await look(host, disks) };
  });
}

/** A disk, or a partition of one. */
interface Looked extends BlockNode {
  /** The kernel's name. */
  readonly name: string;
  /** What lies over it; kernel names. */
  readonly holders: readonly string[];
}

/** A disk and what it is divided into. */
interface LookedDisk extends Looked {
  /** Partitions that the kernel made; claiming one claims the disk. */
  readonly partitions: readonly Looked[];
  /** Partitions that kpartx made: maps, which claim the disk whether they are used or not. */
  readonly partitionMaps: readonly Looked[];
}

async function readDisk(host: Host, node: string): Promise<LookedDisk> {
  const sys = `/sys/block/${lastName(node)}`;
  const disk = await readLooked(host, sys, node);
  const inside = await Promise.all(
    (await entries(host.files, sys)).filter((name) => name.startsWith(disk.name)).map(
      async (name) => {
        const isPartition = await attribute(host.files, `${sys}/${name}/partition`) !== undefined;
        return isPartition ? [await readLooked(host, `${sys}/${name}`)] : [];
      },
    ),
  );
  const above = await Promise.all(disk.holders.map(async (name) => {
    // kpartx names them so in its devmapper.c; udev has it run for every multipath map.
    const uuid = await attribute(host.files, `/sys/block/${name}/dm/uuid`);
    return /^part\d+-mpath-/.test(uuid ?? "") ? [await readLooked(host, `/sys/block/${name}`)] : [];
  }));
  return { ...disk, partitions: inside.flat(), partitionMaps: above.flat() };
}

async function readLooked(
  host: Host,
  sys: string,
  node = `/dev/${lastName(sys)}`,
): Promise<Looked> {
  const [device, holders] = await Promise.all([
    attribute(host.files, `${sys}/dev`),
    entries(host.files, `${sys}/holders`),
  ]);
  return { name: lastName(sys), node, device, holders };
}

/** @param disks the disk that a user would open, then the paths below it. */
async function look(host: Host, disks: readonly LookedDisk[]): Promise<readonly string[]> {
  const all = disks.flatMap((disk) => [disk, ...disk.partitions, ...disk.partitionMaps]);
  const nodes = all.map(({ node }) => node);
  const [claim, processes, loops, locked] = await Promise.all([
    claimOn(host, disks.slice(0, 1)),
    host.holders(nodes),
    loopsOn(host, all),
    lockedInodes(host),
  ]);

  const by = processes.filter(({ name }) => !CARETAKERS.has(name))
    .map(({ pid, name }) => `${name} (process ${pid})`);
  const known = new Set(all.map(({ name }) => name));
  for (const holder of new Set(all.flatMap(({ holders }) => holders))) {
    if (!known.has(holder)) by.push(`the device ${holder} on top of it`);
  }
  by.push(...loops);
  if (claim !== "free") by.push(...await mountsAndSwap(host, all));
  if (by.length === 0) {
    const inodes = await Promise.all(nodes.map((each) => host.files.status(each)));
    if (inodes.some((status) => status !== undefined && locked.has(status.inode))) {
      by.push("a virtual machine that has locked it");
    }
  }
  if (by.length === 0 && claim === "busy") by.push("a mount or another part of the kernel");
  return by;
}

/** Whether the kernel gives these disks, or else the maps that divide them, to nobody else. */
async function claimOn(
  host: Host,
  disks: readonly LookedDisk[],
): Promise<"free" | "busy" | "unknown"> {
  const probed = disks.flatMap((disk) =>
    disk.partitionMaps.length > 0 ? disk.partitionMaps : [disk]
  );
  const claims = await Promise.all(probed.map(({ node }) => host.probeExclusive(node)));
  return claims.find((claim) => claim === "busy") ??
    claims.find((claim) => claim === "unknown") ?? "free";
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
