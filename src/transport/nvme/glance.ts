/** What sysfs shows of a storage's namespaces, in few reads each; see `Transport.glance`. */
import { nvmeTarget } from "../../host/links.ts";
import {
  attribute,
  lastName,
  mapBounded,
  numberAttribute,
  place,
  SECTOR,
} from "../../host/scan/attributes.ts";
import type { DiskGlance, Glance } from "../transport.ts";
import { type NvmeNodeParts, portalsOf } from "./node.ts";

/** By udev's links alone: a namespace that has none is of no use to anybody. */
export async function glance(
  parts: NvmeNodeParts,
  uuids: readonly string[],
): Promise<Glance> {
  if (uuids.length === 0) return { disks: [], strays: [] };
  const { files } = parts.host;
  const portals = await portalsOf(parts);
  const up = portals.filter(({ state }) => state === "live").length;
  const disks = await mapBounded(uuids, async (uuid): Promise<DiskGlance | undefined> => {
    const device = await place(files, nvmeTarget(uuid));
    if (device === undefined) return undefined;
    const sys = `/sys/block/${lastName(device)}`;
    const [found, size, number, sequence] = await Promise.all([
      attribute(files, `${sys}/uuid`),
      numberAttribute(files, `${sys}/size`),
      attribute(files, `${sys}/dev`),
      attribute(files, `${sys}/diskseq`),
    ]);
    if (size === undefined) return undefined;
    const is = found?.toLowerCase();
    return {
      device,
      size: size * SECTOR,
      paths: { up, configured: portals.length },
      // The kernel takes a path that came back by itself.
      lost: 0,
      strangers: is !== undefined && is !== uuid ? [is] : [],
      mark: [device, number, sequence].join(" "),
    };
  });
  return { disks, strays: [] };
}
