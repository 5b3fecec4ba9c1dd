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

/** Sessions by whether they answered: a session is LOGGED_IN for a while after its path died. */
export interface Hearing {
  /** Sessions that carry commands, as far as anybody has asked them. */
  readonly answering: readonly IscsiSession[];
  /** Names of the paths that were rescanned just now: what sysfs says of them is true. */
  readonly verified: ReadonlySet<string>;
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
): Promise<Hearing> {
  const { host, settings } = parts;
  const find = async () => {
    const [atLun, claiming] = await Promise.all([
      findScsiPaths(host.files, lunOf(parts, identity)),
      findScsiPaths(host.files, { iqn: settings.targetIqn, naa: identity.naa }),
    ]);
    return [...atLun, ...claiming.filter((path) => path.lun !== identity.lun)];
  };
  const before = await find();
  const hearing = await rescanAll(parts, before, sessions, deadline);
  for (const { name } of before) {
    // Each is looked at again: dropping the one before may have taken it along.
    const path = (await find()).find((one) => one.name === name);
    if (path === undefined) continue;
    const map = path.map === undefined ? undefined : await readMultipathMap(host.files, path.map);
    const isRight = path.lun === identity.lun && path.naa === identity.naa && path.sizeBytes > 0 &&
      (map === undefined || map.naa === identity.naa);
    if (!isRight) await dropPath(parts, identity, path, map, deadline);
  }
  return hearing;
}

/** Rescans paths of these sessions. A path that does not answer is no reason to fail. */
export async function rescanAll(
  parts: IscsiNodeParts,
  paths: readonly ScsiDisk[],
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<Hearing> {
  const verified = new Set<string>();
  const deaf = new Set<string>();
  await Promise.all(paths.map(async (path) => {
    const session = sessions.find((one) => one.name === path.session);
    if (session === undefined) return;
    try {
      if (await rescanDisk(parts.host, session, path, deadline.signal)) verified.add(path.name);
    } catch (error) {
      if (!(error instanceof TnblockError)) throw error;
      deaf.add(session.name);
      parts.log.warning(`path ${path.name} is left out: ${error.message}`);
    }
  }));
  return { answering: sessions.filter((session) => !deaf.has(session.name)), verified };
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
  const { host, log, settings } = parts;
  // multipathd goes on to know a path by the disk that it was: with a wrong map all its paths go.
  const isWrongMap = map !== undefined && map.naa !== path.naa;
  const together = isWrongMap
    ? (await findScsiPaths(host.files, { iqn: settings.targetIqn }))
      .filter((one) => map.slaves.includes(one.name))
    : [path];
  const what = path.sizeBytes === 0 ? "nothing" : `disk ${path.naa ?? "unknown"}`;
  const where = `path ${path.name} at LUN ${path.lun} leads to ${what}` +
    (map === undefined ? "" : ` below the map of ${map.naa ?? "unknown"}`);
  const nodes = together.flatMap((one) => one.node === undefined ? [] : [one.node]);
  const node = map?.node ?? nodes[0];
  const users = node === undefined ? [] : (await usersOf(host, node, nodes)).by;
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
  if (isWrongMap) {
    await disableQueueing(host, map, deadline.signal);
    await removeMap(host, map, deadline.signal);
  }
  for (const one of together) await deleteDisk(host, one, deadline.signal);
}

/** Lets every session that has no path yet look for the LUN; those that did, or had one, are returned. */
export async function scanMissing(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<readonly IscsiSession[]> {
  const paths = await findScsiPaths(parts.host.files, lunOf(parts, identity));
  const deaf = new Set<string>();
  await Promise.all(sessions.map(async (session) => {
    if (paths.some((path) => path.session === session.name)) return;
    try {
      await scanLun(parts.host, session, identity.lun, deadline.signal);
    } catch (error) {
      if (!(error instanceof TnblockError)) throw error;
      deaf.add(session.name);
      parts.log.warning(`one path is missing: ${error.message}`);
    }
  }));
  return sessions.filter((session) => !deaf.has(session.name));
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
