/**
 * The links that guests' disks are opened through: `/dev/tnblock/<storage>/<zvol>`. They point at
 * links that udev names after the disk's identity, never at a kernel name: such a link can dangle,
 * but it can not lead to another disk.
 */
import { posix } from "node:path";
import { TnblockError } from "../common/error.ts";
import { attempt } from "./failure.ts";
import type { Host } from "./host.ts";

/** The folder that links are read from. */
export const LINK_FOLDER = "/dev/tnblock";

const BY_ID = "/dev/disk/by-id/";
const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const NAA = "[0-9a-f]{32}";
const IDENTITY = new RegExp(`^${BY_ID}(?:nvme-uuid\\.${UUID}|dm-uuid-mpath-3${NAA}|wwn-0x${NAA})$`);

/** udev's link of an NVMe namespace. */
export function nvmeTarget(uuid: string): string {
  return checkedTarget(`${BY_ID}nvme-uuid.${uuid}`);
}

/** udev's link of a multipath map; independent of friendly names. */
export function multipathTarget(naa: string): string {
  return checkedTarget(`${BY_ID}dm-uuid-mpath-3${naa}`);
}

/** udev's link of a single path; it moves to a map that comes later. */
export function singlePathTarget(naa: string): string {
  return checkedTarget(`${BY_ID}wwn-0x${naa}`);
}

/** What a storage or a volume is called. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;

/** What a snapshot is called, by PVE or by TrueNAS's own tasks: also `__base__`, also with blanks inside. */
const SNAPSHOT_NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9_:. -]*[A-Za-z0-9_:.-])?$/;

/** The link of a volume, or of one of its snapshots. */
export function linkPath(storage: string, zvol: string, snapshot?: string): string {
  const name = snapshot === undefined ? zvol : `${zvol}@${snapshot}`;
  for (
    const [part, pattern] of [[storage, NAME], [zvol, NAME], [snapshot, SNAPSHOT_NAME]] as const
  ) {
    if (part !== undefined && !pattern.test(part)) {
      throw new TnblockError("invalid", `Cannot make a link for "${part}": it is not a name`);
    }
  }
  return `${LINK_FOLDER}/${storage}/${name}`;
}

/**
 * Makes the link, or points it elsewhere, at once and without a gap, on mounts that are there.
 *
 * @param target one of {@link nvmeTarget}, {@link multipathTarget}, {@link singlePathTarget}.
 * @returns false when it was so already.
 * @throws TnblockError `host-fault`, or `busy` while others make the mounts behind links.
 */
export async function ensureLink(host: Host, path: string, target: string): Promise<boolean> {
  checkedTarget(target);
  return await attempt(`Cannot make the link "${path}"`, async () => {
    // First of all: a link that says the right thing leads nowhere when a mount behind it is gone.
    await host.prepareLinks();
    if (await readTarget(host, path) === target) return false;
    const writable = writablePath(host, path);
    await host.files.makeDirectory(posix.dirname(writable), 0o755);
    await host.files.replaceLink(writable, host.linkPlace.devices + target.slice("/dev".length));
    return true;
  });
}

/** What the link points at, or undefined when there is none. */
export async function readLinkTarget(host: Host, path: string): Promise<string | undefined> {
  return await attempt(`Cannot read the link "${path}"`, () => readTarget(host, path));
}

/** Removes the link; false when there was none. */
export async function removeLink(host: Host, path: string): Promise<boolean> {
  return await attempt(
    `Cannot remove the link "${path}"`,
    () => host.files.remove(writablePath(host, path)),
  );
}

/** Where a link that is read at `path` is written. */
function writablePath(host: Host, path: string): string {
  return host.linkPlace.folder + path.slice(host.linkPlace.view.length);
}

/** What the link means below `/dev`, whatever its text stands for. */
async function readTarget(host: Host, path: string): Promise<string | undefined> {
  const text = await host.files.readLink(path);
  const { devices } = host.linkPlace;
  if (text === undefined) return undefined;
  return text.startsWith(`${devices}/`) ? `/dev${text.slice(devices.length)}` : text;
}

function checkedTarget(target: string): string {
  if (IDENTITY.test(target)) return target;
  throw new TnblockError(
    "internal",
    `Cannot link to "${target}": it does not name a disk's identity`,
  );
}
