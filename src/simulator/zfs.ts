/**
 * The simulated pools: datasets, zvols and snapshots with their properties, space and the few rules
 * that ZFS itself enforces. It knows nothing of the API; what it refuses, it says in ZFS's words.
 */

import { randomBytes } from "node:crypto";

export type DatasetType = "FILESYSTEM" | "VOLUME";

export interface Dataset {
  name: string;
  readonly type: DatasetType;
  /** Raw values set on this dataset itself; what is absent is inherited or default. */
  readonly local: Map<string, string>;
  /** User properties set here, by their full ZFS names. */
  readonly user: Map<string, string>;
  /** Bytes; 0 for a file system. */
  volsize: number;
  readonly volblocksize: number;
  refreservation: number;
  /** Bytes of its own data, made up. */
  readonly referenced: number;
  /** The snapshot that it is a clone of. */
  origin: string | undefined;
  readonly createtxg: number;
  readonly guid: string;
  /** Epoch seconds. */
  readonly creation: number;
  /** From when on the device node exists, in ms of the simulator's clock. */
  nodeAt: number;
  /** Encrypted and without its key: listed, but offered to nobody. */
  locked: boolean;
}

export interface Snapshot {
  name: string;
  readonly user: Map<string, string>;
  readonly createtxg: number;
  readonly guid: string;
  readonly creation: number;
  readonly volsize: number;
  readonly referenced: number;
  /** Tag to epoch seconds. */
  readonly holds: Map<string, number>;
  /** Deleted with `defer`: stays until its last clone or hold goes. */
  deferred: boolean;
}

/** What ZFS refuses; the text is that of the command line tools. */
export class ZfsError extends Error {
  constructor(
    readonly kind:
      | "exists"
      | "missing"
      | "busy"
      | "children"
      | "clones"
      | "holds"
      | "space"
      | "newer"
      | "parent",
    message: string,
  ) {
    super(message);
  }
}

const FILESYSTEM_REFERENCED = 98_304;
const VOLUME_REFERENCED = 57_344;

export const datasetOf = (snapshot: string): string => snapshot.split("@")[0] ?? snapshot;
export const parentOf = (name: string): string => name.slice(0, name.lastIndexOf("/"));

export class Zfs {
  readonly datasets = new Map<string, Dataset>();
  readonly snapshots = new Map<string, Snapshot>();
  /** Pool name to its size in bytes. */
  readonly pools = new Map<string, number>();
  /** Space of what was destroyed and is given back in the background. */
  private freeing: { readonly pool: string; readonly bytes: number; readonly until: number }[] = [];
  private txg = 1000;
  private readonly children = new Map<string, Set<string>>();
  /** Names of the snapshots of each dataset, oldest first. */
  private readonly snapshotNames = new Map<string, string[]>();
  private readonly cloneNames = new Map<string, Set<string>>();

  constructor(private readonly now: () => number) {}

  private nextTxg(): number {
    return this.txg += 1 + (randomBytes(1)[0] ?? 0) % 40;
  }

  private guid(): string {
    return (BigInt(`0x${randomBytes(8).toString("hex")}`) >> 1n).toString();
  }

  private seconds(): number {
    return Math.floor(this.now() / 1000);
  }

  addPool(name: string, size: number, local: Record<string, string> = {}): void {
    this.pools.set(name, size);
    this.insert(this.blank(name, "FILESYSTEM", new Map(Object.entries(local))));
  }

  private blank(
    name: string,
    type: DatasetType,
    local: Map<string, string>,
    rest: Partial<Dataset> = {},
  ): Dataset {
    return {
      name,
      type,
      local,
      user: new Map(),
      volsize: 0,
      volblocksize: 16_384,
      refreservation: 0,
      referenced: type === "VOLUME" ? VOLUME_REFERENCED : FILESYSTEM_REFERENCED,
      origin: undefined,
      createtxg: this.nextTxg(),
      guid: this.guid(),
      creation: this.seconds(),
      nodeAt: 0,
      locked: false,
      ...rest,
    };
  }

