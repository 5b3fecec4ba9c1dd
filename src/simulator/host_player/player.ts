/**
 * Plays a Proxmox node in a folder, as the data side of the simulated array: the folder's `/sys` and
 * `/dev` follow what the array exports and what programs below that root connect to.
 */

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type DataSide, type Exports, ZvolBusyError } from "../exports.ts";
import { blockdev } from "./blockdev.ts";
import { Contents } from "./contents.ts";
import { iscsiadm } from "./iscsiadm.ts";
import { IscsiSide } from "./iscsi_side.ts";
import { MultipathSide } from "./multipath_side.ts";
import { Controls, emptyControl, type Node, Portals } from "./node.ts";
import { setUpNode } from "./node_setup.ts";
import { Numbers } from "./numbers.ts";
import { NvmeSide } from "./nvme_side.ts";
import { type Answer, answerRequests, MAILBOX } from "./scripts.ts";
import { Tree } from "./tree.ts";
import { Udev } from "./udev.ts";

/**
 * Milliseconds between two looks at the files that programs write to: while something is going on,
 * while something is connected, and else. Looking takes at most an eighth of the time, unless the
 * pause would become longer than `most`.
 */
const SWEEP_MS = { active: 5, connected: 10, idle: 40, most: 60 };
/** For so long after the last request the next one is expected. */
const ACTIVE_MS = 2000;

/** How the node is made. */
export interface HostPlayerOptions {
  /** The node's root; made when missing. An earlier simulated node there is booted anew. */
  readonly directory: string;
  /** The UUID in `/etc/pve/priv/tnblock/cluster-id`. */
  readonly clusterId: string;
  /** How long udev takes after the kernel, in milliseconds; 20 unless given. */
  readonly udevDelayMs?: number;
  /** Native NVMe multipath; on unless given. */
  readonly multipath?: boolean;
  /** Whether multipathd runs; it does unless given. */
  readonly multipathd?: boolean;
}

/** A played node. */
export interface HostPlayer extends DataSide {
  /** Absolute path of the node's root. */
  readonly directory: string;
  /**
   * Cuts a portal off, or brings it back: controllers go `connecting`, sessions `FAILED` and later
   * `FREE`; when it is back they are live again. The portal need not exist.
   */
  setPortalUp(address: string, port: number, up: boolean): Promise<void>;
  /**
   * Lets a portal fall silent, or speak again. Unlike one that is cut off it is not noticed at once:
   * sessions stay `LOGGED_IN` until their noop time-outs, controllers `live`; what is asked through
   * them hangs, and changes on the array are not heard of.
   */
  setPortalSilent(address: string, port: number, silent: boolean): Promise<void>;
  /** Devices whose buffers were flushed (`blockdev --flushbufs`), in order, e.g. `/dev/dm-0`. */
  readonly flushed: readonly string[];
}

/**
 * Prepares the folder and starts to play. It plays until `close()`; the folder stays.
 *
 * @throws TnblockError `invalid` when the folder holds a `/sys` or `/dev` that no simulator made.
 */
export function hostPlayer(options: HostPlayerOptions): Promise<HostPlayer> {
  return Promise.resolve().then(() => new Player(options));
}

