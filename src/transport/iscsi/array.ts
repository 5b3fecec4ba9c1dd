/** The array half of iSCSI: one extent a zvol, mapped to a LUN of the storage's one target. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import { canonicalAddress, formatPortal } from "../../common/portal.ts";
import type { IscsiSettings } from "../../common/storage_settings.ts";
import type { Host } from "../../host/host.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isExists, isInUse, isNotFound, isUnknownOutcome } from "../../truenas/errors.ts";
import * as extents from "../../truenas/extents.ts";
import * as iscsiGlobal from "../../truenas/iscsi_global.ts";
import * as portals from "../../truenas/portals.ts";
import * as services from "../../truenas/services.ts";
import * as targetExtents from "../../truenas/target_extents.ts";
import * as targets from "../../truenas/targets.ts";
import { withDeviceNode } from "../device_node.ts";
import { extentName } from "./extent_name.ts";
import { pickLun } from "../numbers.ts";
import type { ExportLookup, Groundwork, VolumeExport } from "../transport.ts";

/** What the array half needs of its storage. */
export interface IscsiArrayParts {
  readonly settings: IscsiSettings;
  readonly storage: string;
  readonly host: Host;
  readonly log: Log;
}

/** How often another LUN is tried when somebody else was quicker. */
const LUN_TRIES = 8;

/** Target, LUNs and portals, in one round of parallel reads. */
export async function survey(
  parts: IscsiArrayParts,
  array: Caller,
  deadline: Deadline,
): Promise<Groundwork> {
  const wait = deadline.bounds();
  const [running, config, allTargets, allPortals, mappings] = await Promise.all([
    services.isRunning(array, "iscsitarget", wait),
    iscsiGlobal.read(array, wait),
    targets.all(array, wait),
    portals.all(array, wait),
    targetExtents.all(array, wait),
  ]);
  if (!running) {
    throw new TnblockError(
      "config",
      "Cannot use the array for iSCSI: its iSCSI service is not running",
      {
        hint: "Start it in TrueNAS: System > Services > iSCSI, and let it start automatically",
      },
    );
  }
  const { targetIqn } = parts.settings;
  const target = allTargets.find((one) => targets.iqnOf(one.name, config.basename) === targetIqn);
  if (target === undefined) {
    throw missingTarget(
      targetIqn,
      allTargets.map((one) => targets.iqnOf(one.name, config.basename)),
    );
  }
  const offered = allPortals
    .filter((portal) => target.groups.some((group) => group.portal === portal.id))
    .flatMap((portal) => portal.addresses);
  return {
    parent: target.id,
    taken: new Set(mappings.filter((row) => row.target === target.id).map((row) => row.lun)),
    warnings: checkPortals(parts.settings, offered, config.port),
  };
}

function missingTarget(iqn: string, there: readonly string[]): TnblockError {
  const list = there.length === 0 ? "there is none" : `there are ${there.join(", ")}`;
  return new TnblockError("config", `Cannot find the iSCSI target "${iqn}" on the array: ${list}`, {
    field: "tnb-target-iqn",
    hint:
      "Make it in TrueNAS (Shares > Block (iSCSI) Shares Targets > Wizard or Targets > Add, with the portals of this storage), or run tnblock setup",
  });
}

const EVERY_ADDRESS = ["0.0.0.0", "::"];

