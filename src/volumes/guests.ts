/**
 * The guard against guests on other nodes: what this node does to a disk must not hit a guest that runs
 * elsewhere. It reads what the cluster knows, and proves nothing (`../host/guest_configs.ts`).
 */
import type { VolumeRef } from "../common/volume.ts";
import { findGuests, type NamingGuest } from "../host/guest_configs.ts";
import { LastingUse } from "./lasting_use.ts";
import type { Storage } from "./storage.ts";
import { tagText } from "./tag_text.ts";

/**
 * Refuses while the present configuration of a guest on another node names the volume, unless that guest is
 * known to be stopped. A stopped guest, one whose state no node tells while `tnb-force-free` is set, and
 * configurations that cannot be read are warnings: without pmxcfs nothing could be freed otherwise. This node's
 * own guests are not looked at: their processes are seen directly.
 *
 * @param doing as in a message: `free`, `roll back`, `rename`.
 * @throws TnblockError `in-use` that names guest and node.
 */
export async function refuseRunningElsewhere(
  storage: Storage,
  volume: VolumeRef,
  doing: string,
): Promise<void> {
  const { guests, unread } = await findGuests(storage.host, {
    storage: storage.settings.id,
    contains: volume.zvol,
    isMeant: (volname) => isNameOf(volume, volname),
    exceptNode: storage.node,
  });
  if (unread.length > 0) {
    storage.log.warning(
      `whether a guest elsewhere uses "${volume.zvol}" was not looked up everywhere: cannot read ${
        unread.slice(0, 3).join(", ")
      }${unread.length > 3 ? ` and ${unread.length - 3} more` : ""}`,
    );
  }
  for (const guest of guests.filter((one) => one.now)) {
    const isForced = doing === "free" && storage.settings.forceFree;
    if (guest.running === false || isForced) {
      storage.log.warning(`"${volume.zvol}" is named by ${inWords(guest)}; going on`);
      continue;
    }
    throw new LastingUse(
      `Cannot ${doing} the volume "${volume.zvol}": it is named by ${inWords(guest)}`,
      {
        hint: `Stop the guest or take the disk from it on node ${guest.node}` +
          (doing === "free"
            ? "; if that node is gone for good, set tnb-force-free 1 on the storage for this once"
            : ""),
      },
    );
  }
}

/** Whether the present configuration of a guest on any node of the cluster, this one too, names the volume. */
export async function isNamedByGuest(storage: Storage, volume: VolumeRef): Promise<boolean> {
  return (await guestsNaming(storage, volume)).now;
}

/** Who names a volume, on any node of the cluster. */
export interface NamedBy {
  /** Whether the present configuration of a guest does. */
  readonly now: boolean;
  /** Whether that, or what is kept of one for a snapshot, does. */
  readonly ever: boolean;
  /** Whether all configurations could be read: if not, a guest may name it after all. */
  readonly isSure: boolean;
}

/** Looks who names a volume, on any node of the cluster, this one too. */
export async function guestsNaming(storage: Storage, volume: VolumeRef): Promise<NamedBy> {
  const { guests, unread } = await findGuests(storage.host, {
    storage: storage.settings.id,
    contains: volume.zvol,
    isMeant: (volname) => isNameOf(volume, volname),
    exceptNode: "",
  });
  return {
    now: guests.some((guest) => guest.now),
    ever: guests.length > 0,
    isSure: unread.length === 0,
  };
}

function inWords(guest: NamingGuest): string {
  const kind = guest.kind === "qemu" ? "VM" : "container";
  const state = guest.running === "unknown"
    ? "of which nobody tells whether it runs"
    : guest.running
    ? "which runs there"
    : "which is stopped";
  return `${kind} ${guest.vmid} on node ${guest.node}, ${state}`;
}

/**
 * Whether a volname of a configuration means the volume: with its number or uuid, or a cloud-init volume
 * by the name of its zvol; of a linked clone's name only the clone counts.
 */
function isNameOf(volume: VolumeRef, volname: string): boolean {
  const own = volname.slice(volname.lastIndexOf("/") + 1);
  if (own === volume.zvol) return true;
  const start = `vol-${volume.zvol}-`;
  if (!own.startsWith(start)) return false;
  const tag = own.slice(start.length);
  if (!/^(?:lun[0-9]+|ns[0-9a-f-]{36})$/.test(tag)) return false;
  return volume.tag === undefined || tag === tagText(volume.tag);
}
