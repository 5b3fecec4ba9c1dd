/**
 * One SCSI disk of the simulated node: a path to a LUN. What sysfs says of it was true when it was
 * last scanned; what is read through its node is always the LUN's present content.
 */

import type { LunExport } from "../exports.ts";
import { hideDisk, sectorsText, showDisk } from "./block_disk.ts";
import type { Portal } from "./iscsi_records.ts";
import type { Node, Taken } from "./node.ts";
import {
  identityEntries,
  scsiDeviceEntries,
  scsiDiskRecord,
  type ScsiIdentity,
} from "./scsi_files.ts";
import type { UdevDisk } from "./udev.ts";

/** What a disk is made from. */
export interface ScsiDiskOptions {
  /** First free number of all sd disks; gives the letters and the device number. */
  readonly index: number;
  readonly host: number;
  readonly session: number;
  readonly portal: Portal;
  readonly lun: LunExport;
  /** Whether multipath-tools take every disk as a path. */
  readonly member: boolean;
  /** What becomes of a command that is sent to the array now. */
  readonly reach: () => Reach;
}

/** `hangs`: the kernel holds it back, for the session may recover; `fails`: it has given up. */
export type Reach = "answers" | "hangs" | "fails";

const SCSI_CLASSES = ["scsi_device", "scsi_disk", "scsi_generic"];

/** A disk; making one makes it appear. */
export class ScsiDisk {
  readonly name: string;
  readonly lunNumber: number;
  readonly directory: string;
  /** `major:minor`. */
  readonly device: string;
  readonly udev: UdevDisk;
  readonly #node: Node;
  readonly #options: ScsiDiskOptions;
  readonly #address: string;
  readonly #sequence: number;
  #identity: ScsiIdentity;
  /** What the array has at this LUN now. */
  #offered: LunExport | undefined;
  #gone = false;

  constructor(node: Node, options: ScsiDiskOptions) {
    const { host, session, lun, index, portal } = options;
    this.#node = node;
    this.#options = options;
    this.#address = `${host}:0:0:${lun.lun}`;
    this.#sequence = node.nextSequence();
    this.#identity = { naa: lun.naa, serial: lun.serial, size: lun.size };
    this.#offered = lun;
    this.name = sdName(index);
    this.lunNumber = lun.lun;
    this.device = sdDevice(index);
    const target = `/sys/devices/platform/host${host}/session${session}/target${host}:0:0`;
    if (!node.tree.has(target)) node.tree.plant(target, { uevent: "DEVTYPE=scsi_target" });
    this.directory = `${target}/${this.#address}`;
    this.udev = {
      name: this.name,
      device: this.device,
      describe: () => this.#gone ? undefined : this.#record(),
    };
    const entries = scsiDeviceEntries({
      name: this.name,
      address: this.#address,
      directory: this.directory,
      device: this.device,
      index,
      sequence: this.#sequence,
      lun,
      iqn: portal.iqn,
    });
    // The disk's own directory lies in that of the SCSI device, so both appear with it.
    node.tree.plant(this.directory, entries);
    for (const [name, path] of this.#classLinks()) node.tree.link(name, path);
    showDisk(node, this.#place(), undefined, this.content());
    node.controls.add(node.tree.at(`${this.directory}/rescan`), () => this.rescan());
  }

  get index(): number {
    return this.#options.index;
  }

  get identity(): ScsiIdentity {
    return this.#identity;
  }

  get blockSize(): number {
    return this.#options.lun.blockSize;
  }

  /** Where the disk's `control` file lies on this machine. */
  control(name: "delete" | "rescan"): string {
    return this.#node.tree.at(`${this.directory}/${name}`);
  }

  /** The directory of the block device. */
  get blockDirectory(): string {
    return `${this.directory}/block/${this.name}`;
  }

  /** The file that reads and writes reach; undefined when the array has nothing at this LUN. */
  content(): string | undefined {
    const lun = this.#offered;
    return lun === undefined ? undefined : this.#node.contents.file(lun.zvol);
  }

  /** The array has something else (or nothing) at this LUN now; sysfs keeps saying what it said. */
  follow(lun: LunExport | undefined): void {
    const had = this.#offered !== undefined;
    this.#offered = lun;
    const content = this.content();
    if (content !== undefined) this.#node.tree.hardLink(`/dev/${this.name}`, content);
    else if (had) this.#node.tree.text(`/dev/${this.name}`, "", 0o660);
  }

  /**
   * `device/rescan`: asks the array anew for identity and size. On a dead path it takes until the
   * kernel gives up, changes nothing, and is a success all the same.
   */
  rescan(): Taken {
    const reach = this.#options.reach();
    if (reach !== "answers") return reach === "hangs" ? "later" : undefined;
    const lun = this.#offered;
    const { tree, udev } = this.#node;
    this.#identity = lun === undefined
      ? { ...this.#identity, size: 0 }
      : { naa: lun.naa, serial: lun.serial, size: lun.size };
    const attributes = identityEntries(this.#identity, this.#options.portal.iqn);
    for (const [name, value] of Object.entries(attributes)) {
      tree.attribute(`${this.directory}/${name}`, value);
    }
    tree.attribute(`${this.blockDirectory}/size`, sectorsText(this.#identity.size));
    udev.changed(this.udev);
  }

  /** `device/state`. */
  showState(state: "running" | "blocked" | "transport-offline"): void {
    this.#node.tree.attribute(`${this.directory}/state`, state);
  }

  remove(): void {
    this.#gone = true;
    this.#node.controls.remove(this.control("rescan"));
    this.#node.controls.remove(this.control("delete"));
    for (const [name] of this.#classLinks()) this.#node.tree.remove(name);
    hideDisk(this.#node, this.#place(), this.udev);
    this.#node.tree.remove(this.directory);
  }

  #place() {
    return { name: this.name, directory: this.blockDirectory, device: this.device };
  }

  #classLinks(): [string, string][] {
    const names = (kind: string) => kind === "scsi_generic" ? `sg${this.index}` : this.#address;
    return SCSI_CLASSES.map((kind) => [
      `/sys/class/${kind}/${names(kind)}`,
      `${this.directory}/${kind}/${names(kind)}`,
    ]);
  }

  #record() {
    const { portal, lun, member } = this.#options;
    return scsiDiskRecord(this.#sequence, this.#identity, portal, lun.lun, member);
  }
}

/** sda … sdz, sdaa … */
function sdName(index: number): string {
  let letters = "";
  for (let rest = index; rest >= 0; rest = Math.floor(rest / 26) - 1) {
    letters = String.fromCharCode(97 + rest % 26) + letters;
  }
  return `sd${letters}`;
}

/** As the sd driver does: 16 majors of 16 disks with 16 minors each, then more minors of these. */
function sdDevice(index: number): string {
  const block = (index >> 4) & 0xf;
  const major = block === 0 ? 8 : block < 8 ? 64 + block : 120 + block;
  return `${major}:${((index & 0xf) << 4) | (index & 0xfff00)}`;
}
