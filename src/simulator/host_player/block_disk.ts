/** What all disks have in common: their places in `/sys/block`, `/sys/class/block` and `/dev`. */

import type { Node } from "./node.ts";
import type { Entries } from "./tree.ts";
import type { UdevDisk } from "./udev.ts";

/** A disk's directory below `/sys/devices`. */
export interface DiskPlace {
  /** Kernel name, e.g. `nvme0n1`. */
  readonly name: string;
  /** E.g. `/sys/devices/virtual/block/dm-0`. */
  readonly directory: string;
  /** `major:minor`; undefined for a hidden disk, which has no node either. */
  readonly device: string | undefined;
}

/**
 * The disk appears, its content being the file `content` (on this machine). Without `entries` its
 * directory is there already.
 */
export function showDisk(
  node: Node,
  place: DiskPlace,
  entries: Entries | undefined,
  content: string | undefined,
): void {
  const { tree } = node;
  if (entries !== undefined) tree.plant(place.directory, entries);
  tree.link(`/sys/class/block/${place.name}`, place.directory);
  tree.link(`/sys/block/${place.name}`, place.directory);
  if (place.device === undefined || content === undefined) return;
  tree.link(`/sys/dev/block/${place.device}`, place.directory);
  tree.hardLink(`/dev/${place.name}`, content);
}

/** The disk goes: first from the listings, then its node, then its directory. */
export function hideDisk(node: Node, place: DiskPlace, udevDisk: UdevDisk | undefined): void {
  const { tree } = node;
  tree.remove(`/sys/block/${place.name}`);
  tree.remove(`/sys/class/block/${place.name}`);
  if (place.device !== undefined) {
    tree.remove(`/sys/dev/block/${place.device}`);
    tree.remove(`/dev/${place.name}`);
  }
  tree.remove(place.directory);
  if (udevDisk !== undefined) node.udev.removed(udevDisk);
}

/** `size` of a disk: in sectors of 512 bytes, whatever its block size. */
export function sectorsText(bytes: number): string {
  return String(Math.floor(bytes / 512));
}
