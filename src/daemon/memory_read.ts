/** The reads that a memory is made of: everything of a storage, or some of its paths. */
import type { Clock, Deadline } from "../common/deadline.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { ArrayCall, MemorizedStorage } from "../pve/hook.ts";
import type { Caller } from "../truenas/caller.ts";
import * as datasets from "../truenas/datasets.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import * as pools from "../truenas/pools.ts";
import * as zvols from "../truenas/zvols.ts";
import type { VolumeExport } from "../transport/transport.ts";
import { checkDataset } from "../volumes/ownership.ts";
import type { Found } from "./memory_picture.ts";

/** What a read of everything found. */
export interface WholeRead {
  readonly found: Found;
  readonly parent: datasets.Dataset;
  /** Undefined when it is not imported, or the key may not read pools. */
  readonly pool: pools.Pool | undefined;
  /** Whether the dataset is encrypted, and its key not loaded. */
  readonly isLocked: boolean;
}

/** What a read of some paths found. */
export interface PartRead {
  /** The paths that it tells of. */
  readonly paths: readonly string[];
  readonly found: Found;
  readonly parent: datasets.Dataset;
}

/** Words of zpool for a pool that serves nothing; DEGRADED serves everything. */
const DEAD_POOL = ["FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "SUSPENDED"];

/** What makes a storage useless although the array answers. */
export function faultOf(storage: MemorizedStorage, read: WholeRead): TnblockError | undefined {
  const { id, dataset } = storage.settings;
  const { pool, isLocked, parent } = read;
  if (pool !== undefined && DEAD_POOL.includes(pool.status)) {
    return new TnblockError(
      "array-fault",
      `Cannot use the storage "${id}": its pool "${pool.name}" is ${pool.status}`,
      { hint: "Look at the pool in TrueNAS: Storage" },
    );
  }
  if (isLocked) {
    return new TnblockError(
      "config",
      `Cannot use the storage "${id}": its dataset "${dataset}" is locked`,
      { field: "tnb-dataset", hint: "Unlock the dataset in TrueNAS: Datasets" },
    );
  }
  try {
    checkDataset(storage, parent);
    return undefined;
  } catch (error) {
    return asTnblockError(error);
  }
}

/** A caller whose calls are told of. */
export function countedCaller(
  caller: Caller,
  clock: Clock,
  onArrayCall: ((call: ArrayCall) => void) | undefined,
): Caller {
  if (onArrayCall === undefined) return caller;
  const timed = async (method: string, call: () => Promise<unknown>) => {
    const startMs = clock.monotonicMs();
    let done = false;
    try {
      const result = await call();
      done = true;
      return result;
    } finally {
      onArrayCall({ method, ms: clock.monotonicMs() - startMs, done });
    }
  };
  return {
    release: caller.release,
    call: (method, params, options) => timed(method, () => caller.call(method, params, options)),
    callJob: (method, params, options) =>
      timed(method, () => caller.callJob(method, params, options)),
  };
}

/** Reads volumes, exports, space and pool side by side: four calls over NVMe/TCP, five over iSCSI. */
export async function readWhole(
  storage: MemorizedStorage,
  array: Caller,
  deadline: Deadline,
): Promise<WholeRead> {
  const { dataset } = storage.settings;
  const pool = dataset.split("/")[0] ?? dataset;
  const [listing, exports, state, isLocked] = await Promise.all([
    zvols.list(array, dataset, deadline.bounds()),
    storage.transport.listExports(array, dataset, deadline),
    pools.read(array, pool, deadline.bounds()).catch((error: unknown) => {
      // A key without POOL_READ: the dataset answers by itself.
      if (arrayErrorIn(error)?.code === "denied") return undefined;
      throw error;
    }),
    datasets.isLocked(array, dataset, deadline.bounds()),
  ]);
  return {
    found: { zvols: listing.zvols, exports },
    parent: listing.parent,
    pool: state,
    isLocked,
  };
}

/**
 * Reads some paths; a path whose export is not of this storage alone is left to the next read of everything.
 *
 * @throws TnblockError `not-found` when the dataset itself is away: its volumes are not gone.
 */
export async function readPart(
  storage: MemorizedStorage,
  array: Caller,
  paths: readonly string[],
  deadline: Deadline,
): Promise<PartRead> {
  const { dataset } = storage.settings;
  const [read, parent, lookups] = await Promise.all([
    zvols.readSome(array, paths, deadline.bounds()),
    datasets.read(array, dataset, deadline.bounds()),
    Promise.all(paths.map((path) => storage.transport.lookUp(array, path, deadline))),
  ]);
  if (parent === undefined) {
    throw new TnblockError(
      "not-found",
      `Cannot read the volumes of "${dataset}": there is no such dataset on the array`,
      { field: "tnb-dataset" },
    );
  }
  const told: string[] = [];
  const exports: VolumeExport[] = [];
  paths.forEach((path, index) => {
    const lookup = lookups[index];
    if (lookup === undefined || lookup.kind === "foreign") return;
    told.push(path);
    if (lookup.kind === "ours") exports.push(lookup.export);
  });
  const asked = new Set(told);
  return {
    paths: told,
    found: { zvols: read.filter((zvol) => asked.has(zvol.name)), exports },
    parent,
  };
}
