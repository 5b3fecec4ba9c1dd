/** `replication`: the tasks of the administrator, which nothing here runs. */

import { query } from "../filters.ts";
import type { MethodModel } from "../models/tables.ts";
import { object } from "./service.ts";
import type { Methods } from "./service.ts";

/** Not among the models that are here; a query as every service with rows has it. */
export const REPLICATION_QUERY: MethodModel = {
  method: "replication.query",
  params: [{ type: "array" }, { type: "object" }],
  names: ["filters", "options"],
  min: 0,
  granted: [
    ...["REPLICATION_TASK_READ", "REPLICATION_TASK_WRITE", "REPLICATION_ADMIN"],
    "READONLY_ADMIN",
  ],
};

export const replications: Methods = {
  "replication.query": (call, [filters, options]) =>
    query(call.sim.world.replications, filters ?? [], object(options)),
};
