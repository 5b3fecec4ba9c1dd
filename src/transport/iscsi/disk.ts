/**
 * The disk of one LUN: its paths found, each path's identity read live, the map over them set right.
 * A LUN proves nothing: what sysfs says of a path is a copy that outlives the LUN's reuse, so every
 * path that was there before is rescanned before it is believed (design decision 5).
 */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import { deleteDisk, rescanDisk, scanLun } from "../../host/iscsi_admin.ts";
import { usersOf } from "../../host/in_use.ts";
import { multipathTarget, singlePathTarget } from "../../host/links.ts";
import {
  addMap,
  addPath,
  disableQueueing,
  removeMap,
  resizeMap,
  wwidOf,
} from "../../host/multipath.ts";
import { scanBlockDevices } from "../../host/scan/block_devices.ts";
import { diagnoseMissingLun } from "../../host/scan/diagnose.ts";
import { identify } from "../../host/scan/identify.ts";
import { readMultipathMap } from "../../host/scan/maps.ts";
import { findScsiPaths } from "../../host/scan/scsi.ts";
import type { IscsiSession, MultipathMap, ScsiDisk } from "../../host/scan/types.ts";
import { waitUntil } from "../../host/wait_until.ts";
import { DISK_WAIT_MS } from "../connect_all.ts";
import { awaitLink } from "../await_link.ts";
import type { AttachedDisk, DiskIdentity } from "../transport.ts";
import { type IscsiNodeParts, liveSessions } from "./node.ts";

/** The iSCSI kind of an identity. */
export type LunIdentity = Extract<DiskIdentity, { kind: "iscsi" }>;

/** multipathd takes a new path by itself within this time; past it we ask it to. */
const MAP_BY_ITSELF_MS = 1500;

/** Finds the disk, or makes it appear, and verifies it on every path. */
export async function attach(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: number,
  deadline: Deadline,
): Promise<AttachedDisk> {
  const { host } = parts;
  const sessions = await liveSessions(parts);
  await refresh(parts, identity, sessions, deadline);
  await scanMissing(parts, identity, sessions, deadline);
  const limit = deadline.bounds(DISK_WAIT_MS);
  const found = await waitUntil(host, limit, async () => {
    const paths = await findScsiPaths(host.files, lunOf(parts, identity));
    refuseOthers(identity, paths);
    const right = paths.filter((path) => path.node !== undefined && path.sizeBytes === size);
    return right.length > 0 && right.length === paths.length ? right : undefined;
  });
  if (found === undefined) throw await notFound(parts, identity, size, limit.deadlineMs);
  const { link, device } = parts.settings.useMultipath
    ? await useMap(parts, identity, found.value, size, deadline)
    : await useSingle(parts, identity, found.value, deadline);
  return {
    link,
    device,
    size,
    paths: found.value.length,
    attempts: found.attempts,
    ms: Math.round(found.ms),
  };
}

/** The disk when all is as it must be: live identity on every live path, size, map, link. */
export async function attached(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: number,
  deadline: Deadline,
): Promise<AttachedDisk | undefined> {
  const { host, settings } = parts;
  const start = host.monotonicMs();
  const before = await findScsiPaths(host.files, lunOf(parts, identity));
  if (before.length === 0) return undefined;
  const live = await liveSessions(parts);
  const verified = await rescanAll(parts, before, live, deadline);
  const after = (await findScsiPaths(host.files, lunOf(parts, identity)))
    .filter((path) => verified.has(path.name));
  if (after.length < live.length) return undefined;
  if (after.some((path) => path.naa !== identity.naa || path.sizeBytes !== size)) return undefined;
  const link = settings.useMultipath
    ? multipathTarget(identity.naa)
    : singlePathTarget(identity.naa);
  const disk = await identify(host.files, link);
  if (disk?.naa !== identity.naa || disk.sizeBytes !== size) return undefined;
  if (settings.useMultipath && !after.every((path) => disk.slaves.includes(path.name))) {
    return undefined;
  }
  return {
    link,
    device: disk.node,
    size,
    paths: after.length,
    attempts: 1,
    ms: Math.round(host.monotonicMs() - start),
  };
}

