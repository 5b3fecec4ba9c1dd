/** The exports of an iSCSI storage: one extent a zvol, mapped to a LUN of the storage's one target. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isExists, isInUse, isUnknownOutcome } from "../../truenas/errors.ts";
import * as extents from "../../truenas/extents.ts";
import * as targetExtents from "../../truenas/target_extents.ts";
import { withDeviceNode } from "../device_node.ts";
import { pickLun } from "../numbers.ts";
import { isDirectChild } from "../direct_child.ts";
import { orAbsent } from "../or_absent.ts";
import type { ExportLookup, ExportRow, Groundwork, VolumeExport } from "../transport.ts";
import { extentName } from "./extent_name.ts";
import { type IscsiArrayParts, targetId } from "./survey.ts";

/** How often another name for an extent is tried when one is taken. */
const NAME_TRIES = 3;
/** How often another LUN is tried when somebody else was quicker. */
const LUN_TRIES = 8;

/** Every LUN of the target with the extent behind it. */
export async function listExports(
  parts: IscsiArrayParts,
  array: Caller,
  dataset: string,
  deadline: Deadline,
): Promise<VolumeExport[]> {
  const wait = deadline.bounds();
  const [allExtents, mappings] = await Promise.all([
    extents.all(array, wait),
    targetExtents.all(array, wait),
  ]);
  const ours = new Map(
    allExtents.filter((extent) => extent.zvol !== undefined && isDirectChild(extent.zvol, dataset))
      .map((
        extent,
      ) => [extent.id, extent]),
  );
  const rows = mappings.filter((row) => ours.has(row.extent));
  // All on one target: it is the storage's, every other verb compares it. A third query only when not.
  const parents = new Set(rows.map((row) => row.target));
  const target = parents.size > 1 ? await targetId(parts, array, deadline) : undefined;
  return rows.filter((row) => target === undefined || row.target === target).flatMap((row) => {
    const extent = ours.get(row.extent);
    return extent?.zvol === undefined ? [] : [exportOf(extent.zvol, extent, row)];
  });
}

function exportOf(
  zvol: string,
  extent: extents.Extent,
  row: targetExtents.TargetExtent,
): VolumeExport {
  return {
    zvol,
    identity: { kind: "iscsi", lun: row.lun, naa: extent.naa },
    rows: [{ kind: "mapping", id: row.id }, { kind: "extent", id: extent.id }],
    enabled: extent.enabled,
    sectorSize: extent.blocksize,
  };
}

/** The zvols of the target that are not directly below the dataset. */
export async function listNeighbours(
  parts: IscsiArrayParts,
  array: Caller,
  dataset: string,
  deadline: Deadline,
): Promise<string[]> {
  const wait = deadline.bounds();
  const [target, allExtents, mappings] = await Promise.all([
    targetId(parts, array, deadline),
    extents.all(array, wait),
    targetExtents.all(array, wait),
  ]);
  const mapped = new Set(
    mappings.filter((row) => row.target === target).map((row) => row.extent),
  );
  return allExtents.flatMap(({ id, zvol }) =>
    zvol === undefined || !mapped.has(id) || isDirectChild(zvol, dataset) ? [] : [zvol]
  );
}

/** How one zvol is exported, by whomever. */
export async function lookUp(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  deadline: Deadline,
): Promise<ExportLookup> {
  const [found, target] = await Promise.all([
    extents.byZvol(array, zvol, deadline.bounds()),
    targetId(parts, array, deadline),
  ]);
  const [extent, second] = found;
  if (extent === undefined) return { kind: "none" };
  if (second !== undefined) {
    return {
      kind: "foreign",
      what: `${found.length} extents: ${found.map((one) => one.name).join(", ")}`,
    };
  }
  const mappings = await targetExtents.byExtents(array, [extent.id], deadline.bounds());
  const [row] = mappings;
  if (row === undefined) {
    return isOurExtent(parts, extent)
      ? { kind: "half", rows: [{ kind: "extent", id: extent.id }] }
      : { kind: "foreign", what: `extent ${extent.name}, which is not of this storage` };
  }
  if (mappings.length > 1 || row.target !== target) {
    return { kind: "foreign", what: `extent ${extent.name} on another target` };
  }
  return { kind: "ours", export: exportOf(zvol, extent, row) };
}

/** Extent and mapping: two writes, one reload. */
export async function createExport(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  groundwork: Groundwork,
  isNew: () => Promise<boolean>,
  deadline: Deadline,
): Promise<VolumeExport> {
  // 25.04 accepts a second extent on a zvol without a word; later releases refuse it.
  const checks = array.release.can.zfsResource;
  const before = checks ? undefined : await existingExtent(parts, array, zvol);
  const isDead = before !== undefined && await isNew();
  if (isDead) await removeDeadExtent(parts, array, zvol, before);
  const extent = before !== undefined && !isDead
    ? before
    : await createExtent(parts, array, zvol, groundwork, isNew, deadline);
  deadline.check();
  return await mapExtent(parts, array, zvol, extent, groundwork, deadline);
}

