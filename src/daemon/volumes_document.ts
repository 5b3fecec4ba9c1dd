/** The daemon's answer to `daemon_volumes`: the volumes of all storages of the node, from memory; no array is asked. */
import type { HookWorld } from "../pve/hook.ts";
import { type Inventory, inventoryOf, readInventory } from "../pve/inventory.ts";
import { Storages } from "./storages.ts";

/** The method of the socket that answers it. PVE does not know it. */
export const VOLUMES_METHOD = "daemon_volumes";

/** A memory may be at a read, which is waited for so long. */
const LISTING_MS = 5_000;

/** Tells them. A storage whose memory is too old to tell has an error instead. */
export async function tellVolumes(world: HookWorld): Promise<Inventory[]> {
  const storages = new Storages({ ...world, setDebugLevel: () => {} });
  return await Promise.all(
    (await storages.sections()).map((section) =>
      inventoryOf(section.id, async () => {
        const storage = await storages.open(section, LISTING_MS);
        try {
          return await readInventory(storage);
        } finally {
          await storage.close();
        }
      })
    ),
  );
}
