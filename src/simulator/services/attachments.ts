/**
 * What deleting a dataset does to its shares: enabled extents and namespaces on it go with their
 * mappings, and so does a target that is thereby left without a LUN. No events, few reloads.
 */

import type { JsonObject } from "../json.ts";
import { zvolOf } from "../export_view.ts";
import { having } from "./service.ts";
import type { Call } from "./service.ts";

export async function removeAttachments(call: Call, dataset: string): Promise<void> {
  const { extent, namespace, target, targetextent } = call.sim.world.tables;
  const below = (path: string) => {
    const name = zvolOf(path).split("@")[0] ?? "";
    return name === dataset || name.startsWith(`${dataset}/`);
  };
  const extents = extent.all().filter((row) =>
    row.enabled === true && row.type === "DISK" && below(String(row.path))
  );
  const spaces = namespace.all().filter((row) =>
    row.enabled === true && row.device_type === "ZVOL" && below(String(row.device_path))
  );
  for (const row of spaces) namespace.delete(Number(row.id));
  if (spaces.length > 0) await call.sim.reloads.reload("nvmet");
  if (extents.length === 0) return;
  const touched = new Set<number>();
  for (const row of extents) {
    for (const mapping of having(targetextent, "extent", row.id ?? null)) {
      touched.add(Number(mapping.target));
      targetextent.delete(Number(mapping.id));
    }
    extent.delete(Number(row.id));
  }
  await call.sim.reloads.reload("iscsitarget");
  const orphans = [...touched].map((id) => target.get(id)).filter((row): row is JsonObject =>
    row !== undefined && having(targetextent, "target", row.id ?? null).length === 0
  );
  for (const row of orphans) target.delete(Number(row.id));
  if (orphans.length > 0) await call.sim.reloads.reload("iscsitarget");
}