  private insert(dataset: Dataset): void {
    this.datasets.set(dataset.name, dataset);
    if (!dataset.name.includes("/")) return;
    const parent = parentOf(dataset.name);
    const siblings = this.children.get(parent) ?? new Set();
    siblings.add(dataset.name);
    this.children.set(parent, siblings);
  }

  childrenOf(name: string): string[] {
    return [...this.children.get(name) ?? []].sort();
  }

  /** The dataset and everything below it, by name. */
  subtree(name: string): string[] {
    return [name, ...this.childrenOf(name).flatMap((child) => this.subtree(child))];
  }

  snapshotsOf(dataset: string): Snapshot[] {
    return (this.snapshotNames.get(dataset) ?? []).flatMap((name) => {
      const snapshot = this.snapshots.get(name);
      return snapshot === undefined ? [] : [snapshot];
    });
  }

  clonesOf(snapshot: string): string[] {
    return [...this.cloneNames.get(snapshot) ?? []].sort();
  }

  /** Bytes used by a dataset with all below it. */
  used(name: string): number {
    const dataset = this.datasets.get(name);
    if (dataset === undefined) return 0;
    let sum = dataset.referenced + this.usedByRefreservation(dataset);
    for (const child of this.children.get(name) ?? []) sum += this.used(child);
    return sum;
  }

  usedByRefreservation(dataset: Dataset): number {
    return Math.max(0, dataset.refreservation - dataset.referenced);
  }

  /** Bytes that nobody has claimed in the pool of a dataset. */
  free(name: string): number {
    const pool = name.split("/")[0] ?? name;
    return Math.max(0, (this.pools.get(pool) ?? 0) - this.used(pool) - this.stillFreeing(pool));
  }

  /** Bytes that are gone from sight and not yet free. */
  stillFreeing(pool: string): number {
    const now = this.now();
    this.freeing = this.freeing.filter((entry) => entry.until > now);
    return this.freeing.reduce((sum, entry) => sum + (entry.pool === pool ? entry.bytes : 0), 0);
  }

  /** The value of a user property, with the dataset that it comes from. */
  userProperties(name: string): Map<string, { value: string; from: string }> {
    const result = new Map<string, { value: string; from: string }>();
    let at = name;
    while (at !== "") {
      for (const [key, value] of this.datasets.get(at)?.user ?? []) {
        if (!result.has(key)) result.set(key, { value, from: at });
      }
      at = at.includes("/") ? parentOf(at) : "";
    }
    return result;
  }

  /** The raw value of a native property and where it comes from; undefined for the default. */
  property(
    name: string,
    key: string,
    inherits = true,
  ): { value: string; from: string } | undefined {
    let at = name;
    while (at !== "") {
      const value = this.datasets.get(at)?.local.get(key);
      if (value !== undefined) return { value, from: at };
      at = inherits && at.includes("/") ? parentOf(at) : "";
    }
    return undefined;
  }

  create(name: string, type: DatasetType, rest: Partial<Dataset> = {}): Dataset {
    if (this.datasets.has(name)) {
      throw new ZfsError("exists", `cannot create '${name}': dataset already exists`);
    }
    if (!this.datasets.has(parentOf(name))) {
      throw new ZfsError("parent", `cannot create '${name}': parent does not exist`);
    }
    const reserved = rest.refreservation ?? 0;
    if (reserved > 0 && reserved > this.free(name)) {
      throw new ZfsError("space", `cannot create '${name}': out of space`);
    }
    const dataset = this.blank(name, type, rest.local ?? new Map(), rest);
    this.insert(dataset);
    if (dataset.origin !== undefined) this.linkClone(dataset.origin, name);
    return dataset;
  }

  private linkClone(snapshot: string, clone: string): void {
    const clones = this.cloneNames.get(snapshot) ?? new Set();
    clones.add(clone);
    this.cloneNames.set(snapshot, clones);
  }

