/**
 * What a failed operation of the node becomes for a user. Every function of this folder that others
 * call lets no {@link HostError} out: whoever prints it would take it for a defect of tnblock.
 */
import { TnblockError } from "../common/error.ts";
import { HostError, LockError } from "./host.ts";

/**
 * Does something on the node.
 *
 * @param doing what is being done, as in the message of a `TnblockError`: `Cannot <do what> "<thing>"`.
 * @throws TnblockError `busy` for a lock that was not to be had in time, `timeout`, else `host-fault`.
 *   What was not the node's failure (the reason of an abort) is thrown as it is.
 */
export async function attempt<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof HostError ? hostFailure(doing, error) : error;
  }
}

/** The failure in tnblock's words, see {@link attempt}. */
export function hostFailure(doing: string, error: HostError): TnblockError {
  const code = error instanceof LockError
    ? "busy"
    : error.code === "ETIMEDOUT"
    ? "timeout"
    : "host-fault";
  return new TnblockError(code, `${doing}: ${error.message}`, { cause: error });
}
