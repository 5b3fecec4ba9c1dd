/** Replication tasks, which are the administrator's: read only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** A task. */
export interface Replication {
  readonly id: number;
  readonly name: string;
  /** Datasets of this array that it sends. */
  readonly sends: readonly string[];
  /** Dataset of this array that it receives into; undefined for one that only sends. */
  readonly receives: string | undefined;
  /** Whether what is below the datasets goes with them. */
  readonly recursive: boolean;
  /** Datasets that are left out, with all below them. */
  readonly exclude: readonly string[];
  readonly isRunning: boolean;
}

const taskRow = v.object({
  id: v.number(),
  name: v.string(),
  direction: v.string(),
  transport: v.string(),
  source_datasets: v.array(v.string()),
  target_dataset: v.string(),
  recursive: v.boolean(),
  exclude: v.optional(v.array(v.string()), []),
  state: v.nullish(v.looseObject({ state: v.optional(v.string()) })),
});

/** Keys and passphrases are left where they are. */
const FIELDS = Object.keys(taskRow.entries);

/**
 * Every task (`middlewared/api/v25_10_0/replication.py`). With the transport `LOCAL` both ends are on this array.
 *
 * @throws ArrayError `denied` without the role REPLICATION_TASK_READ.
 */
export async function all(caller: Caller, wait?: Wait): Promise<Replication[]> {
  const found = await read(
    caller,
    {
      method: "replication.query",
      params: [[], { select: FIELDS }],
      doing: "Cannot list the replication tasks",
    },
    rows(taskRow),
    wait,
  );
  return found.map((row) => ({
    id: row.id,
    name: row.name,
    sends: row.direction === "PUSH" || row.transport === "LOCAL" ? row.source_datasets : [],
    receives: row.direction === "PULL" || row.transport === "LOCAL"
      ? row.target_dataset
      : undefined,
    recursive: row.recursive,
    exclude: row.exclude,
    isRunning: row.state?.state === "RUNNING",
  }));
}

/** Whether a task sends a dataset, or receives into it or above it; a disabled task too. */
export function concerns(task: Replication, dataset: string): boolean {
  const isIn = (one: string) => dataset === one || dataset.startsWith(`${one}/`);
  if (task.receives !== undefined && isIn(task.receives)) return true;
  if (task.exclude.some(isIn)) return false;
  return task.sends.some((one) => dataset === one || task.recursive && isIn(one));
}
