/**
 * The fresh look that every decision rests on: zvol, export and dataset in one round of reads. A
 * dataset that is away (its pool is not imported) must never look like a volume that is gone.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { ExportLookup } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as datasets from "../truenas/datasets.ts";
import * as zvols from "../truenas/zvols.ts";
import { findHalfRenamed } from "./half_renamed.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** What the array has under a volume's name. */
export interface Look {
  /**
   * Undefined when it is not there, and the dataset is. Its own path is another one when its rename
   * stopped half-way.
   */
  readonly zvol: zvols.Zvol | undefined;
  readonly found: ExportLookup;
}

/**
 * Reads zvol, export and dataset side by side.
 *
 * @throws TnblockError `array-fault` when the dataset itself is away.
 */
export async function look(
  storage: Storage,
  array: Caller,
  zvol: string,
  deadline: Deadline,
): Promise<Look> {
  const { dataset } = storage.settings;
  const path = zvolPath(storage, zvol);
  const [read, found, parent] = await Promise.all([
    zvols.read(array, path, deadline.bounds()),
    storage.transport.lookUp(array, path, deadline),
    datasets.read(array, dataset, deadline.bounds()),
  ]);
  if (read === undefined && parent === undefined) {
    throw new TnblockError(
      "array-fault",
      `Cannot tell whether "${path}" exists: the dataset "${dataset}" is not on the array`,
      { hint: "Look whether its pool is imported: in TrueNAS, Storage" },
    );
  }
  const there = read ?? await findHalfRenamed(storage, array, path, found, deadline);
  return { zvol: there, found };
}
