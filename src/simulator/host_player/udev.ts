/**
 * Plays udev: a little after a disk came, changed or went it writes or removes the disk's record in
 * `/run/udev/data` and keeps the links that disks claim, the claim of highest priority winning.
 */

import type { Tree } from "./tree.ts";

/** What the rules make of a disk, worked out when udev gets to it. */
export interface DiskRecord {
  /** Link names below `/dev`, e.g. `disk/by-id/nvme-uuid.…`. */
  readonly links: readonly string[];
  readonly properties: Readonly<Record<string, string>>;
  /** Of two disks that claim a link the higher wins; device-mapper has 50. */
  readonly priority: number;
}

/** A disk with a node below `/dev`. */
export interface UdevDisk {
  /** Kernel name, e.g. `sda`. */
  readonly name: string;
  /** `major:minor`. */
  readonly device: string;
  /** Undefined once the disk is gone. */
  describe(): DiskRecord | undefined;
}

interface Event {
  readonly due: number;
  readonly disk: UdevDisk;
  readonly removed: boolean;
  readonly after: (() => void) | undefined;
}

/** The simulated udev. */
export class Udev {
  readonly #tree: Tree;
  readonly #delayMs: number;
  readonly #now: () => number;
  #events: Event[] = [];
  readonly #records = new Map<UdevDisk, DiskRecord>();
  /** The disk that each link leads to. */
  readonly #pointing = new Map<string, UdevDisk>();

  constructor(tree: Tree, delayMs: number, now: () => number) {
    this.#tree = tree;
    this.#delayMs = delayMs;
    this.#now = now;
  }

  /** Whether events wait for their time. */
  get busy(): boolean {
    return this.#events.length > 0;
  }

  /** A disk came or changed; `after` is called when udev is done with it. */
  changed(disk: UdevDisk, after?: () => void): void {
    this.#events.push({ due: this.#now() + this.#delayMs, disk, removed: false, after });
  }

  removed(disk: UdevDisk): void {
    this.#events.push({
      due: this.#now() + this.#delayMs,
      disk,
      removed: true,
      after: undefined,
    });
  }

  /** Handles the events whose time has come, in their order. */
  run(): void {
    const now = this.#now();
    while (this.#events[0] !== undefined && this.#events[0].due <= now) {
      const event = this.#events.shift() as Event;
      if (event.removed) this.#forget(event.disk);
      else this.#record(event.disk);
      event.after?.();
    }
  }

  #record(disk: UdevDisk): void {
    const record = disk.describe();
    // Gone before udev got to it: its removal is waiting behind.
    if (record === undefined) return;
    const before = this.#records.get(disk)?.links ?? [];
    this.#records.set(disk, record);
    for (const link of new Set([...before, ...record.links])) this.#settle(link);
    this.#tree.link(`/dev/block/${disk.device}`, `/dev/${disk.name}`);
    this.#tree.text(`/run/udev/data/b${disk.device}`, recordText(record));
  }

  #forget(disk: UdevDisk): void {
    const record = this.#records.get(disk);
    if (record === undefined) return;
    this.#records.delete(disk);
    this.#tree.remove(`/run/udev/data/b${disk.device}`);
    this.#tree.remove(`/dev/block/${disk.device}`);
    for (const link of record.links) this.#settle(link);
  }

  /** Points a link at the disk with the best claim; the first of equals, as long as it is there. */
  #settle(link: string): void {
    let best: { readonly disk: UdevDisk; readonly priority: number } | undefined;
    for (const [disk, { links, priority }] of this.#records) {
      if (!links.includes(link)) continue;
      if (best === undefined || priority > best.priority) best = { disk, priority };
    }
    if (best === undefined) {
      this.#pointing.delete(link);
      this.#tree.remove(`/dev/${link}`);
    } else if (this.#pointing.get(link) !== best.disk) {
      this.#pointing.set(link, best.disk);
      this.#tree.link(`/dev/${link}`, `/dev/${best.disk.name}`);
    }
  }
}

/** The form of udev's own database: `S:` links, `L:` priority, `E:` properties. */
function recordText({ links, properties, priority }: DiskRecord): string {
  return [
    ...links.map((link) => `S:${link}`),
    ...priority === 0 ? [] : [`L:${priority}`],
    ...Object.entries(properties).map(([name, value]) => `E:${name}=${value}`),
    "G:systemd",
    "Q:systemd",
    "V:1",
    "",
  ].join("\n");
}
