/** A volume as the rest of tnblock knows it, whatever face named it. */

/** Which export of the array the name was given out for; it must still be that one. */
export type ExportTag =
  | { readonly kind: "lun"; readonly lun: number }
  | { readonly kind: "namespace"; readonly uuid: string };

/** A volume of a storage. */
export interface VolumeRef {
  /** Last component of the zvol's path, e.g. `vm-100-disk-0`. */
  readonly zvol: string;
  /** The number or uuid in the name; undefined for cloud-init volumes, which carry none. */
  readonly tag: ExportTag | undefined;
}

/** Whether two tags name the same export. */
export function sameTag(a: ExportTag, b: ExportTag): boolean {
  return a.kind === "lun"
    ? b.kind === "lun" && a.lun === b.lun
    : b.kind === "namespace" && a.uuid === b.uuid;
}