/** Portals that are configured here but not offered there: none left is an error, some is a warning. */
function checkPortals(settings: IscsiSettings, offered: readonly string[], port: number): string[] {
  const known = offered.map(canonicalAddress);
  const wildcard = offered.some((address) => EVERY_ADDRESS.includes(address));
  const missing = settings.portals.filter((portal) =>
    portal.port !== port || (!wildcard && !known.includes(canonicalAddress(portal.address)))
  );
  if (missing.length === 0) return [];
  const names = missing.map(formatPortal).join(", ");
  const there = offered.map((address) => formatPortal({ address, port })).join(", ") || "no portal";
  const text = `target "${settings.targetIqn}" is not offered at ${names}, but at ${there}`;
  if (missing.length === settings.portals.length) {
    throw new TnblockError("config", `Cannot reach the volumes: ${text}`, {
      field: "tnb-portals",
      hint:
        "Add the portals to the target's groups in TrueNAS, or correct tnb-discovery-portal and tnb-portals",
    });
  }
  return [text];
}

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
    allExtents.filter((extent) => isChild(extent.zvol, dataset)).map((
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

async function targetId(
  parts: IscsiArrayParts,
  array: Caller,
  deadline: Deadline,
): Promise<number> {
  const wait = deadline.bounds();
  const [config, all] = await Promise.all([
    iscsiGlobal.read(array, wait),
    targets.all(array, wait),
  ]);
  const iqn = parts.settings.targetIqn;
  const target = all.find((one) => targets.iqnOf(one.name, config.basename) === iqn);
  if (target === undefined) {
    throw missingTarget(iqn, all.map((one) => targets.iqnOf(one.name, config.basename)));
  }
  return target.id;
}

function isChild(zvol: string | undefined, dataset: string): boolean {
  return zvol !== undefined && zvol.startsWith(`${dataset}/`) &&
    !zvol.slice(dataset.length + 1).includes("/");
}

function exportOf(
  zvol: string,
  extent: extents.Extent,
  row: targetExtents.TargetExtent,
): VolumeExport {
  return {
    zvol,
    identity: { kind: "iscsi", lun: row.lun, naa: extent.naa },
    rows: [extent.id, row.id],
    enabled: extent.enabled,
  };
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
  if (row === undefined) return { kind: "half", rows: [extent.id] };
  if (mappings.length > 1 || row.target !== target) {
    return { kind: "foreign", what: `extent ${extent.name} on another target` };
  }
  return { kind: "ours", export: exportOf(zvol, extent, row) };
}

/**
 * Extent and mapping: two writes, one reload. What is there already for this zvol (left by somebody
 * who was interrupted) is used, not made twice.
 */
export async function createExport(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  groundwork: Groundwork,
  deadline: Deadline,
): Promise<VolumeExport> {
  // 25.04 accepts a second extent on a zvol without a word; later releases refuse it.
  const checks = array.release.can.zfsResource;
  const before = checks ? undefined : await existingExtent(array, zvol);
  const extent = before ?? await createExtent(parts, array, zvol, deadline);
  deadline.check();
  return await mapExtent(parts, array, zvol, extent, groundwork, deadline);
}

async function createExtent(
  parts: IscsiArrayParts,
  array: Caller,
  zvol: string,
  deadline: Deadline,
): Promise<extents.Extent> {
  try {
    return await withDeviceNode(parts.host, deadline, zvol, () =>
      extents.create(array, {
        name: extentName(zvol),
        zvol,
        blocksize: parts.settings.blockSize,
        comment: `${COMMENT} ${parts.storage}`,
      }));
  } catch (error) {
    if (!isExists(error) && !isInUse(error) && !isUnknownOutcome(error)) throw error;
    const found = await existingExtent(array, zvol);
    if (found === undefined) throw error;
    return found;
  }
}

/** Beginning of the comment on every extent of ours. */
const COMMENT = "tnblock";

/** The extent on a zvol, when there is one and it is ours and switched on. */
async function existingExtent(array: Caller, zvol: string): Promise<extents.Extent | undefined> {
  const found = await extents.byZvol(array, zvol);
  const [extent] = found;
  if (extent === undefined) return undefined;
  if (found.length > 1 || !extent.enabled || !extent.comment.startsWith(COMMENT)) {
    throw foreignExtent(zvol, extent);
  }
  return extent;
}

function foreignExtent(zvol: string, extent: extents.Extent): TnblockError {
  return new TnblockError(
    "not-ours",
    `Cannot export "${zvol}": extent "${extent.name}" is on it already, and is not one of tnblock`,
    {
      hint: "Delete the extent in TrueNAS if nobody needs it; tnblock leaves it alone",
    },
  );
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
export async function removeExport(array: Caller, rows: readonly number[]): Promise<void> {
  const [extent, mapping] = rows;
  if (mapping !== undefined) await gone(targetExtents.remove(array, mapping, { force: true }));
  if (extent !== undefined) await gone(extents.remove(array, extent, { force: true }));
}

/** A row that is not there any more is what was wanted. */
async function gone(removal: Promise<void>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}
