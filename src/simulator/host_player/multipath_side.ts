/**
 * Plays multipathd with `find_multipaths no` and `user_friendly_names no`: it puts a device-mapper
 * map over every SCSI disk by itself, and answers the commands that tnblock gives.
 */

import { readdirSync, readlinkSync, realpathSync } from "node:fs";
import { hideDisk, sectorsText, showDisk } from "./block_disk.ts";
import type { Node } from "./node.ts";
import { Numbers } from "./numbers.ts";
import { commonDiskEntries } from "./scsi_files.ts";
import type { ScsiDisk } from "./scsi_disk.ts";
import type { Answer } from "./scripts.ts";
import type { DiskRecord, UdevDisk } from "./udev.ts";

/** A map over the paths of one LUN. */
interface Multipath {
  /** `3` + naa; also its wwid. */
  readonly name: string;
  readonly number: number;
  readonly sequence: number;
  readonly udev: UdevDisk;
  readonly paths: Set<ScsiDisk>;
  /** Bytes. */
  size: number;
}

/** The simulated multipathd. */
export class MultipathSide {
  readonly #node: Node;
  readonly #maps = new Map<string, Multipath>();
  readonly #disks = new Set<ScsiDisk>();
  readonly #numbers = new Numbers();

  /** @param running Whether multipathd is there; without it nothing happens by itself. */
  constructor(node: Node, readonly running: boolean) {
    this.#node = node;
  }

  /** udev is done with a new disk. */
  pathAppeared(disk: ScsiDisk): void {
    this.#disks.add(disk);
    if (this.running) this.#addPath(disk);
  }

  /** A disk is about to go; a map that is left without paths goes too, unless it is open. */
  pathGone(disk: ScsiDisk): void {
    this.#disks.delete(disk);
    this.#dropPath(disk);
  }

