/**
 * Reading a snapshot: what a snapshot holds is read through a hidden clone of it, which belongs to one
 * node and is exported like any volume. This file knows such clones: their names and marks.
 */
import { createHash } from "node:crypto";
import type { Deadline } from "../common/deadline.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { marks } from "./ownership.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** No guest's volume begins so: no listing and no filter by guest shows it. */
const PREFIX = "tnb-read-";

/** Of what it is a clone, `<path>@<snapshot>` ... */
const READS = "tnblock:reads";
/** ... and for which node. */
const NODE = "tnblock:node";

/** A clone through which a node reads a snapshot. */
export interface Reading {
  /** The node's name in the cluster. */
  readonly node: string;
  /** Full path of the snapshot when the clone was made: `tank/pve/vm-100-disk-0@before`. */
  readonly of: string;
}

/** What a zvol is there to read, and for which node; undefined when it is no such clone. */
export function readingOf(
  zvol: Pick<zvols.Zvol, "name" | "userProperties">,
): Reading | undefined {
  const { [READS]: of, [NODE]: node, "tnblock:volume": path } = zvol.userProperties;
  // With its own path among the marks, inherited ones do not count.
  if (of === undefined || node === undefined || path !== zvol.name) return undefined;
  return lastOf(zvol.name).startsWith(PREFIX) ? { node, of } : undefined;
}

/** The volume's zvol and its snapshot, as they were called when the clone was made: its link's name. */
export function placeOf(
  { of }: Pick<Reading, "of">,
): { readonly zvol: string; readonly snapshot: string } {
  const at = of.indexOf("@");
  return { zvol: lastOf(of.slice(0, at)), snapshot: of.slice(at + 1) };
}

/** The name of this node's clone of a snapshot. */
export function readingName(storage: Storage, zvol: string, snapshot: string): string {
  const text = `${storage.node}\n${zvolPath(storage, zvol)}\n${snapshot}`;
  return PREFIX + createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** The marks of such a clone. */
export function readingMarks(
  storage: Storage,
  zvol: string,
  snapshot: string,
  operation: string,
): Record<string, string> {
  return {
    ...marks(storage, readingName(storage, zvol, snapshot), operation),
    [READS]: `${zvolPath(storage, zvol)}@${snapshot}`,
    [NODE]: storage.node,
  };
}

/** What the Perl plugin calls its clones for the backup of a container: `vzdump-<volume>-<snapshot>-<8 hex>`. */
const LEGACY = /^vzdump-.+-[0-9a-f]{8}$/;

/**
 * Says in words what clones are, for a refusal: of a clone for reading, the node that reads.
 *
 * @param clones full paths.
 */
export async function describeClones(
  array: Caller,
  clones: readonly string[],
  deadline: Deadline,
): Promise<string[]> {
  const hidden = clones.filter((name) => lastOf(name).startsWith(PREFIX));
  const found = hidden.length === 0 ? [] : await zvols.readSome(array, hidden, deadline.bounds());
  return clones.map((name) => {
    const zvol = found.find((one) => one.name === name);
    const reading = zvol === undefined ? undefined : readingOf(zvol);
    if (reading !== undefined) return `node ${reading.node}, which reads it through ${name}`;
    if (LEGACY.test(lastOf(name))) return `clone ${name}, of a backup by the Perl plugin`;
    return `clone ${name}`;
  });
}

function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
