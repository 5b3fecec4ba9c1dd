/** Connecting a node to a storage's portals. The API is not needed for it. */
import type { Storage } from "./storage.ts";

/**
 * Connects the portals that are not; one live portal is enough, each missing one is a warning. PVE asks every ten
 * seconds: while the daemon has seen a live portal a moment ago there is nothing to do, and it repairs the others.
 */
export async function activateStorage(storage: Storage): Promise<null> {
  const { transport, upkeep, deadline } = storage;
  const connect = () => transport.connect(deadline);
  await (upkeep?.connected(connect, () => transport.anyPortalAnswers()) ?? connect());
  return null;
}
