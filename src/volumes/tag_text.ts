/** The end of a volume's name, that says which export it was given out for. */
import type { ExportTag } from "../common/volume.ts";

/** `lun5`, or `ns` and a uuid. */
export function tagText(tag: ExportTag): string {
  return tag.kind === "lun" ? `lun${tag.lun}` : `ns${tag.uuid}`;
}
