/**
 * The running simulation that every service works on: the world, the release it plays, the queue of
 * reloads, jobs, events, faults and the data side. Importing it starts nothing.
 */

import type { JsonObject } from "./json.ts";
import type { DataSide, Exports } from "./exports.ts";
import { deviceSizes, iscsiExports, nvmetExports, resized, withSize } from "./export_view.ts";
import { Faults } from "./faults.ts";
import { Jobs } from "./jobs.ts";
import type { Latency } from "./latency.ts";
import { pause } from "./latency.ts";
import { Queue, Slots } from "./queue.ts";
import type { Release } from "./release.ts";
import { Reloads } from "./reload.ts";
import { Stats } from "./stats.ts";
import type { ServiceName, World } from "./world.ts";

/** A `collection_update` notification. */
export interface Event {
  readonly msg: "added" | "changed" | "removed";
  readonly collection: string;
  readonly id: number | string;
  readonly fields?: JsonObject;
  readonly extra?: JsonObject;
  /** Only sessions of this user see it, unless they are full administrators. */
  readonly owner?: string;
}

export interface SimSettings {
  readonly release: Release;
  readonly latency: Latency;
  readonly world: World;
  readonly dataSide: DataSide;
  readonly now: () => number;
  /** Logins a minute from one address; 0 for no limit. */
  readonly loginLimit: number;
}

const NOTHING: Exports = {
  iscsi: { running: false, port: 3260, targets: [] },
  nvmet: { running: false, subsystems: [] },
};

export class Sim {
  readonly release: Release;
  readonly latency: Latency;
  readonly world: World;
  readonly dataSide: DataSide;
  readonly now: () => number;
  readonly loginLimit: number;
  readonly faults = new Faults();
  readonly stats = new Stats();
  readonly jobs: Jobs;
  readonly reloads: Reloads;
  /** One change of pools and data side at a time, in the order of the calls. */
  readonly zfsOrder = new Queue();
  /** 25.x has five helper processes for ZFS writes. */
  readonly zfsSlots: Slots;
  private readonly applying = new Queue();
  private readonly listeners = new Set<(event: Event) => void>();
  private applied: Exports = NOTHING;
  /** What SCST took for the sizes of its devices when it attached them, by naa. */
  private lunSizes: ReadonlyMap<string, number> = new Map();

  constructor(settings: SimSettings) {
    this.release = settings.release;
    this.latency = settings.latency;
    this.world = settings.world;
    this.dataSide = settings.dataSide;
    this.now = settings.now;
    this.loginLimit = settings.loginLimit;
    this.zfsSlots = new Slots(settings.release.major < 2600 ? 5 : 21);
    this.jobs = new Jobs(this);
    this.reloads = new Reloads(this);
  }

  /** What the array offers on the network right now. */
  get exports(): Exports {
    return this.applied;
  }

  onEvent(listener: (event: Event) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Tells everybody; the fault `event.<collection>` makes it late (`delay`) or loses it (`cut`). */
  emit(event: Event): void {
    const fault = this.faults.next(`event.${event.collection}`);
    if (fault?.do === "cut") return;
    const deliver = () => this.listeners.forEach((listener) => listener(event));
    if (fault?.do === "delay") setTimeout(deliver, fault.ms ?? 0);
    else deliver();
  }

  /** One ZFS write: waits for a helper, takes its time, then runs alone. */
  zfsWrite<T>(task: () => Promise<T>): Promise<T> {
    return this.zfsSlots.run(async () => {
      await pause(this.latency.zfsWrite);
      return await this.zfsOrder.run(task);
    });
  }

  /** Brings the data side in step with the database of one service. */
  applyService(service: ServiceName): Promise<void> {
    return this.applying.run(async () => {
      const { world } = this;
      if (service === "iscsitarget") {
        this.lunSizes = deviceSizes(world, this.lunSizes);
        this.applied = { ...this.applied, iscsi: iscsiExports(world, this.lunSizes) };
      } else if (service === "nvmet") {
        this.applied = { ...this.applied, nvmet: nvmetExports(world) };
      } else return;
      await this.dataSide.apply(this.applied);
    });
  }

  /**
   * A zvol has another size. One that was grown is shown so at once, without a reload; after a rollback
   * nobody tells SCST (`pool_/dataset.py` does after growing alone), and nvmet looks by itself.
   */
  applySize(zvol: string, size: number, why: "grown" | "rolled-back"): Promise<void> {
    return this.applying.run(async () => {
      const grown = resized(this.applied, zvol, size);
      this.applied = why === "grown" ? grown : { ...this.applied, nvmet: grown.nvmet };
      if (why === "grown") this.lunSizes = withSize(this.world, this.lunSizes, zvol, size);
      await this.dataSide.apply(this.applied);
    });
  }

  /** Whether the device node of a zvol or of its snapshot is there. */
  hasNode(path: string): boolean {
    const { zfs } = this.world;
    const dataset = zfs.datasets.get(path.split("@")[0] ?? path);
    if (dataset?.type !== "VOLUME" || dataset.nodeAt > this.now()) return false;
    if (path.includes("@")) {
      return zfs.snapshots.has(path) && zfs.property(dataset.name, "snapdev")?.value === "visible";
    }
    return this.dataSide.hasNode(dataset.name);
  }
}
