/**
 * Reading single attributes of sysfs. Objects vanish while they are read, some attributes cannot be
 * read by everybody, and some fail when the device has nothing to say: all of that is "undefined".
 * Only what says nothing about the attribute (no more open files, no memory) is thrown, as `host-fault`.
 */
import { TnblockError } from "../../common/error.ts";
import { HostError, type HostFiles } from "../host.ts";

/** Sectors of `size` are of 512 bytes, whatever the disk's own block size. */
export const SECTOR = 512;

/** Failures of ours, not of the attribute: to take them for absence would make disks vanish. */
const OURS = new Set(["EMFILE", "ENFILE", "ENOMEM"]);

async function orUndefined<T>(work: Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (!OURS.has(error.code)) return undefined;
    throw new TnblockError("host-fault", error.message, { cause: error });
  }
}

/** So many disks are read at once; each takes up to twenty open files. */
const AT_ONCE = 16;

/** Like `Promise.all` over a map, but with a bounded number under way; results in the order of the items. */
export async function mapBounded<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  const queue = items.entries();
  const worker = async () => {
    for (const [index, item] of queue) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker));
  return results;
}

/** The text of a file, as it is. */
export async function textOrUndefined(
  files: HostFiles,
  path: string,
): Promise<string | undefined> {
  return await orUndefined(files.readText(path));
}

/** The text of a symbolic link. */
export async function linkText(files: HostFiles, path: string): Promise<string | undefined> {
  return await orUndefined(files.readLink(path));
}

/** The attribute's text without white space around it; undefined when empty, absent or unreadable. */
export async function attribute(files: HostFiles, path: string): Promise<string | undefined> {
  const text = (await textOrUndefined(files, path))?.trim();
  return text === "" ? undefined : text;
}

/** The attribute as a non-negative integer. */
export async function numberAttribute(
  files: HostFiles,
  path: string,
): Promise<number | undefined> {
  const text = await attribute(files, path);
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

/** The attribute's bytes. */
export async function bytesAttribute(
  files: HostFiles,
  path: string,
): Promise<Uint8Array | undefined> {
  return await orUndefined(files.readBytes(path));
}

/** The names in a directory of sysfs; none when it is not there. */
export async function entries(files: HostFiles, path: string): Promise<readonly string[]> {
  return await orUndefined(files.list(path)) ?? [];
}

/** Where a path of sysfs really lies. */
export async function place(files: HostFiles, path: string): Promise<string | undefined> {
  return await orUndefined(files.resolve(path));
}

/** `major:minor` of the device that a path leads to; undefined when it leads to none. */
export async function deviceNumber(files: HostFiles, path: string): Promise<string | undefined> {
  return (await orUndefined(files.status(path)))?.device;
}

/** The last component of a path. */
export function lastName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The path without its last component. */
export function parent(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** What every disk in `/sys/block` has. */
export interface CommonDisk {
  readonly sizeBytes: number;
  readonly hidden: boolean;
  readonly device: string | undefined;
  readonly node: string | undefined;
  readonly logicalBlockSize: number | undefined;
  readonly diskSequence: number | undefined;
  readonly holders: readonly string[];
}

/** The common attributes of a disk; undefined when it has gone. */
export async function readCommon(
  files: HostFiles,
  name: string,
): Promise<CommonDisk | undefined> {
  const sys = `/sys/block/${name}`;
  const [size, hidden, device, logicalBlockSize, diskSequence, holders, node] = await Promise.all([
    numberAttribute(files, `${sys}/size`),
    attribute(files, `${sys}/hidden`),
    attribute(files, `${sys}/dev`),
    numberAttribute(files, `${sys}/queue/logical_block_size`),
    numberAttribute(files, `${sys}/diskseq`),
    entries(files, `${sys}/holders`),
    readNode(files, name),
  ]);
  if (size === undefined) return undefined;
  return {
    sizeBytes: size * SECTOR,
    hidden: hidden === "1",
    device,
    node: device === undefined ? undefined : node,
    logicalBlockSize,
    diskSequence,
    holders,
  };
}

/** The node in `/dev`, when it is there and a block device. */
export async function readNode(files: HostFiles, name: string): Promise<string | undefined> {
  const path = `/dev/${name}`;
  return (await orUndefined(files.status(path)))?.kind === "block" ? path : undefined;
}
