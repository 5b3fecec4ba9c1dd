/** Methods about what is noted on a volume, and about the place where volumes are kept. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { readAttributes, writeNotes, writeProtected } from "../../volumes/attributes.ts";
import { parseVolumeName } from "../volume_name.ts";
import { type Method, parseArgs, volname } from "./method.ts";

const asking = v.object({ volname, attribute: v.string() });
/** Perl gets no NUL. How long they may be, says who keeps them. */
const text = v.pipe(v.string(), v.regex(/^[^\0]*$/));
const notes = v.object({ volname, value: v.nullish(text, "") });

/** Nothing else is taken for "on" or "off": a misread word would leave a disk unprotected. */
const onOrOff = v.pipe(
  v.nullish(v.union([v.boolean(), v.picklist([0, 1, "0", "1", ""])]), 0),
  v.transform((value) => value === 1 || value === "1" || value === true),
);
const protection = v.object({ volname, value: onOrOff });

/**
 * Where a section of storage.cfg keeps its volumes, as text: two sections with the same text mean the
 * same place. Pure, and the same as the shim's own `get_identity`.
 */
export function identityOf(config: Readonly<Record<string, unknown>>): string {
  const hosts = String(config["tnb-api-host"] ?? "").toLowerCase().split(/[\s,]+/)
    .filter((host) => host !== "")
    .map((host) => host.replace(/^\[(.*)\]$/, "$1"))
    .sort();
  return `tnblock:/${hosts.join(",")}/${config["tnb-dataset"] ?? ""}`;
}

/**
 * `notes` and `protected`. Of an attribute that a storage does not know, PVE's base class (`get_volume_attribute`
 * and `update_volume_attribute` of `PVE/Storage/Plugin.pm`) answers undef and refuses to set it; so do these.
 */
export const ATTRIBUTE_METHODS: Readonly<Record<string, Method>> = {
  get_volume_attribute: async (storage, args) => {
    const { volname, attribute } = parseArgs(asking, args);
    const volume = parseVolumeName(volname);
    if (attribute !== "notes" && attribute !== "protected") return null;
    const found = await readAttributes(storage, volume);
    return attribute === "notes" ? found.notes : found.protected ? 1 : 0;
  },
  update_volume_attribute: async (storage, args) => {
    const { volname, attribute } = parseArgs(asking, args);
    const volume = parseVolumeName(volname);
    if (attribute === "notes") {
      return await writeNotes(storage, volume, parseArgs(notes, args).value ?? "");
    }
    if (attribute === "protected") {
      return await writeProtected(storage, volume, parseArgs(protection, args).value);
    }
    throw new TnblockError(
      "unsupported",
      `Cannot set "${
        attribute.slice(0, 100)
      }" of the volume "${volume.zvol}": there are only notes and protected`,
      { field: "args.attribute" },
    );
  },
};
