/** Reads all of the array that tells whether something is an orphan. */
import { TnblockError } from "../common/error.ts";
import type { Deadline } from "../common/deadline.ts";
import type { Caller } from "../truenas/caller.ts";
import * as connected from "../truenas/connected.ts";
import * as extents from "../truenas/extents.ts";
import * as iscsiGlobal from "../truenas/iscsi_global.ts";
import * as namespaces from "../truenas/namespaces.ts";
import * as replications from "../truenas/replications.ts";
import * as snapshots from "../truenas/snapshots.ts";
import * as subsystems from "../truenas/subsystems.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import * as targets from "../truenas/targets.ts";
import { readOrigins } from "../truenas/zfs_rows.ts";
import * as zvols from "../truenas/zvols.ts";
import { checkDataset } from "../volumes/ownership.ts";
import type { Storage } from "../volumes/storage.ts";
import type { ArrayView } from "./world.ts";

/** Everything but the snapshots, of which only those of suspects are wanted. */
export async function readArray(
  storage: Storage,
  array: Caller,
  nowMs: () => Promise<number | undefined>,
): Promise<Omit<ArrayView, "snapshots">> {
  const { settings, deadline } = storage;
  const wait = deadline.bounds();
  const { dataset, transport } = settings;
  const pool = dataset.split("/")[0] ?? dataset;
  const hasNvme = array.release.can.nvmet;
  const [
    now,
    listing,
    clones,
    allExtents,
    mappings,
    allNamespaces,
    config,
    allTargets,
    all,
    tasks,
  ] = await Promise.all([
    nowMs(),
    zvols.list(array, dataset, wait),
    readOrigins(array, pool, `Cannot read the clones of pool "${pool}"`, wait),
    extents.all(array, wait),
    // Of the other protocol only exports are read: its targets are nobody's here, and need a role of their own.
    transport.kind === "iscsi" ? targetExtents.all(array, wait) : [],
    hasNvme ? namespaces.all(array, wait) : [],
    transport.kind === "iscsi" ? iscsiGlobal.read(array, wait) : undefined,
    transport.kind === "iscsi" ? targets.all(array, wait) : [],
    transport.kind === "nvme-tcp" ? subsystems.all(array, wait) : [],
    readTasks(array, deadline),
  ]);
  const iqnOf = ({ name }: targets.Target) => targets.iqnOf(name, config?.basename ?? "");
  const parent = transport.kind === "iscsi"
    ? allTargets.find((one) => iqnOf(one) === transport.targetIqn)?.id
    : all.find(({ nqn }) => nqn === transport.subsystemNqn)?.id;
  return {
    connected: await readConnected(storage, array, parent),
    nowMs: now,
    refusal: whyRefused(storage, listing.parent),
    zvols: listing.zvols,
    filesystems: listing.filesystems,
    extents: allExtents,
    mappings,
    namespaces: allNamespaces,
    parent,
    targets: transport.kind === "iscsi" ? allTargets.map(iqnOf) : undefined,
    clones,
    replications: tasks,
  };
}

function whyRefused(storage: Storage, parent: zvols.Listing["parent"]): string | undefined {
  try {
    checkDataset(storage, parent);
    return undefined;
  } catch (error) {
    if (error instanceof TnblockError) return error.message;
    throw error;
  }
}

async function readConnected(
  { settings: { transport }, deadline }: Storage,
  array: Caller,
  parent: number | undefined,
): Promise<readonly string[] | string> {
  // Nothing is offered then anyway.
  if (parent === undefined) return [];
  try {
    return transport.kind === "iscsi"
      ? await connected.initiatorsOf(array, transport.targetIqn, deadline.bounds())
      : await connected.hostsOf(array, parent, deadline.bounds());
  } catch (error) {
    if (!(error instanceof TnblockError)) throw error;
    return error.message;
  }
}

/** The role for it is none that volumes need: without it no volume is offered, and all else goes on. */
async function readTasks(
  array: Caller,
  deadline: Deadline,
): Promise<replications.Replication[] | string> {
  try {
    return await replications.all(array, deadline.bounds());
  } catch (error) {
    if (!(error instanceof TnblockError)) throw error;
    return error.code === "denied"
      ? "the user of the API key lacks the role REPLICATION_TASK_READ"
      : error.message;
  }
}

/** Paths at a time: each is as many calls as the zvol has snapshots on 25.x, eight of them at once. */
const AT_ONCE = 4;

/** The snapshots of these zvols, with their holds. */
export async function readSnapshots(
  storage: Storage,
  array: Caller,
  paths: readonly string[],
): Promise<ReadonlyMap<string, readonly snapshots.Snapshot[]>> {
  const found = new Map<string, readonly snapshots.Snapshot[]>();
  const left = [...paths];
  const readSome = async () => {
    for (let path = left.shift(); path !== undefined; path = left.shift()) {
      found.set(path, await snapshots.list(array, path, storage.deadline.bounds()));
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, readSome));
  return found;
}