class Player implements HostPlayer {
  readonly directory: string;
  readonly flushed: string[] = [];
  readonly #node: Node;
  readonly #nvme: NvmeSide;
  readonly #multipath: MultipathSide;
  readonly #iscsi: IscsiSide;
  #exports: Exports = {
    iscsi: { running: false, port: 3260, targets: [] },
    nvmet: { running: false, subsystems: [] },
  };
  /** All changes of state wait here for those before them. */
  #queue: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #activeAt: number;
  /** Why the sweep has stopped, should it have failed. */
  #failure: unknown;

  constructor(options: HostPlayerOptions) {
    const { multipath = true, multipathd = true, udevDelayMs = 20 } = options;
    this.directory = resolve(options.directory);
    setUpNode(this.directory, { clusterId: options.clusterId, multipath, multipathd });
    const tree = new Tree(this.directory);
    const now = () => performance.now();
    let sequence = 0;
    this.#node = {
      tree,
      now,
      udev: new Udev(tree, udevDelayMs, now),
      contents: new Contents(join(this.directory, ".array", "volumes")),
      portals: new Portals(),
      controls: new Controls(),
      nvmeMinors: new Numbers(),
      nextSequence: () => ++sequence,
      exports: () => this.#exports,
    };
    this.#nvme = new NvmeSide(this.#node, multipath);
    this.#multipath = new MultipathSide(this.#node, multipathd);
    this.#iscsi = new IscsiSide(this.#node, this.#multipath);
    this.#activeAt = now();
    this.#sweepLater(SWEEP_MS.idle);
  }

  createZvol(zvol: string, size: number, origin?: string): Promise<void> {
    return this.#enqueue(() => this.#node.contents.create(zvol, size, origin));
  }

  resizeZvol(zvol: string, size: number): Promise<void> {
    return this.#enqueue(() => {
      this.#node.contents.resize(zvol, size);
      return this.#patch((name, before) => name === zvol ? [name, size] : [name, before]);
    });
  }

  renameZvol(from: string, to: string): Promise<void> {
    return this.#enqueue(() => {
      this.#node.contents.rename(from, to);
      return this.#patch((name, size) => name === from ? [to, size] : [name, size]);
    });
  }

  destroyZvol(zvol: string): Promise<void> {
    return this.#enqueue(() => {
      if (isHeld(this.#exports, zvol)) {
        throw new ZvolBusyError(`cannot destroy '${zvol}': dataset is busy`);
      }
      this.#node.contents.destroy(zvol);
    });
  }

  createSnapshot(zvol: string, snapshot: string): Promise<void> {
    return this.#enqueue(() => this.#node.contents.snapshot(zvol, snapshot));
  }

  renameSnapshot(zvol: string, from: string, to: string): Promise<void> {
    return this.#enqueue(() => this.#node.contents.renameSnapshot(zvol, from, to));
  }

  destroySnapshot(zvol: string, snapshot: string): Promise<void> {
    return this.#enqueue(() => this.#node.contents.destroySnapshot(zvol, snapshot));
  }

  rollback(zvol: string, snapshot: string): Promise<void> {
    // What is offered after it, and with which size, the array says.
    return this.#enqueue(async () => void await this.#node.contents.rollback(zvol, snapshot));
  }

  promote(zvol: string): Promise<void> {
    return this.#enqueue(() => this.#node.contents.promote(zvol));
  }

  hasNode(zvol: string): boolean {
    return this.#node.contents.has(zvol);
  }

  apply(exports: Exports): Promise<void> {
    return this.#enqueue(async () => {
      this.#exports = mapVolumes(exports, (zvol, size) => {
        this.#node.contents.ensure(zvol, size);
        return [zvol, size];
      });
      await this.#sync();
    });
  }

  setPortalUp(address: string, port: number, up: boolean): Promise<void> {
    return this.#enqueue(async () => {
      this.#node.portals.set(address, port, up);
      await this.#sync();
    });
  }

  setPortalSilent(address: string, port: number, silent: boolean): Promise<void> {
    return this.#enqueue(async () => {
      this.#node.portals.setSilent(address, port, silent);
      await this.#sync();
    });
  }

  sessions() {
    return { iscsi: this.#iscsi.sessions(), nvmet: this.#nvme.sessions() };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    // Programs then say that nobody is there, instead of waiting for an answer.
    await this.#queue.then(() => this.#node.tree.remove(MAILBOX));
  }

  /** The array changed names or sizes; the node sees what it would see without a reload. */
  async #patch(change: (zvol: string, size: number) => [string, number]): Promise<void> {
    this.#exports = mapVolumes(this.#exports, change);
    await this.#sync();
  }

  async #sync(): Promise<void> {
    await this.#nvme.sync();
    this.#iscsi.sync();
  }

  #enqueue<T>(job: () => T | Promise<T>): Promise<T> {
    const result = this.#queue.then(() => {
      if (this.#closed) throw new Error("The simulated node is closed");
      if (this.#failure !== undefined) throw this.#failure;
      this.#activeAt = this.#node.now();
      return job();
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  #sweepLater(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#queue = this.#queue.then(() => this.#sweep()).catch((error) => {
        this.#failure = error;
      });
    }, ms);
  }

  async #sweep(): Promise<void> {
    if (this.#closed) return;
    const { udev, now } = this.#node;
    const start = now();
    const served = await this.#serve();
    if (served) this.#activeAt = now();
    // What was asked for may take its time; only looking is to stay cheap.
    const looked = served ? 0 : now() - start;
    const active = udev.busy || now() - this.#activeAt < ACTIVE_MS;
    const connected = this.#nvme.connected || this.#iscsi.connected;
    const pause = active ? SWEEP_MS.active : connected ? SWEEP_MS.connected : SWEEP_MS.idle;
    // Closed while it served: `close()` has seen the old timer only.
    if (!this.#closed) this.#sweepLater(Math.max(pause, Math.min(7 * looked, SWEEP_MS.most)));
  }

  /** Does what programs have asked for by writing to files; says whether there was anything. */
  async #serve(): Promise<boolean> {
    const { udev, controls } = this.#node;
    let served = await this.#nvme.pollFabrics();
    for (const { path, act } of controls.written()) {
      if (!controls.has(path)) continue;
      const text = readFileSync(path, "utf8");
      if (await act(text) === "later") continue;
      emptyControl(path, text);
      served = true;
    }
    const answered = answerRequests(this.directory, (name, args) => this.#run(name, args));
    await this.#nvme.expire();
    this.#iscsi.expire();
    udev.run();
    return served || answered > 0;
  }

  #run(program: string, args: readonly string[]): Answer {
    if (program === "iscsiadm") return iscsiadm(this.#node.tree, this.#iscsi, args);
    if (program === "multipathd") return this.#multipath.command(args);
    if (program === "blockdev") return blockdev(this.#node.tree, args, this.flushed);
    return { status: 127, err: `${program}: not a program of the simulated node\n` };
  }
}

/** The same exports with other names and sizes of volumes. */
function mapVolumes(
  exports: Exports,
  change: (zvol: string, size: number) => [string, number],
): Exports {
  const changed = <T extends { readonly zvol: string; readonly size: number }>(item: T): T => {
    const [zvol, size] = change(item.zvol, item.size);
    return { ...item, zvol, size };
  };
  const { iscsi, nvmet } = exports;
  return {
    iscsi: {
      ...iscsi,
      targets: iscsi.targets.map((target) => ({ ...target, luns: target.luns.map(changed) })),
    },
    nvmet: {
      ...nvmet,
      subsystems: nvmet.subsystems.map((subsystem) => ({
        ...subsystem,
        namespaces: subsystem.namespaces.map(changed),
      })),
    },
  };
}

/** Whether a running service has the zvol open. */
function isHeld({ iscsi, nvmet }: Exports, zvol: string): boolean {
  const named = (item: { readonly zvol: string }) => item.zvol === zvol;
  return iscsi.running && iscsi.targets.some(({ luns }) => luns.some(named)) ||
    nvmet.running && nvmet.subsystems.some(({ namespaces }) => namespaces.some(named));
}