  /** What stands in the way of destroying a dataset; undefined when nothing does. */
  destroyFault(name: string, recursive: boolean): ZfsError | undefined {
    const dataset = this.datasets.get(name);
    if (dataset === undefined) {
      return new ZfsError("missing", `cannot open '${name}': dataset does not exist`);
    }
    const noun = dataset.type === "VOLUME" ? "volume" : "filesystem";
    const below = this.subtree(name).slice(1);
    const snapshots = this.snapshotsOf(name).map((snapshot) => snapshot.name);
    if (!recursive && (below.length > 0 || snapshots.length > 0)) {
      const list = [...below, ...snapshots].join("\n");
      return new ZfsError(
        "children",
        `cannot destroy '${name}': ${noun} has children\nuse '-r' to destroy the following datasets:\n${list}`,
      );
    }
    const inside = new Set(this.subtree(name));
    for (const member of inside) {
      for (const snapshot of this.snapshotsOf(member)) {
        const clones = this.clonesOf(snapshot.name).filter((clone) => !inside.has(clone));
        if (clones.length > 0) {
          return new ZfsError(
            "clones",
            `cannot destroy '${name}': ${noun} has dependent clones\nuse '-R' to destroy the following datasets:\n${
              clones.join("\n")
            }`,
          );
        }
        if (snapshot.holds.size > 0) {
          return new ZfsError("holds", `cannot destroy '${snapshot.name}': dataset is busy`);
        }
      }
    }
    return undefined;
  }

  /**
   * Removes one dataset without children, and its snapshots with it.
   *
   * @param freeingMs until its space is free.
   */
  remove(name: string, freeingMs = 0): void {
    const dataset = this.datasets.get(name);
    if (dataset === undefined) return;
    if (freeingMs > 0) {
      const pool = name.split("/")[0] ?? name;
      this.freeing.push({ pool, bytes: this.used(name), until: this.now() + freeingMs });
    }
    for (const snapshot of this.snapshotsOf(name)) this.dropSnapshot(snapshot.name);
    this.datasets.delete(name);
    this.children.get(parentOf(name))?.delete(name);
    if (dataset.origin !== undefined) {
      this.cloneNames.get(dataset.origin)?.delete(name);
      this.finishDeferred(dataset.origin);
    }
  }

  /** Renames a dataset with all below it and their snapshots. */
  rename(from: string, to: string): void {
    if (this.datasets.has(to)) {
      throw new ZfsError("exists", `cannot rename '${from}': dataset already exists`);
    }
    if (!this.datasets.has(parentOf(to))) {
      throw new ZfsError("parent", `cannot rename '${from}': parent does not exist`);
    }
    for (const old of this.subtree(from)) {
      const dataset = this.datasets.get(old);
      if (dataset === undefined) continue;
      const name = to + old.slice(from.length);
      this.datasets.delete(old);
      this.children.get(parentOf(old))?.delete(old);
      dataset.name = name;
      this.insert(dataset);
      if (dataset.origin !== undefined) {
        this.cloneNames.get(dataset.origin)?.delete(old);
        this.linkClone(dataset.origin, name);
      }
      for (const snapshot of this.snapshotsOf(old)) {
        this.moveSnapshot(snapshot, `${name}@${snapshot.name.split("@")[1]}`);
      }
    }
  }

  snapshot(dataset: string, snap: string, user: Record<string, string> = {}): Snapshot {
    const name = `${dataset}@${snap}`;
    const source = this.datasets.get(dataset);
    if (source === undefined) throw new ZfsError("missing", `Dataset ${dataset} not found`);
    if (this.snapshots.has(name)) {
      throw new ZfsError("exists", `cannot create snapshot '${name}': dataset already exists`);
    }
    const snapshot: Snapshot = {
      name,
      user: new Map(Object.entries(user)),
      createtxg: this.nextTxg(),
      guid: this.guid(),
      creation: this.seconds(),
      volsize: source.volsize,
      referenced: source.referenced,
      holds: new Map(),
      deferred: false,
    };
    this.snapshots.set(name, snapshot);
    const names = this.snapshotNames.get(dataset) ?? [];
    names.push(name);
    this.snapshotNames.set(dataset, names);
    return snapshot;
  }

