/** A namespace that follows its zvol to another path: NSID, uuid and nguid stay. */
import type { Deadline } from "../../common/deadline.ts";
import type { Host } from "../../host/host.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isUnknownOutcome } from "../../truenas/errors.ts";
import * as namespaces from "../../truenas/namespaces.ts";
import { withDeviceNode } from "../device_node.ts";
import { rowGone } from "../row_gone.ts";
import type { VolumeExport } from "../transport.ts";

/**
 * See `Transport.suspend`. A namespace that is on keeps its path, and one that is on with a path that is
 * gone can not be switched off any more; worse, the next start of the service stumbles over it, and with
 * it every other namespace (`plugins/nvmet/namespace.py`, `kernel.py`).
 */
export async function suspend(array: Caller, found: VolumeExport): Promise<boolean> {
  const row = await readRow(array, found);
  if (!row.enabled) return false;
  await update(array, row.id, { enabled: false });
  return true;
}

/** See `Transport.repoint`. */
export async function repoint(
  parts: { readonly host: Host },
  array: Caller,
  found: VolumeExport,
  zvol: string,
  deadline: Deadline,
): Promise<boolean> {
  const row = await readRow(array, found);
  const { enabled } = found;
  if (row.zvol === zvol && row.enabled === enabled) return false;
  if (row.zvol !== zvol && row.enabled) await update(array, row.id, { enabled: false });
  const change = row.zvol === zvol ? { enabled } : { zvol, enabled };
  await withDeviceNode(parts.host, deadline, zvol, () => update(array, row.id, change));
  return true;
}

async function readRow(array: Caller, found: VolumeExport): Promise<namespaces.Namespace> {
  const id = found.rows.find((row) => row.kind === "namespace")?.id;
  const row = id === undefined ? undefined : await namespaces.byId(array, id);
  if (row === undefined) throw rowGone(found, "namespace");
  return row;
}

/** Changes the namespace; when the answer is lost, looks what became of it. */
async function update(
  array: Caller,
  id: number,
  change: { readonly zvol?: string; readonly enabled: boolean },
): Promise<void> {
  try {
    await namespaces.update(array, id, change);
  } catch (error) {
    if (!isUnknownOutcome(error)) throw error;
    const now = await namespaces.byId(array, id);
    const isDone = now?.enabled === change.enabled &&
      (change.zvol === undefined || now.zvol === change.zvol);
    if (!isDone) throw error;
  }
}
