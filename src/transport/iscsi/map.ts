/** The multipath map over the paths of one LUN, and udev's link to it. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import { multipathTarget } from "../../host/links.ts";
import { addMap, addPath, enableQueueing, resizeMap, wwidOf } from "../../host/multipath.ts";
import { identify } from "../../host/scan/identify.ts";
import { readMultipathMap } from "../../host/scan/maps.ts";
import { findScsiPaths } from "../../host/scan/scsi.ts";
import type { MultipathMap, ScsiDisk } from "../../host/scan/types.ts";
import { waitUntil } from "../../host/wait_until.ts";
import { awaitLink } from "../await_link.ts";
import { DISK_WAIT_MS } from "../connect_all.ts";
import type { IscsiNodeParts } from "./node.ts";
import { type LunIdentity, lunOf } from "./paths.ts";

/** multipathd takes a new path by itself within this time; past it we ask it to. */
const MAP_BY_ITSELF_MS = 1500;

/** The map over the paths: made by multipathd, by itself or asked; its size and its paths set right. */
export async function useMap(
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
  // A virtual machine rather waits for its array than gets errors, whatever multipath.conf says.
  await enableQueueing(host, map, deadline.signal);
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

/** The map of the volume: over its paths, or without any after they all went. */
export async function mapOver(
  parts: IscsiNodeParts,
  paths: readonly ScsiDisk[],
  identity: LunIdentity,
): Promise<MultipathMap | undefined> {
  const { files } = parts.host;
  for (const path of paths) {
    const over = path.map === undefined ? undefined : await readMultipathMap(files, path.map);
    if (over?.naa === identity.naa) return over;
  }
  const name = (await identify(files, multipathTarget(identity.naa)))?.name;
  const map = name === undefined ? undefined : await readMultipathMap(files, name);
  return map?.naa === identity.naa ? map : undefined;
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
