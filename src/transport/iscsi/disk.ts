/** The disk of one LUN on this node: attached, verified, used by whom, let go. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import { flushBuffers } from "../../host/flush_buffers.ts";
import { usersOf } from "../../host/in_use.ts";
import { deleteDisk } from "../../host/iscsi_admin.ts";
import { multipathTarget, singlePathTarget } from "../../host/links.ts";
import { disableQueueing, removeMap } from "../../host/multipath.ts";
import { scanBlockDevices } from "../../host/scan/block_devices.ts";
import { diagnoseMissingLun } from "../../host/scan/diagnose.ts";
import { identify } from "../../host/scan/identify.ts";
import { findScsiPaths } from "../../host/scan/scsi.ts";
import type { MultipathMap, ScsiDisk } from "../../host/scan/types.ts";
import { awaitLink } from "../await_link.ts";
import { DISK_WAIT_MS } from "../connect_all.ts";
import type { AttachedDisk } from "../transport.ts";
import { fits, type WantedSize, wantedText } from "../wanted_size.ts";
import { agreeOnSize } from "./agree.ts";
import { fitMap, mapOver, useMap } from "./map.ts";
import { type IscsiNodeParts, liveSessions } from "./node.ts";
import { type LunIdentity, lunOf, refresh, rescanAll, scanMissing } from "./paths.ts";

/** Finds the disk, or makes it appear, and verifies it on every path. */
export async function attach(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: WantedSize,
  deadline: Deadline,
): Promise<AttachedDisk> {
  const { answering } = await refresh(parts, identity, await liveSessions(parts), deadline);
  const carrying = await scanMissing(parts, identity, answering, deadline);
  if (carrying.length === 0) throw await nobodyAnswers(parts, identity);
  const limit = deadline.bounds(DISK_WAIT_MS);
  const found = await agreeOnSize(parts, identity, carrying, size, limit, deadline);
  if (found === undefined) throw await notFound(parts, identity, size, limit.deadlineMs);
  const { paths, bytes } = found.value;
  const { link, device } = parts.settings.useMultipath
    ? await useMap(parts, identity, paths, bytes, deadline)
    : await useSingle(parts, identity, paths, bytes, deadline);
  return {
    link,
    device,
    size: bytes,
    paths: paths.length,
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
  size: WantedSize,
  whole: boolean,
  deadline: Deadline,
): Promise<AttachedDisk | undefined> {
  const { host, settings } = parts;
  const start = host.monotonicMs();
  const live = await liveSessions(parts);
  const before = await findScsiPaths(host.files, lunOf(parts, identity));
  const { verified } = await rescanAll(parts, before, live, deadline);
  const answering = (await findScsiPaths(host.files, lunOf(parts, identity)))
    .filter((path) => verified.has(path.name));
  if (answering.some((path) => path.naa !== identity.naa)) return undefined;
  const bytes = typeof size === "number"
    ? size
    : Math.max(0, ...answering.map((path) => path.sizeBytes));
  // A path that stays behind with an old size is no path of this disk, as long as it is below no map of it.
  const paths = answering.filter((path) => path.sizeBytes === bytes);
  if (paths.length === 0 || !fits(bytes, size)) return undefined;
  if (whole && paths.length < live.length) return undefined;
  const link = settings.useMultipath
    ? multipathTarget(identity.naa)
    : singlePathTarget(identity.naa);
  const disk = await identify(host.files, link);
  if (disk?.naa !== identity.naa || disk.sizeBytes !== bytes) return undefined;
  const isBelow = paths.every((path) => disk.slaves.includes(path.name));
  if (settings.useMultipath && !isBelow) return undefined;
  return {
    link,
    device: disk.node,
    size: bytes,
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

/**
 * Stops the map's queueing when every path below it has answered, in a session that is logged in, that there is
 * no such LUN any more: its size is 0 then. Such a path is not lost, and nothing brings it back.
 */
export async function failWaiting(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  deadline: Deadline,
): Promise<boolean> {
  const { host, settings } = parts;
  const { map, paths } = await holdingOf(parts, identity);
  if (map === undefined || paths.length === 0) return false;
  const { verified } = await rescanAll(parts, paths, await liveSessions(parts), deadline);
  const now = await findScsiPaths(host.files, { iqn: settings.targetIqn });
  const isGone = paths.every(({ name }) =>
    verified.has(name) && now.some((path) => path.name === name && path.sizeBytes === 0)
  );
  if (isGone) await disableQueueing(host, map, deadline.signal);
  return isGone;
}

async function useSingle(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  paths: readonly ScsiDisk[],
  bytes: number,
  deadline: Deadline,
): Promise<{ link: string; device: string }> {
  const link = singlePathTarget(identity.naa);
  // udev points the link at one of the paths, or at a map when multipathd runs after all, which makes it when it likes.
  const nodes = async () => {
    const map = await mapOver(parts, paths, identity);
    return map === undefined ? paths.map((path) => path.node) : map.node;
  };
  const device = await awaitLink(parts.host, link, nodes, deadline);
  const map = await mapOver(parts, paths, identity);
  if (map !== undefined) await fitMap(parts, identity, map, bytes, deadline);
  return { link, device };
}

/** Nothing can be found where nobody answers: waiting for it would be in vain. */
async function nobodyAnswers(
  parts: IscsiNodeParts,
  identity: LunIdentity,
): Promise<TnblockError> {
  const why = (await liveSessions(parts)).length === 0
    ? "no session to the target is logged in"
    : "no session to the target answers";
  return new TnblockError(
    "unreachable",
    `Cannot find LUN ${identity.lun} of "${parts.settings.targetIqn}": ${why}`,
    { hint: "Look at: iscsiadm -m session" },
  );
}

async function notFound(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  size: WantedSize,
  waitedMs: number,
): Promise<TnblockError> {
  const what = `LUN ${identity.lun} of "${parts.settings.targetIqn}"`;
  const paths = await findScsiPaths(parts.host.files, lunOf(parts, identity));
  const wrong = paths.find((path) => !fits(path.sizeBytes, size));
  if (wrong !== undefined) {
    return new TnblockError(
      "host-fault",
      `Cannot use ${what}: path ${wrong.name} has ${wrong.sizeBytes} bytes, the volume ${
        wantedText(size)
      }`,
      {
        hint:
          "If the volume was rolled back in TrueNAS, its iSCSI service still shows the size from before: switch the extent off and on under Shares > Block (iSCSI) Shares Targets > Extents",
      },
    );
  }
  if ((await liveSessions(parts)).length === 0) return await nobodyAnswers(parts, identity);
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

/**
 * Drops what this node caches of the disk, and lets paths and map take the size that the array has now;
 * see `Transport.dropCaches`.
 *
 * @throws TnblockError `unreachable` when no path of a map answers.
 */
export async function dropCaches(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  deadline: Deadline,
): Promise<void> {
  const { host, log } = parts;
  const { map, paths } = await holdingOf(parts, identity);
  if (map?.node !== undefined) await flushBuffers(host, map.node, deadline.signal);
  const { verified } = await rescanAll(parts, paths, await liveSessions(parts), deadline);
  await Promise.all(paths.map(async ({ name, node }) => {
    if (node === undefined) return;
    try {
      await flushBuffers(host, node, deadline.signal);
    } catch (error) {
      // Nobody reads past the map; and a path that is dead is rescanned before it is used again.
      if (map === undefined && verified.has(name)) throw error;
      log.warning(`path ${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }));
  if (map === undefined) return;
  const sizes = (await findScsiPaths(host.files, lunOf(parts, identity)))
    .filter((path) => verified.has(path.name) && path.naa === identity.naa && path.sizeBytes > 0)
    .map((path) => path.sizeBytes);
  // A path that died under its rescan has the old size still; one that changed has been told.
  const bytes = sizes.find((size) => size !== map.sizeBytes) ?? sizes[0];
  if (bytes === undefined) {
    throw new TnblockError(
      "unreachable",
      `Cannot read the size of the multipath map ${map.mapName} anew: none of its paths answers`,
      { hint: "Look at: iscsiadm -m session" },
    );
  }
  await fitMap(parts, identity, map, bytes, deadline);
}