async function createExtent(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  groundwork: Groundwork,
  isNew: () => Promise<boolean>,
  deadline: Deadline,
): Promise<extents.Extent> {
  const create = (attempt: number) =>
    withDeviceNode(parts.host, deadline, zvol, () =>
      extents.create(array, {
        name: extentName(zvol, attempt),
        zvol,
        blocksize: groundwork.sectorSize ?? parts.settings.blockSize,
        comment: commentOf(parts),
      }));
  for (let attempt = 0;; attempt++) {
    try {
      return await create(attempt);
    } catch (error) {
      const isLost = isUnknownOutcome(error);
      if (!isExists(error) && !isInUse(error) && !isLost) throw error;
      const found = await existingExtent(parts, array, zvol);
      if (found !== undefined) {
        if (isLost || !await isNew()) return found;
        await removeDeadExtent(parts, array, zvol, found);
        return await create(attempt);
      }
      // An extent of this name is on another zvol: somebody pointed it there, and it is none of ours to touch.
      if (!isExists(error) || attempt >= NAME_TRIES) throw error;
    }
  }
}

/**
 * Removes the extent that a dead volume of the same name left: its naa is known to nodes that may
 * still have paths, with another content in their caches.
 */
async function removeDeadExtent(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  extent: extents.Extent,
): Promise<void> {
  parts.log.warning(`extent "${extent.name}" named "${zvol}" before it was made; removing it`);
  const mappings = await targetExtents.byExtents(array, [extent.id]);
  await removeExport(array, [
    ...mappings.map(({ id }) => ({ kind: "mapping", id }) as const),
    { kind: "extent", id: extent.id },
  ]);
}

/** The comment on every extent of ours. */
function commentOf(parts: IscsiArrayParts): string {
  return `tnblock ${parts.storage}`;
}

function isOurExtent(parts: IscsiArrayParts, extent: extents.Extent): boolean {
  return extent.comment === commentOf(parts);
}

/** The extent on a zvol, when there is one and it is ours and switched on. */
async function existingExtent(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
): Promise<extents.Extent | undefined> {
  const found = await extents.byZvol(array, zvol);
  const [extent] = found;
  if (extent === undefined) return undefined;
  if (found.length === 1 && extent.enabled && isOurExtent(parts, extent)) return extent;
  const why = found.length > 1
    ? `${found.length} extents are on it`
    : `extent "${extent.name}" is on it already, and is ${
      extent.enabled ? "not of this storage" : "switched off"
    }`;
  throw new TnblockError("not-ours", `Cannot export "${zvol}": ${why}`, {
    hint: "Delete the extent in TrueNAS if nobody needs it; tnblock leaves it alone",
  });
}

/** Gives an extent a LUN of its own on the target. */
export async function mapExtent(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  extent: extents.Extent,
  groundwork: Groundwork,
  deadline: Deadline,
): Promise<VolumeExport> {
  const taken = new Set(groundwork.taken);
  for (let attempt = 1; attempt <= LUN_TRIES; attempt++) {
    const lun = pickLun(taken, (limit) => parts.host.randomInteger(limit));
    const row = await mapOnce(array, groundwork.parent, extent.id, lun);
    // The database lets two clients have one LUN at once: the lower row keeps it.
    if (row !== undefined && await holdsLunAlone(array, row)) return exportOf(zvol, extent, row);
    parts.log.info(`LUN ${lun} was taken at the same moment; picking another`);
    if (row !== undefined) await targetExtents.remove(array, row.id, { force: true });
    taken.add(lun);
    deadline.check();
  }
  throw new TnblockError(
    "busy",
    `Cannot export "${zvol}": ${LUN_TRIES} LUNs in a row were taken by others at the same moment`,
  );
}

async function mapOnce(
  array: Caller,
  target: number,
  extent: number,
  lun: number,
): Promise<targetExtents.TargetExtent | undefined> {
  try {
    return await targetExtents.create(array, { target, extent, lun });
  } catch (error) {
    // "In use": the extent has a mapping. After a lost answer it may have the one asked for.
    if (isInUse(error) || isUnknownOutcome(error)) {
      const [row] = await targetExtents.byExtents(array, [extent]);
      if (row?.target === target) return row;
    } else if (isExists(error)) return undefined;
    throw error;
  }
}

async function holdsLunAlone(array: Caller, row: targetExtents.TargetExtent): Promise<boolean> {
  const rows = await targetExtents.byTarget(array, row.target);
  return rows.every((other) => other.lun !== row.lun || other.id >= row.id);
}

/**
 * Mapping first, then the extent; force, because every node of the cluster has a session to the
 * target, whichever LUNs it uses. The zvol and the target are not touched.
 */
export async function removeExport(array: Caller, rows: readonly ExportRow[]): Promise<void> {
  for (const row of rows) {
    if (row.kind === "mapping") {
      await orAbsent(targetExtents.remove(array, row.id, { force: true }));
    }
    if (row.kind === "extent") await orAbsent(extents.remove(array, row.id, { force: true }));
  }
}
