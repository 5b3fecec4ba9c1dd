/** What speaks for keeping a thing, wherever it is: the nodes, their journals, the array's tasks. */
import { concerns } from "../truenas/replications.ts";
import { lockOf } from "./references.ts";
import type { World } from "./world.ts";

/** What is read, and by which node. */
export interface ReadBy {
  readonly zvol: string;
  readonly snapshot: string;
  readonly node: string;
}

/** What the nodes say of a name and its disks, guests of the disks, and the lock of the guest that the name belongs to. */
export function atNodes(
  { nodes, storage, references }: World,
  name: string,
  disks: readonly string[],
  reading?: ReadBy,
): string[] {
  const reasons: string[] = [];
  for (const { name: node, told } of nodes) {
    if (typeof told === "string") continue;
    const read = reading?.node === node ? `${reading.zvol}@${reading.snapshot}` : undefined;
    const isAttached = told.attached.some((held) =>
      held.name === name || held.name === read || held.name.startsWith(`${name}@`) ||
      held.disk !== null && disks.includes(held.disk)
    );
    if (isAttached) reasons.push(`it is attached on node ${node}`);
    for (const disk of disks) {
      const users = told.users[disk];
      if (users !== undefined) reasons.push(`it is used on node ${node} by ${list(users)}`);
    }
    const open = told.journal.find((entry) =>
      entry.storage === storage.settings.id && entry.names.includes(name)
    );
    if (open !== undefined) {
      reasons.push(`node ${node} has an operation on it that has not ended: ${open.op}`);
    }
  }
  const named = disks.flatMap((disk) => references.byDisk.get(disk) ?? []);
  if (named.length > 0) reasons.push(`its disk is named by ${list(named)}`);
  const lock = lockOf(references, name);
  if (lock !== undefined) reasons.push(`the guest that it is called after is locked (${lock})`);
  return reasons;
}

/** Replication tasks that send it, or receive into it. */
export function replicated({ array }: World, path: string): string[] {
  if (typeof array.replications === "string") {
    return [`whether it is replicated is not known: ${array.replications}`];
  }
  const tasks = array.replications.filter((task) => concerns(task, path));
  return tasks.map(({ name }) => `the replication "${name}" refers to it`);
}

/** So many are named. */
const MOST = 3;

/** The first of several. */
export function list(names: readonly string[]): string {
  const more = names.length > MOST ? ` and ${names.length - MOST} more` : "";
  return `${names.slice(0, MOST).join(", ")}${more}`;
}

/** The last component of a path. */
export function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
