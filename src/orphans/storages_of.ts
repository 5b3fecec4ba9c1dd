/** The storages to clean up, each with the other ids that its volumes may have in guests' configurations. */
import { TnblockError } from "../common/error.ts";
import type { Host } from "../host/host.ts";
import { parseStorageCfg, readSections, STORAGE_CFG } from "../pve/storage_cfg.ts";
import type { CleanupStorage } from "./cleanup.ts";

/**
 * Reads them.
 *
 * @param wanted only this one.
 * @param also those that this node may not use: what it has of them counts.
 * @throws TnblockError `not-found` when there is none, or not this one.
 */
export async function storagesToClean(
  host: Host,
  wanted: string | undefined,
  also = false,
): Promise<CleanupStorage[]> {
  const text = await host.files.readText(STORAGE_CFG) ?? "";
  const all = also ? parseStorageCfg(text) : await readSections(host.files, host.nodeName);
  const sections = all
    .filter(({ id }) => wanted === undefined || id === wanted);
  if (sections.length === 0) {
    const what = wanted === undefined ? "any storage" : `the storage "${wanted}"`;
    throw new TnblockError(
      "not-found",
      `Cannot find ${what}: ${STORAGE_CFG} has no such section of type tnblock for this node`,
      { hint: "Look at: tnblock status" },
    );
  }
  return sections.map((section) => ({
    section,
    aliases: idsSharing(text, section.config["tnb-dataset"], section.id),
  }));
}

/** Ids of all sections, of whatever type, that name a dataset: `tnblock`'s own and the Perl plugin's. */
export function idsSharing(text: string, dataset: string | undefined, except: string): string[] {
  if (dataset === undefined) return [];
  const found = new Set<string>();
  let id: string | undefined;
  for (const line of text.split("\n")) {
    const header = /^[A-Za-z0-9_-]+:\s*(\S+)\s*$/.exec(line)?.[1];
    if (header !== undefined) id = header;
    else if (/^\s*$/.test(line)) id = undefined;
    else if (id !== undefined && /^\s+\S+\s+(.*?)\s*$/.exec(line)?.[1] === dataset) found.add(id);
  }
  found.delete(except);
  return [...found];
}