/** Who uses the disk here: the map, or a path past the map. */
export async function users(
  parts: IscsiNodeParts,
  identity: LunIdentity,
): Promise<readonly string[]> {
  const { host } = parts;
  const paths = await findScsiPaths(host.files, {
    iqn: parts.settings.targetIqn,
    naa: identity.naa,
  });
  const map = await mapOver(parts, paths, identity);
  const nodes = paths.flatMap((path) => path.node === undefined ? [] : [path.node]);
  const first = map?.node ?? nodes[0];
  return first === undefined ? [] : (await usersOf(host, first, nodes)).by;
}

/** Removes the map, then every path of the volume. */
export async function detach(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  deadline: Deadline,
): Promise<void> {
  const { host } = parts;
  const paths = await findScsiPaths(host.files, {
    iqn: parts.settings.targetIqn,
    naa: identity.naa,
  });
  const map = await mapOver(parts, paths, identity);
  if (map !== undefined) {
    // Commands that wait for a path would hold the map for ever.
    await disableQueueing(host, map, deadline.signal);
    await removeMap(host, map, deadline.signal);
  }
  await Promise.all(paths.map((path) => deleteDisk(host, path, deadline.signal)));
}

function lunOf(parts: IscsiNodeParts, identity: LunIdentity) {
  return { iqn: parts.settings.targetIqn, lun: identity.lun };
}

/** The map of the volume: over its paths, or without any after they all went. */
async function mapOver(
  parts: IscsiNodeParts,
  paths: readonly ScsiDisk[],
  identity: LunIdentity,
): Promise<MultipathMap | undefined> {
  const { files } = parts.host;
  const over = paths.find((path) => path.map !== undefined)?.map;
  const name = over ?? (await identify(files, multipathTarget(identity.naa)))?.name;
  const map = name === undefined ? undefined : await readMultipathMap(files, name);
  return map?.naa === identity.naa ? map : undefined;
}

/**
 * Rescans the paths that are there already, those at this LUN and those that claim to be this
 * volume; what turns out to be another disk is removed, unless somebody uses it.
 */
