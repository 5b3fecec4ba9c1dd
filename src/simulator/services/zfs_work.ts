/** Changes of the simulated pools with the data side in step: used by every method that makes them. */

import { ZvolBusyError } from "../exports.ts";
import type { Dataset, Snapshot } from "../zfs.ts";
import { datasetOf, ZfsError } from "../zfs.ts";
import type { Call } from "./service.ts";

const snapOf = (name: string): string => name.slice(name.indexOf("@") + 1);

/** Makes a zvol or file system; a zvol's device node follows after a while. */
export async function createDataset(
  call: Call,
  name: string,
  type: Dataset["type"],
  rest: Partial<Dataset>,
): Promise<Dataset> {
  const { sim } = call;
  return await sim.zfsWrite(async () => {
    const nodeAt = type === "VOLUME" ? sim.now() + sim.latency.node() : 0;
    const dataset = sim.world.zfs.create(name, type, { ...rest, nodeAt });
    if (type === "VOLUME") {
      try {
        await sim.dataSide.createZvol(name, dataset.volsize, dataset.origin);
      } catch (error) {
        sim.world.zfs.remove(name);
        throw error;
      }
    }
    return dataset;
  });
}

/**
 * Destroys a dataset, children first.
 *
 * @param everything also clones and holds of its snapshots, as 26 does with `recursive`.
 * @throws ZfsError; kind `busy` when somebody holds a zvol.
 */
export async function destroyDataset(
  call: Call,
  name: string,
  recursive: boolean,
  everything: boolean,
): Promise<void> {
  const { zfs } = call.sim.world;
  await call.sim.zfsWrite(async () => {
    if (recursive && everything) {
      for (const member of zfs.subtree(name)) {
        for (const snapshot of zfs.snapshotsOf(member)) {
          snapshot.holds.clear();
          for (const clone of zfs.clonesOf(snapshot.name)) await destroyTree(call, clone, true);
        }
      }
    }
    const fault = zfs.destroyFault(name, recursive);
    if (fault !== undefined) throw fault;
    await destroyTree(call, name, false);
  });
}

async function destroyTree(call: Call, name: string, clonesToo: boolean): Promise<void> {
  const { zfs } = call.sim.world;
  for (const member of zfs.subtree(name).reverse()) {
    const dataset = zfs.datasets.get(member);
    if (dataset === undefined) continue;
    if (clonesToo) {
      for (const snapshot of zfs.snapshotsOf(member)) {
        for (const clone of zfs.clonesOf(snapshot.name)) await destroyTree(call, clone, true);
      }
    }
    if (dataset.type === "VOLUME") await releaseZvol(call, dataset);
    const { origin } = dataset;
    const wasThere = origin !== undefined && zfs.snapshots.has(origin);
    zfs.remove(member, call.sim.latency.freeing);
    if (wasThere && !zfs.snapshots.has(origin)) await dropData(call, origin);
    call.sim.emit({ msg: "removed", collection: "pool.dataset.query", id: member });
  }
}

async function releaseZvol(call: Call, dataset: Dataset): Promise<void> {
  const { zfs } = call.sim.world;
  try {
    await call.sim.dataSide.destroyZvol(dataset.name);
  } catch (error) {
    if (!(error instanceof ZvolBusyError)) throw error;
    throw new ZfsError("busy", `cannot destroy '${dataset.name}': dataset is busy`);
  }
  for (const snapshot of zfs.snapshotsOf(dataset.name)) {
    await call.sim.dataSide.destroySnapshot(dataset.name, snapOf(snapshot.name));
  }
}

/** The data of a snapshot that is gone from the pool. */
async function dropData(call: Call, snapshot: string): Promise<void> {
  await call.sim.dataSide.destroySnapshot(datasetOf(snapshot), snapOf(snapshot));
}

const isVolume = (call: Call, dataset: string): boolean =>
  call.sim.world.zfs.datasets.get(dataset)?.type === "VOLUME";

export async function createSnapshot(
  call: Call,
  dataset: string,
  snap: string,
  user: Record<string, string>,
): Promise<Snapshot> {
  return await call.sim.zfsWrite(async () => {
    const snapshot = call.sim.world.zfs.snapshot(dataset, snap, user);
    if (isVolume(call, dataset)) await call.sim.dataSide.createSnapshot(dataset, snap);
    return snapshot;
  });
}

/** Removes a snapshot that nothing hangs on. */
export async function dropSnapshot(call: Call, name: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    if (!call.sim.world.zfs.snapshots.has(name)) return;
    if (isVolume(call, datasetOf(name))) await dropData(call, name);
    call.sim.world.zfs.dropSnapshot(name);
  });
}

/** After a hold went: a snapshot that was only waiting for that goes too. */
export async function finishDeferred(call: Call, name: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    if (!call.sim.world.zfs.finishDeferred(name)) return;
    if (isVolume(call, datasetOf(name))) await dropData(call, name);
  });
}

/** Back to a snapshot; what is newer must be gone by then. */
export async function rollback(call: Call, name: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    const dataset = call.sim.world.zfs.datasets.get(datasetOf(name));
    const snapshot = call.sim.world.zfs.snapshots.get(name);
    if (dataset?.type !== "VOLUME" || snapshot === undefined) return;
    await call.sim.dataSide.rollback(dataset.name, snapOf(name));
    if (dataset.volsize === snapshot.volsize) return;
    dataset.volsize = snapshot.volsize;
    await call.sim.applySize(dataset.name, snapshot.volsize, "rolled-back");
  });
}

export async function renameSnapshot(call: Call, from: string, to: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    const { zfs } = call.sim.world;
    const snapshot = zfs.snapshots.get(from);
    if (snapshot === undefined) return;
    const dataset = datasetOf(from);
    if (isVolume(call, dataset)) {
      await call.sim.dataSide.renameSnapshot(dataset, snapOf(from), snapOf(to));
    }
    zfs.moveSnapshot(snapshot, to);
  });
}

export async function renameDataset(call: Call, from: string, to: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    const { zfs } = call.sim.world;
    const volumes = zfs.subtree(from).filter((name) => isVolume(call, name));
    zfs.rename(from, to);
    for (const name of volumes) {
      const renamed = to + name.slice(from.length);
      // udev makes the node of the new name, after the answer as a rule.
      const dataset = zfs.datasets.get(renamed);
      if (dataset !== undefined) dataset.nodeAt = call.sim.now() + call.sim.latency.node();
      await call.sim.dataSide.renameZvol(name, renamed);
    }
  });
}

export async function promote(call: Call, name: string): Promise<void> {
  await call.sim.zfsWrite(async () => {
    const { zfs } = call.sim.world;
    zfs.promote(name);
    if (isVolume(call, name)) await call.sim.dataSide.promote?.(name);
  });
}

export async function resize(call: Call, dataset: Dataset, size: number): Promise<void> {
  await call.sim.zfsWrite(async () => {
    await call.sim.dataSide.resizeZvol(dataset.name, size);
    dataset.volsize = size;
    await call.sim.applySize(dataset.name, size, "grown");
  });
}
