/** Adopting and rebinding as Proxmox VE names volumes. */
import { tagOf } from "../transport/transport.ts";
import type { Adoptable, AdoptOptions } from "../volumes/adopt.ts";
import { STORAGE_CFG } from "./storage_cfg.ts";
import { formatVolumeName, isCloudInit, ownerOf } from "./volume_name.ts";
import type { HostFiles } from "../host/host.ts";
import type { VolumeRef } from "../common/volume.ts";

export {
  type Adoptable,
  adoptDataset,
  type Adoption,
  type AdoptOptions,
  adoptVolume,
  findAdoptable,
} from "../volumes/adopt.ts";
export { planRebind, rebind, type RebindGuest, type RebindPlan } from "../volumes/rebind.ts";

/** What may be adopted where Proxmox VE keeps the storages. */
export async function adoptOptions(
  files: HostFiles,
  more: Pick<AdoptOptions, "ofCluster" | "unexported"> = {},
): Promise<AdoptOptions> {
  const text = await files.readText(STORAGE_CFG) ?? "";
  const headers = text.matchAll(/^[A-Za-z0-9_-]+:[ \t]*(\S+)[ \t]*$/gm);
  return {
    isName: (zvol) => ownerOf(zvol) !== undefined,
    living: [...headers].map(([, id = ""]) => id),
    ...more,
  };
}

/** A volume as guests' configurations name it: `san:vol-vm-100-disk-0-lun5`. */
export function volidOf(storage: string, { zvol, tag }: VolumeRef): string {
  return `${storage}:${formatVolumeName({ zvol, tag: isCloudInit(zvol) ? undefined : tag })}`;
}

/** The same of one that may be adopted; undefined when nothing exports it, and it has no name yet. */
export function volidOfAdoptable(
  storage: string,
  { zvol, identity }: Adoptable,
): string | undefined {
  return identity === undefined ? undefined : volidOf(storage, { zvol, tag: tagOf(identity) });
}
