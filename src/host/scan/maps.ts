/** The multipath maps of a node, from `/sys/block/dm-N`. */
import type { HostFiles } from "../host.ts";
import { attribute, entries, mapBounded, readCommon } from "./attributes.ts";
import type { MultipathMap } from "./types.ts";

const PREFIX = "mpath-";

/** All multipath maps among the disks of these names. */
export async function scanMultipathMaps(
  files: HostFiles,
  names: readonly string[],
): Promise<MultipathMap[]> {
  const maps = await mapBounded(names, (name) => readMultipathMap(files, name));
  return maps.filter((map) => map !== undefined);
}

/** The map of that kernel name; undefined when it is none or has gone. */
export async function readMultipathMap(
  files: HostFiles,
  name: string,
): Promise<MultipathMap | undefined> {
  const uuid = await attribute(files, `/sys/block/${name}/dm/uuid`);
  if (uuid === undefined || !uuid.startsWith(PREFIX)) return undefined;
  const [mapName, common, slaves] = await Promise.all([
    attribute(files, `/sys/block/${name}/dm/name`),
    readCommon(files, name),
    entries(files, `/sys/block/${name}/slaves`),
  ]);
  if (mapName === undefined || common === undefined) return undefined;
  const wwid = uuid.slice(PREFIX.length);
  return {
    name,
    mapName,
    uuid,
    wwid,
    naa: /^3([0-9a-f]{16}(?:[0-9a-f]{16})?)$/.exec(wwid)?.[1],
    slaves,
    sizeBytes: common.sizeBytes,
    device: common.device,
    node: common.node,
    holders: common.holders,
  };
}

/** Whether the disk of that kernel name is a multipath map. */
export async function isMultipath(files: HostFiles, name: string): Promise<boolean> {
  return (await attribute(files, `/sys/block/${name}/dm/uuid`))?.startsWith(PREFIX) ?? false;
}
