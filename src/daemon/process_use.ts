/** What this process uses of its machine. */
import process from "node:process";
import type { ProcessUse } from "./state_source.ts";

/** Asked of the runtime: the numbers are of this process, whatever folder is taken for the node. */
export function processUse(): ProcessUse {
  const { user, system } = process.cpuUsage();
  return {
    pid: process.pid,
    residentBytes: process.memoryUsage().rss,
    cpuSeconds: (user + system) / 1_000_000,
  };
}
