/**
 * Mounts and swap on a device, from `/proc`: what names them when an exclusive open fails, and what
 * sees them where no such open is possible.
 */
import type { Host, HostFiles } from "./host.ts";
import { linkText, mapBounded, place, textOrUndefined } from "./scan/attributes.ts";

/** A disk or partition. */
export interface BlockNode {
  /** Its node, e.g. `/dev/sda1`. */
  readonly node: string;
  /** `major:minor`, as far as it is known. */
  readonly device: string | undefined;
}

/** What is mounted from these devices or swaps on them, in words for a message. */
export async function mountsAndSwap(
  host: Host,
  devices: readonly BlockNode[],
): Promise<readonly string[]> {
  const { files } = host;
  const found: string[] = [];
  for (const { text, pid } of await mountTables(files)) {
    const of = pid === undefined ? "" : ` of process ${pid}`;
    for (const point of await mountPoints(files, text, devices)) {
      found.push(`a mount at "${point}"${of}`);
    }
  }
  for (const path of swapFiles(await files.readText("/proc/swaps") ?? "")) {
    const node = await place(files, path);
    if (devices.some((each) => each.node === node)) found.push("swap on it");
  }
  return found;
}

/**
 * The mounts of every mount namespace, our own first: a container's are not in ours. A process gone
 * before it was read is made up for by another of its namespace, when there is one.
 */
async function mountTables(
  files: HostFiles,
): Promise<readonly { readonly text: string; readonly pid?: number }[]> {
  const own = await files.readText("/proc/self/mountinfo");
  const tables: { text: string; pid?: number }[] = own === undefined ? [] : [{ text: own }];
  const pids = (await files.list("/proc") ?? []).map(Number).filter(Number.isInteger);
  const spaces = await mapBounded(pids, (pid) => linkText(files, `/proc/${pid}/ns/mnt`));
  const read = new Set([await linkText(files, "/proc/self/ns/mnt")]);
  for (const [index, pid] of pids.entries()) {
    const space = spaces[index];
    if (space === undefined || read.has(space)) continue;
    const text = await textOrUndefined(files, `/proc/${pid}/mountinfo`);
    if (text === undefined) continue;
    read.add(space);
    tables.push({ text, pid });
  }
  return tables;
}

/** Where these devices are mounted. Btrfs has numbers of its own: there the source says which device it is. */
async function mountPoints(
  files: HostFiles,
  mountinfo: string,
  devices: readonly BlockNode[],
): Promise<readonly string[]> {
  const mounts = parseMounts(mountinfo);
  const sources = [...new Set(mounts.map(({ source }) => source))]
    .filter((source) => source.startsWith("/dev/"));
  const nodes = await mapBounded(sources, (source) => place(files, source));
  const ours = new Set(
    sources.filter((_, index) => devices.some(({ node }) => node === nodes[index])),
  );
  return mounts
    .filter((mount) =>
      ours.has(mount.source) || devices.some(({ device }) => device === mount.device)
    )
    .map(({ point }) => point);
}

/** A line of mountinfo, as far as it matters here. */
interface Mount {
  /** `major:minor`. */
  readonly device: string;
  readonly point: string;
  readonly source: string;
}

/**
 * The lines of a mountinfo (proc_pid_mountinfo(5)):
 * `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw`, any number of fields before the dash.
 */
export function parseMounts(mountinfo: string): readonly Mount[] {
  return mountinfo.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    const dash = fields.indexOf("-", 6);
    const [, , device, , point] = fields;
    if (dash < 0 || device === undefined || point === undefined) return [];
    return [{ device, point: unescaped(point), source: unescaped(fields[dash + 2] ?? "") }];
  });
}

/** The first column of `/proc/swaps`, below its heading. */
function swapFiles(swaps: string): readonly string[] {
  return swaps.split("\n").slice(1).flatMap((line) => {
    const path = line.split(/\s/)[0] ?? "";
    return path === "" ? [] : [unescaped(path)];
  });
}

/** The kernel writes blanks, line ends and backslashes as three octal digits. */
function unescaped(text: string): string {
  return text.replace(
    /\\([0-7]{3})/g,
    (_, octal: string) => String.fromCharCode(parseInt(octal, 8)),
  );
}
