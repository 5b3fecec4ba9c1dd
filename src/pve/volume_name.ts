/**
 * Volume names, those of the Perl TrueNAS plugin: `vol-<zvol>-lun<N>`, `vol-<zvol>-ns<uuid>`,
 * `<base>/<clone>` for linked clones, and `vm-<id>-cloudinit` as it stands.
 *
 * The grammar is written a second time in the shim, which must parse without starting a program; a
 * test holds the two against the same list of names.
 */
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";

/** A parsed volume name. */
export interface VolumeName extends VolumeRef {
  /** The guest that owns it. */
  readonly vmid: number;
  /** A template's disk: it is never written again. */
  readonly isBase: boolean;
  /** The base of a linked clone, in the slash form. */
  readonly base: (VolumeRef & { readonly vmid: number }) | undefined;
}

const ZVOL = "(?:vm|base)-([1-9][0-9]{0,8})-[A-Za-z0-9][A-Za-z0-9:_.-]{0,60}";
const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const DISK = new RegExp(`^vol-(${ZVOL})-(?:lun(0|[1-9][0-9]{0,4})|ns(${UUID}))$`);
const OWNED = new RegExp(`^${ZVOL}$`);
const CLOUDINIT = /^vm-([1-9][0-9]{0,8})-cloudinit$/;

/** The highest LUN that TrueNAS gives out (`iscsi.targetextent`: below 16383). */
const HIGHEST_LUN = 16382;

function parsePart(part: string): (VolumeRef & { vmid: number }) | undefined {
  const disk = DISK.exec(part);
  if (disk !== null) {
    const [, zvol = "", vmid = "", lun, uuid] = disk;
    if (lun !== undefined && Number(lun) > HIGHEST_LUN) return undefined;
    return {
      zvol,
      vmid: Number(vmid),
      tag: lun !== undefined
        ? { kind: "lun", lun: Number(lun) }
        : { kind: "namespace", uuid: uuid ?? "" },
    };
  }
  const cloudInit = CLOUDINIT.exec(part);
  if (cloudInit !== null) return { zvol: part, vmid: Number(cloudInit[1]), tag: undefined };
  return undefined;
}

/**
 * Reads a volume name.
 *
 * @throws TnblockError `invalid` when it is not one of ours.
 *
 * @example
 * ```ts
 * import { parseVolumeName } from "./volume_name.ts";
 * parseVolumeName("vol-vm-100-disk-0-lun7").zvol; // "vm-100-disk-0"
 * ```
 */
export function parseVolumeName(name: string): VolumeName {
  const parts = name.split("/");
  const own = parsePart(parts[parts.length - 1] ?? "");
  const base = parts.length === 2 ? parsePart(parts[0] ?? "") : undefined;
  const baseIsBase = base === undefined || base.zvol.startsWith("base-");
  if (
    own === undefined || parts.length > 2 || (parts.length === 2 && base === undefined) ||
    !baseIsBase
  ) {
    throw new TnblockError(
      "invalid",
      `Cannot read the volume name "${name.slice(0, 200)}": it is not one of tnblock`,
    );
  }
  return { ...own, isBase: own.zvol.startsWith("base-"), base };
}

function formatPart(volume: VolumeRef): string {
  if (volume.tag === undefined) return volume.zvol;
  return volume.tag.kind === "lun"
    ? `vol-${volume.zvol}-lun${volume.tag.lun}`
    : `vol-${volume.zvol}-ns${volume.tag.uuid}`;
}

/** Writes a volume name; with a base in the slash form. */
export function formatVolumeName(volume: VolumeRef, base?: VolumeRef): string {
  return base === undefined ? formatPart(volume) : `${formatPart(base)}/${formatPart(volume)}`;
}

/** The guest that a zvol's name says it belongs to, or undefined when the name is none of ours. */
export function ownerOf(zvol: string): number | undefined {
  const match = OWNED.exec(zvol);
  return match === null ? undefined : Number(match[1]);
}

/** Whether this zvol is named without a LUN or uuid in PVE's configuration. */
export function isCloudInit(zvol: string): boolean {
  return CLOUDINIT.test(zvol);
}
