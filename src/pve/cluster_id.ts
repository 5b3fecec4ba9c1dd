/** The cluster's id: a UUID made once, in pmxcfs, so that all nodes share it and no two clusters do. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Bounds, Host } from "../host/host.ts";

const FILE = "/etc/pve/priv/tnblock/cluster-id";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Reads the cluster's id, and makes it when there is none. */
export async function clusterId(host: Host, bounds: Bounds): Promise<string> {
  const known = await readId(host);
  if (known !== undefined) return known;
  const release = await attempt(
    "Cannot make the cluster id",
    () => host.lock("cluster-id", bounds),
  );
  try {
    const made = await readId(host);
    if (made !== undefined) return made;
    await host.files.replaceText(FILE, `${host.randomUuid()}\n`, 0o600);
    // Another node may have made one at the same moment; what stands there now is the cluster's.
    const settled = await readId(host);
    if (settled === undefined) {
      throw new TnblockError("host-fault", `Cannot make ${FILE}: it is not there after writing`);
    }
    return settled;
  } finally {
    release();
  }
}

async function readId(host: Host): Promise<string | undefined> {
  const text = (await host.files.readText(FILE))?.trim().toLowerCase();
  if (text === undefined) return undefined;
  if (UUID.test(text)) return text;
  throw new TnblockError("host-fault", `Cannot use the cluster id: ${FILE} does not hold a UUID`, {
    hint: "It marks the volumes of this cluster: restore it from a backup, do not make a new one",
  });
}
