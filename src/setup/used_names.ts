/** What the cluster's storages have already: ids, and the values that their sections name. */
import type { HostFiles } from "../host/host.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";

/** A section of any type. */
export interface AnySection {
  readonly type: string;
  readonly id: string;
  readonly options: Readonly<Record<string, string>>;
}

/** All sections of storage.cfg, whatever their type. */
export async function readAllSections(files: HostFiles): Promise<AnySection[]> {
  return parseAllSections(await files.readText(STORAGE_CFG) ?? "");
}

/** The same of its text. */
export function parseAllSections(text: string): AnySection[] {
  const found: { type: string; id: string; options: Record<string, string> }[] = [];
  for (const line of text.split("\n")) {
    const header = /^([A-Za-z0-9_-]+):\s*(\S+)\s*$/.exec(line);
    if (header?.[1] !== undefined && header[2] !== undefined) {
      found.push({ type: header[1], id: header[2], options: {} });
      continue;
    }
    const option = /^\s+(\S+)(?:\s+(.*?))?\s*$/.exec(line);
    const current = found.at(-1);
    if (option?.[1] !== undefined && current !== undefined) {
      current.options[option[1]] = option[2] ?? "1";
    }
  }
  return found;
}

/** The storage that names this value in any option, as a target or a dataset is named; undefined when none does. */
export function storageNaming(
  sections: readonly AnySection[],
  value: string,
): string | undefined {
  return sections.find(({ options }) => Object.values(options).includes(value))?.id;
}

/** The storage whose dataset is this one, lies in it, or holds it. */
export function storageOfDataset(
  sections: readonly AnySection[],
  dataset: string,
): string | undefined {
  const overlaps = (other: string | undefined) =>
    other !== undefined && (other === dataset || other.startsWith(`${dataset}/`) ||
      dataset.startsWith(`${other}/`));
  return sections.find(({ options }) =>
    overlaps(options["tnb-dataset"]) || overlaps(options["tn_dataset"]) ||
    overlaps(options["dataset"])
  )?.id;
}
