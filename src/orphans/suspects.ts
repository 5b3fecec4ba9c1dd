/** What looks as if nobody needed it: only of that more is read, and the nodes are asked. */
import type { DiskIdentity } from "../transport/transport.ts";
import { isDirectChild } from "../transport/direct_child.ts";
import type { Zvol } from "../truenas/zvols.ts";
import { isOurs } from "../volumes/ownership.ts";
import { isWeight, weightName } from "../volumes/weight.ts";
import { lastOf } from "./reasons.ts";
import type { World } from "./world.ts";

/** On a weight: the IQN of its target. */
const WEIGHT = "tnblock:weight";

/** Without what the nodes tell. */
type Early = Omit<World, "nodes">;

/** Paths of the zvols that may be orphans: of them snapshots are read. What is not ours is none. */
export function suspects(world: Early): string[] {
  return world.array.zvols
    .filter((zvol) => isOurs(world.storage, zvol) && isSuspect(world, zvol))
    .map(({ name }) => name);
}

/** The disks that may be orphans: of them it is asked on every node who uses them. */
export function suspectDisks(world: Early): DiskIdentity[] {
  const { array } = world;
  const paths = new Set(suspects(world));
  const left = leftPaths(world);
  const isMeant = (zvol: string | undefined) =>
    zvol !== undefined && (paths.has(zvol) || left.has(zvol));
  return [
    ...array.extents.filter(({ zvol }) => isMeant(zvol)).map(({ id, naa }) => ({
      kind: "iscsi" as const,
      lun: array.mappings.find(({ extent }) => extent === id)?.lun ?? -1,
      naa,
    })),
    ...array.namespaces.filter(({ zvol }) => isMeant(zvol))
      .map(({ nsid, uuid }) => ({ kind: "nvme-tcp" as const, nsid, uuid })),
  ].filter(({ kind }) => kind === world.storage.settings.transport.kind);
}

/** Paths directly below the dataset that something exports, and at which nothing is. */
export function leftPaths({ array, storage }: Early): ReadonlySet<string> {
  const there = new Set([...array.zvols.map(({ name }) => name), ...array.filesystems]);
  const exported = [...array.extents, ...array.namespaces].flatMap(({ zvol }) => zvol ?? []);
  return new Set(
    exported.filter((path) => isDirectChild(path, storage.settings.dataset) && !there.has(path)),
  );
}

/** What nobody names; a weight that its target has, and a clone for reading that is read, are none. */
export function isSuspect(world: Early, zvol: Zvol): boolean {
  const { storage, array } = world;
  const { transport } = storage.settings;
  if (isWeight(zvol)) {
    const iqn = zvol.userProperties[WEIGHT];
    const isWanted = transport.kind === "iscsi" &&
      lastOf(zvol.name) === weightName(transport.targetIqn);
    // Of a target that is there, or may be: not this storage's to judge.
    return !isWanted && iqn !== undefined && array.targets?.includes(iqn) === false;
  }
  return !world.references.byZvol.has(lastOf(zvol.name));
}
