/**
 * The identity of each volume as the array last told it to this node, kept here: the data path outlives
 * the API (design decision 17). It is compared with the live disk before every use, and is never a reason to
 * destroy or export anything.
 */
import * as v from "valibot";
import type { ExportTag } from "../common/volume.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import type { Storage } from "./storage.ts";

/** What the array said. */
export interface KnownDisk {
  readonly tag: ExportTag;
  readonly identity: DiskIdentity;
  /** Bytes. */
  readonly size: number;
}

/** The entries of {@link KnownDisk} in a file. */
export const knownDiskEntries = {
  tag: v.variant("kind", [
    v.object({ kind: v.literal("lun"), lun: v.number() }),
    v.object({ kind: v.literal("namespace"), uuid: v.string() }),
  ]),
  identity: v.variant("kind", [
    v.object({ kind: v.literal("iscsi"), lun: v.number(), naa: v.string() }),
    v.object({ kind: v.literal("nvme-tcp"), nsid: v.number(), uuid: v.string() }),
  ]),
  size: v.number(),
};

const schema = v.object(knownDiskEntries);

function folderOf(storage: Storage): string {
  return `/var/lib/tnblock/${storage.settings.id}`;
}

const ENDING = ".json";

/** @param name the zvol's, or `<zvol>@<snapshot>` for a snapshot that is read here. */
function fileOf(storage: Storage, name: string): string {
  return `${folderOf(storage)}/${name}${ENDING}`;
}

/**
 * The names under which something is known. A node that crashed knows disks by names that they have no
 * more: two names can be known for one disk.
 */
export async function knownNames(storage: Storage): Promise<string[]> {
  const names = await storage.host.files.list(folderOf(storage)) ?? [];
  return names.filter((name) => name.endsWith(ENDING)).map((name) => name.slice(0, -ENDING.length));
}

/** What is known of a volume; undefined when nothing is, or the file is damaged. */
export async function readKnownDisk(
  storage: Storage,
  name: string,
): Promise<KnownDisk | undefined> {
  const text = await storage.host.files.readText(fileOf(storage, name));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success && parsed.output.identity.kind === storage.transport.kind
      ? parsed.output
      : undefined;
  } catch {
    return undefined;
  }
}

/** When it was last told, in milliseconds since the epoch; undefined when nothing is known. */
export async function knownSinceMs(storage: Storage, name: string): Promise<number | undefined> {
  return (await storage.host.files.status(fileOf(storage, name)))?.modifiedMs;
}

/** Keeps what the array said. A node that cannot is told of it, and works on. */
export async function writeKnownDisk(
  storage: Storage,
  name: string,
  disk: KnownDisk,
): Promise<void> {
  try {
    await storage.host.files.replaceText(fileOf(storage, name), JSON.stringify(disk) + "\n", 0o600);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(
      `the identity of "${name}" is not kept for when the API is away: ${reason}`,
    );
  }
}

/** Forgets a volume. */
export async function forgetKnownDisk(storage: Storage, name: string): Promise<void> {
  await storage.host.files.remove(fileOf(storage, name));
}
