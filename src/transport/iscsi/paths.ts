/**
 * The paths of one LUN, each believed only after it was rescanned: what sysfs says of a path is a copy
 * that outlives the LUN's reuse (design decision 5).
 */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import { usersOf } from "../../host/in_use.ts";
import { deleteDisk, rescanDisk, scanLun } from "../../host/iscsi_admin.ts";
import { disableQueueing, removeMap } from "../../host/multipath.ts";
import { readMultipathMap } from "../../host/scan/maps.ts";
import { findScsiPaths, type ScsiWanted } from "../../host/scan/scsi.ts";
import type { IscsiSession, MultipathMap, ScsiDisk } from "../../host/scan/types.ts";
import type { DiskIdentity } from "../transport.ts";
import type { IscsiNodeParts } from "./node.ts";

/** The iSCSI kind of an identity. */
export type LunIdentity = Extract<DiskIdentity, { kind: "iscsi" }>;

/** Where the disk is looked for: at its LUN, whatever is there. */
export function lunOf(parts: IscsiNodeParts, identity: LunIdentity): ScsiWanted {
  return { iqn: parts.settings.targetIqn, lun: identity.lun };
}

/**
 * Rescans the paths that are there already, those at this LUN and those that claim to be this
 * volume; what turns out to be another disk is removed, unless somebody uses it.
 */
export async function refresh(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<void> {
  const { host, settings } = parts;
  const find = async () => {
    const [atLun, claiming] = await Promise.all([
      findScsiPaths(host.files, lunOf(parts, identity)),
      findScsiPaths(host.files, { iqn: settings.targetIqn, naa: identity.naa }),
    ]);
    return [...atLun, ...claiming.filter((path) => path.lun !== identity.lun)];
  };
  const before = await find();
  if (before.length === 0) return;
  await rescanAll(parts, before, sessions, deadline);
  for (const path of await find()) {
    const map = path.map === undefined ? undefined : await readMultipathMap(host.files, path.map);
    const isRight = path.lun === identity.lun && path.naa === identity.naa && path.sizeBytes > 0 &&
      (map === undefined || map.naa === identity.naa);
    if (!isRight) await dropPath(parts, identity, path, map, deadline);
  }
}

/** Rescans paths of live sessions; the names of those that answered. A dead path is no reason to fail. */
export async function rescanAll(
  parts: IscsiNodeParts,
  paths: readonly ScsiDisk[],
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<Set<string>> {
  const fresh = new Set<string>();
  await Promise.all(paths.map(async (path) => {
    const session = sessions.find((one) => one.name === path.session);
    if (session === undefined) return;
    try {
      if (await rescanDisk(parts.host, session, path, deadline.signal)) fresh.add(path.name);
    } catch (error) {
      if (!(error instanceof TnblockError)) throw error;
      parts.log.warning(`path ${path.name} is left out: ${error.message}`);
    }
  }));
  return fresh;
}

/**
 * Removes a path that leads to another disk than its LUN should, or that hangs below a map of another
 * disk; never one that is in use.
 */
async function dropPath(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  path: ScsiDisk,
  map: MultipathMap | undefined,
  deadline: Deadline,
): Promise<void> {
  const { host, log } = parts;
  const what = path.sizeBytes === 0 ? "nothing" : `disk ${path.naa ?? "unknown"}`;
  const where = `path ${path.name} at LUN ${path.lun} leads to ${what}` +
    (map === undefined ? "" : ` below the map of ${map.naa ?? "unknown"}`);
  const node = map?.node ?? path.node;
  const users = node === undefined
    ? []
    : (await usersOf(host, node, path.node === undefined ? [] : [path.node])).by;
  if (users.length > 0) {
    throw new TnblockError(
      "volume-replaced",
      `Cannot attach disk ${identity.naa} at LUN ${identity.lun}: ${where}, and is used by ${
        users.join(", ")
      }`,
      {
        hint:
          "The LUNs of the target were changed under a running guest: stop it, and set the LUNs right on the array",
      },
    );
  }
  log.warning(`removing what an earlier disk left: ${where}`);
  // A map whose path is another disk by now reads that disk under the old name.
  if (map !== undefined && map.naa !== path.naa) {
    await disableQueueing(host, map, deadline.signal);
    await removeMap(host, map, deadline.signal);
  }
  await deleteDisk(host, path, deadline.signal);
}

/** Lets every live session that has no path yet look for the LUN. */
export async function scanMissing(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<void> {
  const paths = await findScsiPaths(parts.host.files, lunOf(parts, identity));
  const missing = sessions.filter((session) =>
    !paths.some((path) => path.session === session.name)
  );
  const outcomes = await Promise.allSettled(
    missing.map((session) => scanLun(parts.host, session, identity.lun, deadline.signal)),
  );
  for (const outcome of outcomes) {
    if (outcome.status !== "rejected") continue;
    const { reason } = outcome;
    if (!(reason instanceof TnblockError)) throw reason;
    parts.log.warning(`one path is missing: ${reason.message}`);
  }
}

/** After scan and rescan a path is what it says: another disk at this LUN is refused, not used. */
export function refuseOthers(identity: LunIdentity, paths: readonly ScsiDisk[]): void {
  const other = paths.find((path) => path.naa !== undefined && path.naa !== identity.naa);
  if (other === undefined) return;
  throw new TnblockError(
    "volume-replaced",
    `Cannot attach LUN ${identity.lun}: disk ${other.naa} answers there, not ${identity.naa}`,
    {
      hint:
        "Compare the target's LUNs on TrueNAS with tnblock scan; another disk was mapped to this number",
    },
  );
}
