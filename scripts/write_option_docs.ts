/** Writes docs/options.md from the option schema: `deno run -A scripts/write_option_docs.ts`. */
import { getDescription, getMetadata } from "valibot";
import { optionSchema, type OptionTraits } from "../src/pve/options.ts";

/** The page, as it must stand in docs/options.md. */
export function optionDocs(): string {
  const rows = Object.entries(optionSchema.entries).map(([name, schema]) => {
    const traits = getMetadata(schema) as OptionTraits;
    const kind = traits.secret ? "secret" : traits.fixed ? "fixed" : "";
    return `| \`${name}\` | ${kind} | ${getDescription(schema) ?? ""} |`;
  });
  return [
    "# Options of a storage of type `tnblock`",
    "",
    "Written from the schema by `scripts/write_option_docs.ts`. *fixed*: cannot be changed once the storage is added. *secret*: kept in",
    "`/etc/pve/priv/storage/<storage>.tnblock`, set and changed with `pvesm`, never in `storage.cfg`. `nodes`, `disable`, `content` and",
    "`shared` are those of Proxmox VE.",
    "",
    "| option | | what it is |",
    "|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

if (import.meta.main) {
  await Deno.writeTextFile(new URL("../docs/options.md", import.meta.url), optionDocs());
}
