/** Writes docs/options.md from the option schema: `deno run -A scripts/write_option_docs.ts`. */
import { getDescription, getMetadata } from "valibot";
import { optionSchema, type OptionTraits } from "../src/pve/options.ts";

/** What the table has no room for. */
const FREEING = [
  "## Freeing what is in use",
  "",
  "A disk that a process or a mount of this node uses is not freed: the refusal names who uses it. Before it removes anything, tnblock lets",
  "the node go of the disk (link, multipath map, SCSI paths), so that the array has no reason to call it busy; what is busy for a moment",
  "all the same is tried again. The Perl plugin's `force_delete_on_inuse` and `logout_on_free`, which log the node out of the target and try",
  "again, are replaced by this and have no counterpart: a session is shared by all volumes, and no volume operation ends it.",
  "",
  "A volume is not freed, rolled back or renamed either while the present configuration of a guest on *another* node names it and that",
  "guest runs there, or nobody tells whether it does. What is known of other nodes is what their `pvestatd` last told the cluster, some",
  "ten seconds ago: this is a guard against mistakes, not a proof that nobody uses the disk. A stopped guest is a warning only, and a volume",
  "that only a snapshot of a guest names is not guarded. `tnb-force-free 1` lifts it for freeing alone, for instance while the",
  "other node is gone for good; users on this node are never overridden.",
  "",
];

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
    ...FREEING,
  ].join("\n");
}

if (import.meta.main) {
  await Deno.writeTextFile(new URL("../docs/options.md", import.meta.url), optionDocs());
}
