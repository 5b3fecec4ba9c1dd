/** Pools: whether the one that holds a dataset is well. Space is asked of the dataset, not of the pool. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read as readRows, rows } from "./request.ts";

/** A pool's state. */
export interface Pool {
  readonly name: string;
  /** zpool's word: `ONLINE`, `DEGRADED`, `FAULTED`, `OFFLINE`, `SUSPENDED` ... */
  readonly status: string;
  readonly healthy: boolean;
}

const poolRow = v.object({ name: v.string(), status: v.string(), healthy: v.boolean() });

/** The state of a pool, or undefined when there is none of that name (or it is not imported). */
export async function read(caller: Caller, name: string, wait?: Wait): Promise<Pool | undefined> {
  const found = await readRows(
    caller,
    {
      method: "pool.query",
      params: [[["name", "=", name]], { select: ["name", "status", "healthy"] }],
      doing: `Cannot read the state of pool "${name}"`,
    },
    rows(poolRow),
    wait,
  );
  return found[0];
}
