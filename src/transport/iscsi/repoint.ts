/** An iSCSI export that follows its zvol to another path: LUN, naa and serial stay. */
import type { Deadline } from "../../common/deadline.ts";
import type { Host } from "../../host/host.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isExists, isUnknownOutcome } from "../../truenas/errors.ts";
import * as extents from "../../truenas/extents.ts";
import { withDeviceNode } from "../device_node.ts";
import { rowGone } from "../row_gone.ts";
import type { VolumeExport } from "../transport.ts";
import { extentName } from "./extent_name.ts";

/**
 * See `Transport.repoint`. A reload that finds no device at an extent's path leaves the extent and its LUN
 * out and goes on (`etc_files/scst.conf.mako`); the reload after this write brings both back.
 *
 * An extent that is named after its path is renamed with it in the same write, so that the old name is free
 * for a later volume of the old path. Any other name was given by somebody else, and stays.
 */
export async function repoint(
  parts: { readonly host: Host },
  array: Caller,
  found: VolumeExport,
  zvol: string,
  deadline: Deadline,
): Promise<boolean> {
  const id = found.rows.find((row) => row.kind === "extent")?.id;
  const [extent] = id === undefined ? [] : await extents.byIds(array, [id]);
  if (extent === undefined) throw rowGone(found, "extent");
  // Also when it points there already: the zvol may have been away meanwhile, and a reload by anybody have
  // left the LUN out. Only the reload after this write brings it back.
  const isNamedAfter = extent.zvol !== undefined && extent.name === extentName(extent.zvol);
  const point = (change: { readonly zvol: string; readonly name?: string }) =>
    withDeviceNode(parts.host, deadline, zvol, () => extents.update(array, extent.id, change));
  try {
    await point({ zvol, ...(isNamedAfter ? { name: extentName(zvol) } : {}) });
  } catch (error) {
    if (isUnknownOutcome(error)) {
      // The answer was lost, not necessarily the deed.
      const [now] = await extents.byIds(array, [extent.id]);
      if (now?.zvol === zvol) return true;
    }
    if (!isNamedAfter || !isExists(error)) throw error;
    await point({ zvol });
  }
  return true;
}
