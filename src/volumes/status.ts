/** Space of a storage: what its dataset may still take, and what it has taken. */
import { TnblockError } from "../common/error.ts";
import * as datasets from "../truenas/datasets.ts";
import type { Storage } from "./storage.ts";

/** Bytes, and whether the storage can be used. */
export interface StorageStatus {
  readonly total: number;
  readonly available: number;
  readonly used: number;
  readonly active: 0 | 1;
}

/** Reads the dataset's space: not the pool's, whose figures count parity as room. */
export async function storageStatus(storage: Storage): Promise<StorageStatus> {
  const { settings, deadline } = storage;
  if (storage.memory !== undefined) {
    await storage.memory.begun();
    return storage.memory.status();
  }
  const dataset = await datasets.read(await storage.array(), settings.dataset, deadline.bounds());
  if (dataset === undefined) {
    throw new TnblockError(
      "not-found",
      `Cannot read the space of "${settings.dataset}": there is no such dataset on the array`,
      {
        field: "tnb-dataset",
      },
    );
  }
  const { available, used } = dataset;
  return { total: available + used, available, used, active: 1 };
}