  /** Takes a disk out of its map. */
  #dropPath(disk: ScsiDisk): void {
    const map = [...this.#maps.values()].find(({ paths }) => paths.has(disk));
    if (map === undefined) return;
    map.paths.delete(disk);
    this.#node.tree.remove(`${directoryOf(map)}/slaves/${disk.name}`);
    this.#node.tree.remove(`${disk.blockDirectory}/holders/dm-${map.number}`);
    if (map.paths.size > 0) this.relink();
    else if (!this.#isOpen(map)) this.#remove(map);
  }

  /** Makes every map's node a name of the file that its first path with content leads to. */
  relink(): void {
    for (const map of this.#maps.values()) {
      const node = `/dev/dm-${map.number}`;
      const content = contentOf(map);
      if (content !== undefined) this.#node.tree.hardLink(node, content);
      else if (map.paths.size > 0) this.#node.tree.text(node, "", 0o660);
    }
  }

  /** Runs one `multipathd` command line. */
  command(args: readonly string[]): Answer {
    const name = args[2] ?? "";
    const map = this.#maps.get(name);
    switch (args.slice(0, 2).join(" ")) {
      case "add map":
        return answer(map !== undefined || this.#addMap(name));
      case "add path": {
        const disk = this.#diskOf(name);
        return answer(disk !== undefined && this.#addPath(disk));
      }
      case "del path": {
        // It stays away until somebody adds it: a later event of a path unknown to multipathd does nothing.
        const disk = this.#diskOf(name);
        if (disk !== undefined) this.#dropPath(disk);
        return answer(disk !== undefined);
      }
      case "resize map":
        return answer(map !== undefined && this.#resize(map));
      case "disablequeueing map":
        return answer(map !== undefined);
      case "remove map":
        if (map === undefined) return answer(false);
        if (this.#isOpen(map)) return { status: 1, out: "map or partition in use\n" };
        this.#remove(map);
        return answer(true);
      default:
        return { status: 1, out: "fail\n", err: `unknown command: ${args.join(" ")}\n` };
    }
  }

  #addMap(wwid: string): boolean {
    const paths = [...this.#disks].filter((disk) => wwidOf(disk) === wwid);
    for (const disk of paths) this.#addPath(disk);
    return paths.length > 0;
  }

  #diskOf(name: string): ScsiDisk | undefined {
    return [...this.#disks].find((disk) => disk.name === name);
  }

  /** False for a path whose size is not the map's: multipathd refuses it (`ev_add_path` in main.c). */
  #addPath(disk: ScsiDisk): boolean {
    const wwid = wwidOf(disk);
    const known = [...this.#maps.values()].some(({ paths }) => paths.has(disk));
    if (known) return true;
    const map = this.#maps.get(wwid) ?? this.#create(wwid, disk);
    const { size } = disk.identity;
    if (size !== 0 && size !== map.size) return false;
    const { tree } = this.#node;
    map.paths.add(disk);
    tree.link(`${directoryOf(map)}/slaves/${disk.name}`, disk.blockDirectory);
    tree.link(`${disk.blockDirectory}/holders/dm-${map.number}`, directoryOf(map));
    this.relink();
    return true;
  }

  #create(name: string, disk: ScsiDisk): Multipath {
    const number = this.#numbers.take();
    const sequence = this.#node.nextSequence();
    const map: Multipath = {
      name,
      number,
      sequence,
      paths: new Set(),
      size: disk.identity.size,
      udev: {
        name: `dm-${number}`,
        device: `253:${number}`,
        describe: () => this.#maps.get(name) === map ? recordOf(map) : undefined,
      },
    };
    this.#maps.set(name, map);
    const entries = {
      ...commonDiskEntries(
        `dm-${number}`,
        `253:${number}`,
        sequence,
        disk.identity.size,
        disk.blockSize,
      ),
      dm: {
        name,
        rq_based_seq_io_merge_deadline: "0",
        suspended: "0",
        use_blk_mq: "1",
        uuid: `mpath-${name}`,
      },
    };
    showDisk(this.#node, placeOf(map), entries, disk.content());
    this.#node.udev.changed(map.udev);
    return map;
  }

  /**
   * The map takes the size of its paths, if they agree on one; a path of size 0 has no say (`cli_resize`
   * in multipathd's cli_handlers.c). The kernel would refuse a map that is larger than one of its paths.
   */
  #resize(map: Multipath): boolean {
    const sizes = new Set([...map.paths].map(({ identity }) => identity.size));
    sizes.delete(0);
    const [size] = sizes;
    if (size === undefined || sizes.size > 1) return false;
    if (size === map.size) return true;
    map.size = size;
    this.#node.tree.attribute(`${directoryOf(map)}/size`, sectorsText(size));
    this.#node.udev.changed(map.udev);
    return true;
  }

  #remove(map: Multipath): void {
    this.#maps.delete(map.name);
    for (const disk of map.paths) {
      this.#node.tree.remove(`${disk.blockDirectory}/holders/dm-${map.number}`);
    }
    hideDisk(this.#node, placeOf(map), map.udev);
    this.#numbers.release(map.number);
  }

  /** Whether a process has the map's node open; its paths' nodes do not count. */
  #isOpen(map: Multipath): boolean {
    const node = `${realpathSync(this.#node.tree.at("/dev"))}/dm-${map.number}`;
    return readdirSync("/proc").some((pid) => /^\d+$/.test(pid) && hasOpen(pid, node));
  }
}

function hasOpen(pid: string, path: string): boolean {
  try {
    const directory = `/proc/${pid}/fd`;
    return readdirSync(directory).some((fd) => linkText(`${directory}/${fd}`) === path);
  } catch {
    // Another user's process, or one that has just ended.
    return false;
  }
}

function linkText(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function wwidOf(disk: ScsiDisk): string {
  return `3${disk.identity.naa}`;
}

function directoryOf({ number }: Multipath): string {
  return `/sys/devices/virtual/block/dm-${number}`;
}

function placeOf(map: Multipath) {
  return { name: `dm-${map.number}`, directory: directoryOf(map), device: `253:${map.number}` };
}

function contentOf({ paths }: Multipath): string | undefined {
  for (const disk of paths) {
    const content = disk.content();
    if (content !== undefined) return content;
  }
  return undefined;
}

function recordOf({ name, sequence }: Multipath): DiskRecord {
  return {
    priority: 50,
    links: [
      `mapper/${name}`,
      `disk/by-id/dm-name-${name}`,
      `disk/by-id/dm-uuid-mpath-${name}`,
      `disk/by-id/scsi-${name}`,
      `disk/by-id/wwn-0x${name.slice(1)}`,
      `disk/by-diskseq/${sequence}`,
    ],
    properties: { DM_NAME: name, DM_UUID: `mpath-${name}`, DM_ACTIVATION: "1", DM_SUSPENDED: "0" },
  };
}

function answer(ok: boolean): Answer {
  return ok ? { status: 0, out: "ok\n" } : { status: 1, out: "fail\n" };
}
