/** Rows of the array whose zvol or extent is gone. */
import type { Extent } from "../truenas/extents.ts";
import type { Namespace } from "../truenas/namespaces.ts";
import type { TargetExtent } from "../truenas/target_extents.ts";
import type { Candidate, Orphan } from "./orphan.ts";
import { atNodes, lastOf, list, replicated } from "./reasons.ts";
import { leftPaths } from "./suspects.ts";
import type { World } from "./world.ts";

/** All that are in the storage's target or subsystem, or name a path below its dataset. */
export function leftRows(world: World): Candidate[] {
  const { array, storage } = world;
  const left = leftPaths(world);
  if (storage.settings.transport.kind === "nvme-tcp") {
    return array.namespaces
      .filter(({ subsystem, zvol }) =>
        subsystem === array.parent && zvol !== undefined && left.has(zvol)
      )
      .map((row) => ofNamespace(world, row));
  }
  const extentIds = new Set(array.extents.map(({ id }) => id));
  const mappings = array.mappings.filter(({ target, extent }) =>
    target === array.parent && !extentIds.has(extent)
  );
  const extents = array.extents.filter(({ zvol }) => zvol !== undefined && left.has(zvol));
  return [...mappings.map(ofMapping), ...extents.map((row) => ofExtent(world, row))];
}

function ofMapping({ id, lun }: TargetExtent): Candidate {
  return {
    orphan: {
      kind: "mapping",
      name: `mapping ${id} (LUN ${lun})`,
      why: "its extent is gone",
      rows: [{ kind: "mapping", id }],
      ...ROW,
    },
    reasons: [],
  };
}

const ROW = {
  size: undefined,
  used: undefined,
  createdMs: undefined,
  snapshots: [],
  zvol: undefined,
} as const;

function ofExtent(world: World, extent: Extent): Candidate {
  const { array, storage } = world;
  const path = extent.zvol ?? "";
  const mappings = array.mappings.filter((row) => row.extent === extent.id);
  const orphan: Orphan = {
    kind: "extent",
    name: path,
    why: "its zvol is gone",
    rows: [
      ...mappings.map(({ id }) => ({ kind: "mapping" as const, id })),
      { kind: "extent", id: extent.id },
    ],
    ...ROW,
  };
  const reasons: string[] = [];
  if (extent.comment !== `tnblock ${storage.settings.id}`) {
    return { orphan, reasons: [`extent "${extent.name}" is not marked as one of this storage`] };
  }
  if (array.extents.some(({ id, zvol }) => zvol === path && id !== extent.id)) {
    reasons.push("several extents are on that path");
  }
  if (mappings.some(({ target }) => target !== array.parent)) {
    reasons.push("it is mapped to another target");
  }
  if (mappings.length > 1) reasons.push("it is mapped several times");
  if (!extent.enabled) reasons.push("an administrator has switched it off");
  return { orphan, reasons: [...reasons, ...ofRows(world, path, extent.naa)] };
}

function ofNamespace(world: World, row: Namespace): Candidate {
  const path = row.zvol ?? "";
  const orphan: Orphan = {
    kind: "namespace",
    name: path,
    why: "its zvol is gone",
    rows: [{ kind: "namespace", id: row.id }],
    ...ROW,
  };
  const reasons = ofRows(world, path, row.uuid);
  if (!row.enabled) reasons.unshift("an administrator has switched it off");
  return { orphan, reasons };
}

/** What speaks for rows whose zvol is gone: of them the array tells no age, and what is being made has its zvol first. */
function ofRows(world: World, path: string, disk: string): string[] {
  const { array, references } = world;
  const name = lastOf(path);
  const reasons: string[] = [];
  const renamed = array.zvols.find(({ userProperties: has }) =>
    has["tnblock:volume"] === path || has["tnblock:rename-to"] === path
  );
  if (renamed !== undefined) reasons.push(`its zvol may be "${renamed.name}", which was renamed`);
  const named = references.byZvol.get(name);
  if (named !== undefined) reasons.push(`named by ${list(named)}`);
  return [...reasons, ...atNodes(world, name, [disk]), ...replicated(world, path)];
}
