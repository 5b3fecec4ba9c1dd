/** One NVMe disk of the simulated node: with a node in `/dev`, or a hidden path of such a disk. */

import type { NamespaceExport } from "../exports.ts";
import { hideDisk, sectorsText, showDisk } from "./block_disk.ts";
import type { Node } from "./node.ts";
import { genericEntries, nvmeDiskEntries, nvmeDiskRecord } from "./nvme_files.ts";
import type { UdevDisk } from "./udev.ts";

/** What a disk is made from. */
export interface NvmeDiskOptions {
  readonly name: string;
  /** The directory of its controller or subsystem, in which it lies. */
  readonly parent: string;
  readonly hidden: boolean;
  /** The subsystem's. */
  readonly serial: string;
  readonly namespace: NamespaceExport;
}

/** A disk; making one makes it appear. */
export class NvmeDisk {
  readonly #node: Node;
  readonly #options: NvmeDiskOptions;
  readonly #directory: string;
  readonly #sequence: number;
  readonly #minor: number | undefined;
  readonly #udev: UdevDisk | undefined;
  #namespace: NamespaceExport;
  #gone = false;

  constructor(node: Node, options: NvmeDiskOptions) {
    this.#node = node;
    this.#options = options;
    this.#namespace = options.namespace;
    this.#directory = `${options.parent}/${options.name}`;
    this.#sequence = node.nextSequence();
    this.#minor = options.hidden ? undefined : node.nvmeMinors.take();
    showDisk(node, this.#place(), nvmeDiskEntries(this.#files()), this.#content());
    if (this.#minor === undefined) return;
    this.#showGeneric(this.#minor);
    this.#udev = {
      name: options.name,
      device: `259:${this.#minor}`,
      describe: () => this.#gone ? undefined : nvmeDiskRecord(this.#files(), options.serial),
    };
    node.udev.changed(this.#udev);
  }

  /** The namespace as the array shows it now; a new size shows at once. */
  follow(namespace: NamespaceExport): void {
    const resized = namespace.size !== this.#namespace.size;
    this.#namespace = namespace;
    this.relink();
    if (!resized) return;
    const sectors = sectorsText(namespace.size);
    this.#node.tree.attribute(`${this.#directory}/size`, sectors);
    this.#node.tree.attribute(`${this.#directory}/nuse`, sectors);
    if (this.#udev !== undefined) this.#node.udev.changed(this.#udev);
  }

  /** Makes the node a name of the file that holds the volume now. */
  relink(): void {
    const content = this.#content();
    if (content !== undefined) this.#node.tree.hardLink(`/dev/${this.#options.name}`, content);
  }

  remove(): void {
    this.#gone = true;
    const generic = this.#generic();
    if (this.#minor !== undefined) {
      this.#node.tree.remove(`/sys/class/nvme-generic/${generic}`);
      this.#node.tree.remove(`/dev/${generic}`);
      this.#node.tree.remove(`${this.#options.parent}/${generic}`);
      this.#node.nvmeMinors.release(this.#minor);
    }
    hideDisk(this.#node, this.#place(), this.#udev);
  }

  #content(): string | undefined {
    if (this.#minor === undefined) return undefined;
    return this.#node.contents.file(this.#namespace.zvol);
  }

  #place() {
    const device = this.#minor === undefined ? undefined : `259:${this.#minor}`;
    return { name: this.#options.name, directory: this.#directory, device };
  }

  #files() {
    return {
      ...this.#place(),
      parent: this.#options.parent,
      sequence: this.#sequence,
      namespace: this.#namespace,
    };
  }

  #generic(): string {
    return this.#options.name.replace("nvme", "ng");
  }

  #showGeneric(minor: number): void {
    const name = this.#generic();
    const { parent } = this.#options;
    this.#node.tree.plant(`${parent}/${name}`, genericEntries(name, minor, parent));
    this.#node.tree.link(`/sys/class/nvme-generic/${name}`, `${parent}/${name}`);
    this.#node.tree.text(`/dev/${name}`, "", 0o600);
  }
}
