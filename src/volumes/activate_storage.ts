/** Connecting a node to a storage's portals. The API is not needed for it. */
import type { Storage } from "./storage.ts";

/** Connects the portals that are not; one live portal is enough, each missing one is a warning. */
export async function activateStorage(storage: Storage): Promise<null> {
  await storage.transport.connect(storage.deadline);
  return null;
}
