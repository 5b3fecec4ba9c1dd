/** Why nothing at all can be called an orphan at this moment. */
import { concerns } from "../truenas/replications.ts";
import { MOST_SKEW_MS, type World } from "./world.ts";

/** Why nothing can be called an orphan at this moment. */
export function blocks({ array, nodeNowMs, isQuorate, nodes, references }: World): string[] {
  const found: string[] = [];
  if (array.refusal !== undefined) found.push(array.refusal);
  if (array.nowMs === undefined) found.push("the array does not tell its time, so no age is known");
  else if (Math.abs(array.nowMs - nodeNowMs) > MOST_SKEW_MS) {
    found.push("the clocks of the array and of this node differ by more than an hour");
  }
  if (array.parent === undefined) found.push("the storage's target or subsystem is not there");
  if (!isQuorate) found.push("the cluster has no quorum");
  if (nodes.length === 0) found.push("it is not known which nodes the cluster has");
  for (const { name, told } of nodes) {
    if (typeof told === "string") {
      found.push(`node ${name} could not be asked: ${told}`);
      continue;
    }
    for (const { type, id } of told.tasks) {
      found.push(`a task runs on node ${name}: ${type}${id === "" ? "" : ` ${id}`}`);
    }
    if (told.unreadJournal.length > 0) {
      found.push(`the journal of node ${name} cannot be read: ${told.unreadJournal[0]}`);
    }
  }
  found.push(...strangers(array.connected, nodes));
  if (references.unread.length > 0) {
    found.push(`configuration of guests cannot be read: ${references.unread[0]}`);
  }
  if (typeof array.replications !== "string") {
    for (const task of array.replications) {
      if (task.isRunning && isNear(task, array)) {
        found.push(`the replication "${task.name}" runs on the array`);
      }
    }
  }
  return found;
}

/** Hosts that are none of the cluster's nodes: what they use nobody can tell. One that left the cluster may run on. */
function strangers(
  connected: World["array"]["connected"],
  nodes: World["nodes"],
): string[] {
  if (typeof connected === "string") return [connected];
  const known = nodes.flatMap(({ told }) => typeof told === "string" ? [] : told.names)
    .map((name) => name.toLowerCase());
  // A node that did not answer is told of already, and may be the one.
  if (nodes.some(({ told }) => typeof told === "string")) return [];
  return connected.filter((name) => !known.includes(name.toLowerCase()))
    .map((name) => `"${name}" is connected to the array, and is none of the cluster's nodes`);
}

/** Whether a task has to do with anything of the dataset. */
function isNear(task: Parameters<typeof concerns>[0], { zvols }: World["array"]): boolean {
  return zvols.some(({ name }) => concerns(task, name));
}
