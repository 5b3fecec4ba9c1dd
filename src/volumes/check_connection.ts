/** Whether a storage is worth trying: it is, unless nothing of it answers. */
import type { Storage } from "./storage.ts";

/** A portal or API that lives answers a TCP connection in one round trip. */
const PROBE_MS = 1500;

/**
 * True when the API or any portal takes a TCP connection. One of them is enough: guests start over
 * the data path while the API is away, and PVE asks this before everything.
 */
export async function checkConnection(storage: Storage): Promise<boolean> {
  const { host, settings, transport, deadline } = storage;
  if (storage.memory !== undefined) return storage.memory.isReachable();
  const bounds = deadline.bounds(PROBE_MS);
  const api = settings.api.hosts.map(async (address) => {
    await host.exchangeTcp(address, settings.api.port, new Uint8Array(), 0, bounds);
    return true;
  });
  const portals = transport.anyPortalAnswers().then((answers) => {
    if (!answers) throw new Error("no portal answers");
    return true;
  });
  return await Promise.any([...api, portals]).catch(() => false);
}
