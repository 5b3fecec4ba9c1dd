/**
 * Finding the volume that a name means: zvol *and* number or uuid must be the array's present export
 * (design decision 3). A stale configuration must not reach today's disk of the same name.
 */
import { TnblockError } from "../common/error.ts";
import { sameTag, type VolumeRef } from "../common/volume.ts";
import { tagOf, type VolumeExport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import type * as zvols from "../truenas/zvols.ts";
import { look } from "./look.ts";
import { isOurs } from "./ownership.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** A volume as the array has it now. */
export interface ResolvedVolume {
  readonly zvol: zvols.Zvol;
  readonly export: VolumeExport;
}

/** Reads zvol and export afresh, side by side, and compares them with the name. */
export async function resolveVolume(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
): Promise<ResolvedVolume> {
  requireKind(storage, volume);
  const path = zvolPath(storage, volume.zvol);
  const { zvol, found } = await look(storage, array, volume.zvol, storage.deadline);
  if (zvol === undefined) {
    throw new TnblockError(
      "not-found",
      `Cannot find the volume "${volume.zvol}": there is no "${path}" on the array`,
    );
  }
  requireOurs(storage, zvol);
  if (found.kind !== "ours") {
    const how = found.kind === "foreign" ? `it is exported as ${found.what}` : "nothing exports it";
    throw new TnblockError(
      "not-found",
      `Cannot find the disk of the volume "${volume.zvol}": "${path}" is on the array, but ${how}`,
      {
        hint:
          "If a free of it stopped half-way, free it again; if its extent or namespace was deleted by hand, allocate a new volume and copy the data",
      },
    );
  }
  requireTag(volume, found.export);
  return { zvol, export: found.export };
}

/** Refuses a name that was given out by the other protocol. */
export function requireKind(storage: Storage, volume: VolumeRef): void {
  const kind = storage.transport.kind === "iscsi" ? "lun" : "namespace";
  if (volume.tag === undefined || volume.tag.kind === kind) return;
  const protocol = volume.tag.kind === "lun" ? "iSCSI" : "NVMe/TCP";
  throw new TnblockError(
    "volume-replaced",
    `Cannot use the volume "${volume.zvol}": its name is of ${protocol}, which the storage "${storage.settings.id}" does not use`,
    {
      hint:
        "The configuration is older than the storage: look which guest owns the disk before changing anything",
    },
  );
}

/** Refuses what carries no mark of this storage. */
export function requireOurs(storage: Storage, zvol: zvols.Zvol): void {
  if (isOurs(storage, zvol)) return;
  throw new TnblockError(
    "not-ours",
    `Cannot touch "${zvol.name}": it carries no mark of storage "${storage.settings.id}" of this cluster`,
    {
      hint: "Volumes of the Perl plugin or made by hand are taken over with: tnblock adopt",
    },
  );
}

/** Refuses a name whose number or uuid is not the present export's. */
export function requireTag(volume: VolumeRef, found: VolumeExport): void {
  const now = tagOf(found.identity);
  if (volume.tag === undefined || sameTag(volume.tag, now)) return;
  const say = (tag: typeof now) => tag.kind === "lun" ? `LUN ${tag.lun}` : `uuid ${tag.uuid}`;
  throw new TnblockError(
    "volume-replaced",
    `Cannot use the volume "${volume.zvol}": the name means ${
      say(volume.tag)
    }, but today's "${found.zvol}" has ${say(now)}`,
    {
      hint:
        "The configuration is older than the disk: look which guest owns it before changing anything",
    },
  );
}