async function refresh(
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
async function rescanAll(
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
async function scanMissing(
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
function refuseOthers(identity: LunIdentity, paths: readonly ScsiDisk[]): void {
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

async function notFound(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: number,
  waitedMs: number,
): Promise<TnblockError> {
  const what = `LUN ${identity.lun} of "${parts.settings.targetIqn}"`;
  const paths = await findScsiPaths(parts.host.files, lunOf(parts, identity));
  const wrong = paths.find((path) => path.sizeBytes !== size);
  if (wrong !== undefined) {
    return new TnblockError(
      "host-fault",
      `Cannot use ${what}: path ${wrong.name} has ${wrong.sizeBytes} bytes, the volume ${size}`,
    );
  }
  const live = await liveSessions(parts);
  if (live.length === 0) {
    return new TnblockError(
      "unreachable",
      `Cannot find ${what}: no session to the target is logged in`,
      {
        hint: "Look at: iscsiadm -m session",
      },
    );
  }
  return new TnblockError(
    "array-fault",
    `Cannot find ${what}: the array says that it exports it, but it did not appear in ${
      Math.round(waitedMs / 1000)
    } s`,
    {
      hint: diagnoseMissingLun((await scanBlockDevices(parts.host.files)).scsi, {
        ...lunOf(parts, identity),
        naa: identity.naa,
      }),
      steps: [
        "Look at the sessions: iscsiadm -m session; one to each portal should be there",
        "Print what this node sees: tnblock scan",
        "On TrueNAS, look whether the extent is enabled: Shares > Block (iSCSI) Shares Targets > Extents",
        "On TrueNAS, look whether this node may see the target: its groups and initiators",
        "Restart the iSCSI service on TrueNAS when no guest is running on it, and try again",
      ],
    },
  );
}

/** The map over the paths: made by multipathd, by itself or asked; its size and its paths set right. */
async function useMap(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  paths: readonly ScsiDisk[],
  size: number,
  deadline: Deadline,
): Promise<{ link: string; device: string }> {
  const { host } = parts;
  const complete = (ms: number, bytes?: number) =>
    waitUntil(host, deadline.bounds(ms), async () => {
      const map = await mapNow(parts, identity);
      const whole = map?.node !== undefined &&
        paths.every((path) => map.slaves.includes(path.name));
      return whole && (bytes === undefined || map.sizeBytes === bytes) ? map : undefined;
    });
  let map = (await complete(MAP_BY_ITSELF_MS))?.value;
  if (map === undefined) {
    await askForMap(parts, identity, paths, deadline);
    map = (await complete(DISK_WAIT_MS))?.value;
  }
  if (map !== undefined && map.sizeBytes !== size) {
    await resizeMap(host, map, deadline.signal);
    map = (await complete(DISK_WAIT_MS, size))?.value;
  }
  if (map?.node === undefined) {
    const names = paths.map((path) => path.name).join(", ");
    throw new TnblockError(
      "host-fault",
      `Cannot use the paths ${names}: multipathd made no map ${
        wwidOf(identity.naa)
      } of ${size} bytes over all of them`,
      {
        hint:
          "Set find_multipaths no in /etc/multipath.conf, and see that no blacklist entry matches vendor TrueNAS",
      },
    );
  }
  await refuseForeignPaths(parts, identity, map);
  const link = multipathTarget(identity.naa);
  await awaitLink(host, link, map.node, deadline);
  return { link, device: map.node };
}

/** Asks multipathd for what it has not done by itself; what comes of it is seen in sysfs. */
async function askForMap(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  paths: readonly ScsiDisk[],
  deadline: Deadline,
): Promise<void> {
  const { host, log } = parts;
  const map = await mapNow(parts, identity);
  const asked = map === undefined
    ? [addMap(host, identity.naa, deadline.signal)]
    : paths.filter((path) => !map.slaves.includes(path.name)).map((path) =>
      addPath(host, path.name, deadline.signal)
    );
  for (const outcome of await Promise.allSettled(asked)) {
    // It may have done it in the meantime: then it refuses.
    if (outcome.status === "rejected") log.debug(String(outcome.reason.message));
  }
}

async function mapNow(
  parts: IscsiNodeParts,
  identity: LunIdentity,
): Promise<MultipathMap | undefined> {
  const paths = await findScsiPaths(parts.host.files, lunOf(parts, identity));
  return await mapOver(parts, paths, identity);
}

/** A map may hold a path that was re-pointed on the array: then it mixes two volumes. */
async function refuseForeignPaths(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  map: MultipathMap,
): Promise<void> {
  const own = await findScsiPaths(parts.host.files, {
    iqn: parts.settings.targetIqn,
    naa: identity.naa,
  });
  const foreign = map.slaves.filter((slave) => !own.some((path) => path.name === slave));
  if (foreign.length === 0) return;
  throw new TnblockError(
    "volume-replaced",
    `Cannot use the multipath map ${map.mapName}: its path ${foreign.join(", ")} is another disk`,
    {
      hint:
        "Stop what uses the map, remove it with multipathd remove map, and activate the volume again",
    },
  );
}

async function useSingle(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  paths: readonly ScsiDisk[],
  deadline: Deadline,
): Promise<{ link: string; device: string }> {
  const link = singlePathTarget(identity.naa);
  // udev points the link at one of the paths, or at a map when multipathd runs after all.
  const map = paths.find((path) => path.map !== undefined)?.map;
  const nodes = map === undefined ? paths.map((path) => path.node) : [`/dev/${map}`];
  const device = await awaitLink(parts.host, link, nodes, deadline);
  return { link, device };
}