  /** Forgets a snapshot, whatever hangs on it. */
  dropSnapshot(name: string): void {
    this.snapshots.delete(name);
    this.cloneNames.delete(name);
    const dataset = datasetOf(name);
    this.snapshotNames.set(
      dataset,
      (this.snapshotNames.get(dataset) ?? []).filter((other) => other !== name),
    );
  }

  /** The snapshots of the same dataset that are newer. */
  newerThan(name: string): Snapshot[] {
    const all = this.snapshotsOf(datasetOf(name));
    return all.slice(all.findIndex((snapshot) => snapshot.name === name) + 1);
  }

  moveSnapshot(snapshot: Snapshot, to: string): void {
    const from = snapshot.name;
    const old = datasetOf(from);
    const names = this.snapshotNames.get(old) ?? [];
    if (datasetOf(to) === old) {
      this.snapshotNames.set(old, names.map((name) => name === from ? to : name));
    } else {
      this.snapshotNames.set(old, names.filter((name) => name !== from));
      const list = [...this.snapshotNames.get(datasetOf(to)) ?? [], to];
      this.snapshots.set(to, snapshot);
      list.sort((a, b) =>
        (this.snapshots.get(a)?.createtxg ?? 0) - (this.snapshots.get(b)?.createtxg ?? 0)
      );
      this.snapshotNames.set(datasetOf(to), list);
    }
    this.snapshots.delete(from);
    snapshot.name = to;
    this.snapshots.set(to, snapshot);
    const clones = this.cloneNames.get(from);
    this.cloneNames.delete(from);
    if (clones === undefined) return;
    this.cloneNames.set(to, clones);
    for (const clone of clones) {
      const dataset = this.datasets.get(clone);
      if (dataset !== undefined) dataset.origin = to;
    }
  }

  /** Swaps a clone with its origin: the older snapshots become the clone's. */
  promote(name: string): void {
    const clone = this.datasets.get(name);
    if (clone?.origin === undefined) return;
    const originSnapshot = clone.origin;
    const originName = datasetOf(originSnapshot);
    const origin = this.datasets.get(originName);
    const all = this.snapshotsOf(originName);
    const upTo = all.findIndex((snapshot) => snapshot.name === originSnapshot) + 1;
    const taken = this.snapshotsOf(name).map((snapshot) => snapshot.name.split("@")[1]);
    const clash = all.slice(0, upTo).find((s) => taken.includes(s.name.split("@")[1]));
    if (clash !== undefined) {
      throw new ZfsError(
        "exists",
        `cannot promote '${name}': snapshot name '${clash.name}' from origin conflicts`,
      );
    }
    this.cloneNames.get(originSnapshot)?.delete(name);
    clone.origin = origin?.origin;
    if (origin?.origin !== undefined) {
      this.cloneNames.get(origin.origin)?.delete(originName);
      this.linkClone(origin.origin, name);
    }
    for (const snapshot of all.slice(0, upTo)) {
      this.moveSnapshot(snapshot, `${name}@${snapshot.name.split("@")[1]}`);
    }
    if (origin !== undefined) {
      origin.origin = `${name}@${originSnapshot.split("@")[1]}`;
      this.linkClone(origin.origin, originName);
    }
  }

  /** A snapshot that was deleted with `defer` goes with its last clone and hold. */
  finishDeferred(name: string): boolean {
    const snapshot = this.snapshots.get(name);
    if (!snapshot?.deferred) return false;
    if (this.clonesOf(name).length > 0 || snapshot.holds.size > 0) return false;
    this.dropSnapshot(name);
    return true;
  }
}

/** What a thick zvol reserves: its size and the room for its indirect blocks, as ZFS reckons it. */
export function thickReservation(volsize: number, volblocksize: number): number {
  let blocks = volsize / volblocksize;
  let indirect = 7;
  while (blocks > 1) {
    blocks = Math.floor((blocks + 1023) / 1024);
    indirect += blocks;
  }
  return volsize + indirect * 2 * 16_384;
}
