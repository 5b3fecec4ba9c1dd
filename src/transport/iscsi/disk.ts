/** The disk of one LUN on this node: attached, verified, used by whom, let go. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import { usersOf } from "../../host/in_use.ts";
import { deleteDisk } from "../../host/iscsi_admin.ts";
import { multipathTarget, singlePathTarget } from "../../host/links.ts";
import { disableQueueing, removeMap } from "../../host/multipath.ts";
import { scanBlockDevices } from "../../host/scan/block_devices.ts";
import { diagnoseMissingLun } from "../../host/scan/diagnose.ts";
import { identify } from "../../host/scan/identify.ts";
import { findScsiPaths } from "../../host/scan/scsi.ts";
import type { MultipathMap, ScsiDisk } from "../../host/scan/types.ts";
import { waitUntil } from "../../host/wait_until.ts";
import { awaitLink } from "../await_link.ts";
import { DISK_WAIT_MS } from "../connect_all.ts";
import type { AttachedDisk } from "../transport.ts";
import { mapOver, useMap } from "./map.ts";
import { type IscsiNodeParts, liveSessions } from "./node.ts";
import { type LunIdentity, lunOf, refresh, refuseOthers, rescanAll, scanMissing } from "./paths.ts";

/** Finds the disk, or makes it appear, and verifies it on every path. */
export async function attach(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: number,
  deadline: Deadline,
): Promise<AttachedDisk> {
  const { host } = parts;
  const { answering } = await refresh(parts, identity, await liveSessions(parts), deadline);
  const carrying = await scanMissing(parts, identity, answering, deadline);
  const limit = deadline.bounds(DISK_WAIT_MS);
  const found = await waitUntil(host, limit, async () => {
    // A path of a session that does not answer says nothing, right or wrong.
    const paths = (await findScsiPaths(host.files, lunOf(parts, identity)))
      .filter((path) => carrying.some((session) => session.name === path.session));
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

/**
 * The disk when all is as it must be: at least one path rescanned, none of those another disk, size,
 * map and link right. With `whole` every live session must carry it, too.
 */
export async function attached(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: number,
  whole: boolean,
  deadline: Deadline,
): Promise<AttachedDisk | undefined> {
  const { host, settings } = parts;
  const start = host.monotonicMs();
  const live = await liveSessions(parts);
  const before = await findScsiPaths(host.files, lunOf(parts, identity));
  const { verified } = await rescanAll(parts, before, live, deadline);
  const paths = (await findScsiPaths(host.files, lunOf(parts, identity)))
    .filter((path) => verified.has(path.name));
  if (paths.length === 0 || (whole && paths.length < live.length)) return undefined;
  if (paths.some((path) => path.naa !== identity.naa || path.sizeBytes !== size)) return undefined;
  const link = settings.useMultipath
    ? multipathTarget(identity.naa)
    : singlePathTarget(identity.naa);
  const disk = await identify(host.files, link);
  if (disk?.naa !== identity.naa || disk.sizeBytes !== size) return undefined;
  const isBelow = paths.every((path) => disk.slaves.includes(path.name));
  if (settings.useMultipath && !isBelow) return undefined;
  return {
    link,
    device: disk.node,
    size,
    paths: paths.length,
    attempts: 1,
    ms: Math.round(host.monotonicMs() - start),
  };
}

/** What this node holds of a volume. */
interface Holding {
  readonly map: MultipathMap | undefined;
  readonly paths: readonly ScsiDisk[];
}

/**
 * The volume's own map with all its paths, and the paths that are below no map. A path below the map
 * of another disk is that disk's: after LUNs were exchanged each map holds the other's paths.
 */
async function holdingOf(parts: IscsiNodeParts, identity: LunIdentity): Promise<Holding> {
  const { files } = parts.host;
  const iqn = parts.settings.targetIqn;
  const claiming = await findScsiPaths(files, { iqn, naa: identity.naa });
  const map = await mapOver(parts, claiming, identity);
  const own = claiming.filter((path) => path.map === undefined || path.map === map?.name);
  const missing = map?.slaves.filter((slave) => !own.some((path) => path.name === slave)) ?? [];
  if (missing.length === 0) return { map, paths: own };
  const others = await findScsiPaths(files, { iqn });
  return { map, paths: [...own, ...others.filter((path) => missing.includes(path.name))] };
}

/** Who uses the disk here: the map, or a path past the map. */
export async function users(
  parts: IscsiNodeParts,
  identity: LunIdentity,
): Promise<readonly string[]> {
  const { map, paths } = await holdingOf(parts, identity);
  const nodes = paths.flatMap((path) => path.node === undefined ? [] : [path.node]);
  const first = map?.node ?? nodes[0];
  return first === undefined ? [] : (await usersOf(parts.host, first, nodes)).by;
}

/** Removes the map, then every path of the volume. */
export async function detach(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  deadline: Deadline,
): Promise<void> {
  const { host } = parts;
  const { map, paths } = await holdingOf(parts, identity);
  if (map !== undefined) {
    // Commands that wait for a path would hold the map for ever.
    await disableQueueing(host, map, deadline.signal);
    await removeMap(host, map, deadline.signal);
  }
  await Promise.all(paths.map((path) => deleteDisk(host, path, deadline.signal)));
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

/** Drops what this node caches of the disk; see `Transport.dropCaches`. */
export function dropCaches(
  _parts: IscsiNodeParts,
  _identity: LunIdentity,
  _deadline: Deadline,
): Promise<void> {
  return Promise.reject(new Error("not written yet"));
}
