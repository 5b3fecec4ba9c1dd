/**
 * All volumes of a storage with what an administrator asks of them, those too that Proxmox VE cannot be told of
 * because nothing exports them. The daemon answers it from its memory, and without one the array is asked.
 */
import * as v from "valibot";
import type { Deadline } from "../common/deadline.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { DiskIdentity, VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as snapshots from "../truenas/snapshots.ts";
import { listVolumes, unexported } from "../volumes/list.ts";
import { readListing, type StorageMemory, type VolumeListing } from "../volumes/memory.ts";
import type { Storage } from "../volumes/storage.ts";
import { formatVolumeName, isCloudInit, ownerOf } from "./volume_name.ts";

const unknown = <T extends v.GenericSchema>(schema: T) => v.nullable(schema);

const volumeSchema = v.object({
  /** Its zvol, without the dataset. */
  zvol: v.string(),
  /** As guests' configurations name it; null while nothing exports it. */
  volid: unknown(v.string()),
  /** Bytes. */
  size: v.number(),
  /** Bytes on disk, snapshots and reservation included. */
  used: v.number(),
  /** ISO 8601 in UTC. */
  created: v.string(),
  /** The guest whose number its name has; null when the name has none. */
  vmid: unknown(v.number()),
  lun: unknown(v.number()),
  naa: unknown(v.string()),
  nsid: unknown(v.number()),
  uuid: unknown(v.string()),
  /** Of a linked clone, the name of its base. */
  parent: unknown(v.string()),
  notes: v.string(),
  protected: v.boolean(),
  /** `switched-off`: the export is there, and disabled on the array; `not-exported`: there is none. */
  state: v.picklist(["ok", "switched-off", "not-exported"]),
  /** Null when nobody counted them. */
  snapshots: unknown(v.number()),
});

const inventorySchema = v.object({
  storage: v.string(),
  /** Why there are no volumes here. */
  error: unknown(v.object({ code: v.string(), message: v.string(), hint: unknown(v.string()) })),
  volumes: v.array(volumeSchema),
});

/** One volume. */
export type InventoryVolume = v.InferOutput<typeof volumeSchema>;

/** The volumes of a storage, or why they cannot be told. */
export type Inventory = v.InferOutput<typeof inventorySchema>;

/**
 * Reads inventories that came over the socket.
 *
 * @throws TnblockError `unsupported` when a daemon of another version says something else.
 */
export function parseInventories(value: unknown): Inventory[] {
  const parsed = v.safeParse(v.array(inventorySchema), value);
  if (parsed.success) return parsed.output;
  throw new TnblockError(
    "unsupported",
    "Cannot read what the daemon says of the volumes: it is not as this tnblock knows it",
    { hint: "Daemon and program may be of different versions: run systemctl restart tnblock" },
  );
}

/**
 * Reads a storage's volumes, by name: from its memory when it has one, else three calls.
 *
 * @param options `snapshots` counts those of each volume as well: one cheap call a volume.
 */
export async function readInventory(
  storage: Storage,
  options: { readonly snapshots?: boolean } = {},
): Promise<InventoryVolume[]> {
  const { deadline, memory, settings: { id, dataset } } = storage;
  const listing = memory === undefined
    ? await readListing(storage, deadline)
    : await memory.listing(deadline);
  const told = await listVolumes({ ...storage, memory: asMemory(listing) });
  const zvols = new Map(listing.zvols.map((zvol) => [zvol.name, zvol]));
  const exports = new Map(listing.exports.map((one) => [one.zvol, one]));
  const volumes = told.map((volume): InventoryVolume => {
    const { zvol, tag, base } = volume;
    const own = isCloudInit(zvol) ? { zvol, tag: undefined } : { zvol, tag };
    const exported = exports.get(`${dataset}/${zvol}`);
    return {
      ...{ zvol, volid: `${id}:${formatVolumeName(own, base)}` },
      ...{ size: volume.size, used: volume.used, created: isoOf(volume.created * 1_000) },
      vmid: ownerOf(zvol) ?? null,
      ...numbersOf(exported),
      parent: base === undefined ? null : formatVolumeName(base),
      ...{ notes: volume.notes, protected: volume.protected },
      state: exported?.enabled === false ? "switched-off" : "ok",
      snapshots: null,
    };
  });
  for (const path of unexported(storage, listing)) {
    const zvol = zvols.get(path);
    if (zvol === undefined) continue;
    const name = path.slice(dataset.length + 1);
    volumes.push({
      ...{ zvol: name, volid: null, size: zvol.volsize, used: zvol.used },
      ...{ created: isoOf(zvol.createdMs), vmid: ownerOf(name) ?? null },
      ...numbersOf(undefined),
      ...{ parent: null, notes: "", protected: false, state: "not-exported", snapshots: null },
    });
  }
  volumes.sort((a, b) => (a.vmid ?? 0) - (b.vmid ?? 0) || (a.zvol < b.zvol ? -1 : 1));
  if (options.snapshots !== true) return volumes;
  const counts = await countSnapshots(await storage.array(), dataset, volumes, deadline);
  return volumes.map((volume) => ({ ...volume, snapshots: counts.get(volume.zvol) ?? null }));
}

/** The same of one storage as a document: a failure is part of it. Never rejects. */
export async function inventoryOf(
  id: string,
  read: () => Promise<InventoryVolume[]>,
): Promise<Inventory> {
  try {
    return { storage: id, error: null, volumes: await read() };
  } catch (thrown) {
    const { code, message, hint } = asTnblockError(thrown);
    return { storage: id, error: { code, message, hint: hint ?? null }, volumes: [] };
  }
}

/** A listing that was read already, for those who ask a memory. */
function asMemory(listing: VolumeListing): StorageMemory {
  return {
    listing: () => Promise.resolve(listing),
    begun: () => Promise.resolve(),
    status: () => ({ total: 0, available: 0, used: 0, active: 0 }),
    has: () => undefined,
    isReachable: () => true,
    changed: () => {},
  };
}

function numbersOf(
  exported: VolumeExport | undefined,
): Pick<InventoryVolume, "lun" | "naa" | "nsid" | "uuid"> {
  const identity: DiskIdentity | undefined = exported?.identity;
  return {
    lun: identity?.kind === "iscsi" ? identity.lun : null,
    naa: identity?.kind === "iscsi" ? identity.naa : null,
    nsid: identity?.kind === "nvme-tcp" ? identity.nsid : null,
    uuid: identity?.kind === "nvme-tcp" ? identity.uuid : null,
  };
}

/** Volumes whose snapshots are counted at a time. */
const AT_ONCE = 8;

async function countSnapshots(
  array: Caller,
  dataset: string,
  volumes: readonly InventoryVolume[],
  deadline: Deadline,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const left = volumes.map(({ zvol }) => zvol);
  const countSome = async () => {
    for (let zvol = left.shift(); zvol !== undefined; zvol = left.shift()) {
      const names = await snapshots.names(array, `${dataset}/${zvol}`, deadline.bounds());
      counts.set(zvol, names.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, countSome));
  return counts;
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
