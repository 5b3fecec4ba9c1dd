/** One NVMe subsystem as the kernel joins it from its controllers: its directory, its disks and their paths. */

import type { NamespaceExport } from "../exports.ts";
import type { Node } from "./node.ts";
import { Numbers } from "./numbers.ts";
import { NvmeDisk } from "./nvme_disk.ts";
import { CONTROLLERS, subsystemEntries, SUBSYSTEMS } from "./nvme_files.ts";

/** A namespace as all controllers see it together. */
interface Head {
  readonly number: number;
  readonly nsid: number;
  readonly uuid: string;
  /** The disk with the node; with native multipath off every path has its own instead. */
  readonly disk: NvmeDisk | undefined;
  readonly paths: Set<Path>;
}

/** A namespace as one controller sees it. */
export interface Path {
  readonly head: Head;
  /** Hidden with native multipath, else a disk with a node. */
  readonly disk: NvmeDisk;
}

/** A subsystem; making one makes its directory appear. */
export class NvmeSubsystem {
  readonly #node: Node;
  readonly #native: boolean;
  readonly #serial: string;
  readonly #directory: string;
  readonly #heads = new Set<Head>();
  readonly #headNumbers = new Numbers(1);
  /** Instances of its controllers. */
  readonly #controllers = new Set<number>();

  /** @param number The instance of its first controller; it stays the subsystem's as long as that is there. */
  constructor(
    node: Node,
    native: boolean,
    nqn: string,
    readonly number: number,
    serial: string,
  ) {
    this.#node = node;
    this.#native = native;
    this.#serial = serial;
    this.#directory = `${SUBSYSTEMS}/nvme-subsys${number}`;
    node.tree.plant(this.#directory, subsystemEntries(nqn, serial));
    node.tree.link(`/sys/class/nvme-subsystem/nvme-subsys${number}`, this.#directory);
  }

  join(instance: number): void {
    this.#controllers.add(instance);
    this.#node.tree.link(`${this.#directory}/nvme${instance}`, `${CONTROLLERS}/nvme${instance}`);
  }

  /** A controller, whose paths are gone already, leaves; with the last one goes the subsystem: true then. */
  leave(instance: number): boolean {
    this.#controllers.delete(instance);
    this.#node.tree.remove(`${this.#directory}/nvme${instance}`);
    if (this.#controllers.size > 0) return false;
    this.#node.tree.remove(`/sys/class/nvme-subsystem/nvme-subsys${this.number}`);
    this.#node.tree.remove(this.#directory);
    return true;
  }

  /** A controller has found a namespace: a path, and with the first path of a namespace its disk. */
  addPath(instance: number, namespace: NamespaceExport): Path {
    const { nsid, uuid } = namespace;
    const known = [...this.#heads].find((head) => head.nsid === nsid && head.uuid === uuid);
    const number = known?.number ?? this.#headNumbers.take();
    const disk = new NvmeDisk(this.#node, {
      name: this.#native ? `nvme${this.number}c${instance}n${number}` : `nvme${instance}n${number}`,
      parent: `${CONTROLLERS}/nvme${instance}`,
      hidden: this.#native,
      serial: this.#serial,
      namespace,
    });
    const head = known ?? this.#addHead(number, namespace);
    const path = { head, disk };
    head.paths.add(path);
    return path;
  }

  /** The disk goes with its last path. */
  removePath(path: Path): void {
    const { head, disk } = path;
    disk.remove();
    head.paths.delete(path);
    if (head.paths.size > 0) return;
    head.disk?.remove();
    this.#heads.delete(head);
    this.#headNumbers.release(head.number);
  }

  #addHead(number: number, namespace: NamespaceExport): Head {
    const disk = !this.#native ? undefined : new NvmeDisk(this.#node, {
      name: `nvme${this.number}n${number}`,
      parent: this.#directory,
      hidden: false,
      serial: this.#serial,
      namespace,
    });
    const { nsid, uuid } = namespace;
    const head: Head = { number, nsid, uuid, disk, paths: new Set() };
    this.#heads.add(head);
    return head;
  }
}
