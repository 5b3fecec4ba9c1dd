/** Which paths without a name are this storage's own: nothing else is ever touched. */
import { Deadline } from "../common/deadline.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import type { Storage } from "../volumes/storage.ts";
import type { Stray } from "./keeper_decide.ts";

/** Memory has its answer at once, or not now. */
const LISTING_MS = 1_000;

/** Those of the disks that memory knows as volumes of the storage; none while it does not know. */
export async function ownStrays(
  { memory, host }: Storage,
  strays: readonly DiskIdentity[],
): Promise<readonly Stray[]> {
  if (strays.length === 0 || memory === undefined) return [];
  const listing = await memory.listing(new Deadline(host, LISTING_MS)).catch(() => undefined);
  const ids = new Set(strays.map(idOf));
  return (listing?.exports ?? []).filter(({ identity }) => ids.has(idOf(identity)))
    .map(({ zvol, identity }) => ({ zvol: zvol.slice(zvol.lastIndexOf("/") + 1), identity }));
}

function idOf(identity: DiskIdentity): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}
