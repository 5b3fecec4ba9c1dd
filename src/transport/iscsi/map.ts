/** The multipath map over the paths of one LUN, and udev's link to it. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError, withContext } from "../../common/error.ts";
import { SCSI_CONTROL_MS } from "../../common/timing.ts";
import { multipathTarget } from "../../host/links.ts";
import {
  addMap,
  addPath,
  enableQueueing,
  removePath,
  resizeMap,
  wwidOf,
} from "../../host/multipath.ts";
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

/**
 * A path that multipathd has not heard of from udev yet is no part of a map that it makes, and a map that was
 * just made takes none for a moment (`wait_for_udev`): so it is asked again.
 */
const ASK_AGAIN_MS = 2_000;

/** The map over the paths: made by multipathd, by itself or asked; its size and its paths set right. */
export async function useMap(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  paths: readonly ScsiDisk[],
  bytes: number,
  deadline: Deadline,
): Promise<{ link: string; device: string }> {
  const { host } = parts;
  const before = await mapNow(parts, identity);
  if (before !== undefined) {
    await refuseForeignPaths(parts, identity, before);
    // First of all: a path of the right size is refused by a map of another one.
    await fitMap(parts, identity, before, bytes, deadline);
  }
  const isIn = (map: MultipathMap) => (path: ScsiDisk) => map.slaves.includes(path.name);
  const complete = (ms: number, look: () => Promise<void> = () => Promise.resolve()) =>
    waitUntil(host, deadline.bounds(ms), async () => {
      await look();
      const map = await mapNow(parts, identity);
      return map?.node !== undefined && paths.every(isIn(map)) ? map : undefined;
    });
  // What multipathd once refused it does not try again by itself.
  const isFitted = before !== undefined && before.sizeBytes !== bytes;
  let map = (await complete(isFitted ? 0 : MAP_BY_ITSELF_MS))?.value;
  if (map === undefined) {
    let askAt = host.monotonicMs();
    map = (await complete(DISK_WAIT_MS, async () => {
      if (host.monotonicMs() < askAt) return;
      await askForMap(parts, identity, paths, deadline);
      askAt = host.monotonicMs() + ASK_AGAIN_MS;
    }))?.value;
  }
  if (map === undefined) {
    // A path more or less is no reason for a guest not to start.
    const some = await mapNow(parts, identity);
    if (some?.node !== undefined && paths.some(isIn(some))) {
      const missing = paths.filter((path) => !isIn(some)(path)).map((path) => path.name).join(", ");
      parts.log.warning(
        `multipathd does not take ${missing} into the map ${some.mapName}: it works with fewer paths`,
      );
      map = some;
    }
  }
  if (map !== undefined) map = await fitMap(parts, identity, map, bytes, deadline);
  if (map?.node === undefined) {
    const names = paths.map((path) => path.name).join(", ");
    throw new TnblockError(
      "host-fault",
      `Cannot use the paths ${names}: multipathd made no map ${
        wwidOf(identity.naa)
      } over all of them`,
      {
        hint:
          "Run tnblock install, or set find_multipaths yes in /etc/multipath.conf, and see that no blacklist entry matches vendor TrueNAS",
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

/** Longest time for resizing a map; what is under way on a dead path ends after its recovery time-out. */
const RESIZE_MS = SCSI_CONTROL_MS;
/** multipathd refuses for a moment after it made a map (`wait_for_udev`), so it is asked again. */
const RESIZE_AGAIN_MS = 1_000;

/**
 * Gives the map this size, up or down, also in use. Paths of another size are taken out of it before:
 * with them multipathd and the kernel would both refuse. They come back with {@link useMap}, once
 * they have been rescanned.
 *
 * @throws TnblockError `host-fault` when no path below the map has that size, or multipathd refuses.
 */
export async function fitMap(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  map: MultipathMap,
  bytes: number,
  deadline: Deadline,
): Promise<MultipathMap> {
  const { host, log } = parts;
  if (map.sizeBytes === bytes) return map;
  const doing = `Cannot give the multipath map ${map.mapName} its size of ${bytes} bytes`;
  const takenOut = new Set<string>();
  let refusal: TnblockError | undefined;
  let askAt = host.monotonicMs();
  const resized = await waitUntil(host, deadline.bounds(RESIZE_MS), async () => {
    if (host.monotonicMs() >= askAt) {
      await resize();
      askAt = host.monotonicMs() + RESIZE_AGAIN_MS;
    }
    const now = await readMultipathMap(host.files, map.name);
    return now?.naa === map.naa && now?.sizeBytes === bytes ? now : undefined;
  });
  if (resized !== undefined) return resized.value;
  throw withContext(
    refusal ?? new TnblockError("host-fault", `it kept ${map.sizeBytes} bytes`),
    doing,
  );

  async function resize(): Promise<void> {
    const now = await readMultipathMap(host.files, map.name);
    const below = (await findScsiPaths(host.files, lunOf(parts, identity)))
      .filter((path) => now?.slaves.includes(path.name));
    const behind = below.filter((path) => path.sizeBytes !== bytes);
    if (below.length > 0 && behind.length === below.length) {
      const names = behind.map((path) => `${path.name} with ${path.sizeBytes} bytes`).join(", ");
      throw new TnblockError("host-fault", `${doing}: of its paths there is only ${names}`, {
        hint: "See that their portals answer: iscsiadm -m session, then activate the volume again",
      });
    }
    try {
      for (const { name, sizeBytes } of behind) {
        if (!takenOut.has(name)) {
          takenOut.add(name);
          log.warning(
            `path ${name} is taken out of the map ${map.mapName}: it does not answer, and has ${sizeBytes} bytes still; ` +
              "it is taken back when the volume is activated with its portal answering",
          );
        }
        await removePath(host, name, deadline.signal);
      }
      await resizeMap(host, map, deadline.signal);
      refusal = undefined;
    } catch (error) {
      // It may have been done all the same, or be done at the next try: sysfs tells.
      if (!(error instanceof TnblockError)) throw error;
      refusal = error;
    }
  }
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
