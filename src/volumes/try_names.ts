/** Making something under the first free name, while others may take names at the same moment. */
import { doomedNames } from "./doomed_names.ts";
import { freeName } from "./free_name.ts";
import { NameTaken } from "./make_exported.ts";
import { type Storage, zvolPath } from "./storage.ts";

/**
 * Calls `make` with the first free name `<prefix>0` ... `<prefix>999`, and with the next when it throws
 * {@link NameTaken}: as often as there are names and time, for any number of others may be at it.
 *
 * @param taken full paths.
 */
export async function tryNames<T>(
  storage: Storage,
  prefix: string,
  taken: ReadonlySet<string>,
  make: (zvol: string) => Promise<T>,
): Promise<T> {
  const doomed = [...await doomedNames(storage)].map((name) => zvolPath(storage, name));
  const names = new Set([...taken, ...doomed]);
  for (;;) {
    const zvol = freeName(prefix, (name) => names.has(zvolPath(storage, name)));
    try {
      return await make(zvol);
    } catch (error) {
      // Another node or cluster was quicker.
      if (!(error instanceof NameTaken) || storage.deadline.leftMs() === 0) {
        return asArrayTold(error);
      }
      names.add(zvolPath(storage, zvol));
    }
  }
}

/** Throws the error; for {@link NameTaken} the array's own. */
export function asArrayTold(error: unknown): never {
  throw error instanceof NameTaken ? error.cause : error;
}
