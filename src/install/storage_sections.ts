/** What storage.cfg holds beside our own sections: enough to know whose volume groups and storages there are. */

/** One section of any type. */
export interface Section {
  readonly type: string;
  readonly id: string;
  readonly options: Readonly<Record<string, string>>;
}

/** All sections, in the file's order; the format is that of `src/pve/storage_cfg.ts`. */
export function parseSections(text: string): Section[] {
  const found: { type: string; id: string; options: Record<string, string> }[] = [];
  let current: Record<string, string> | undefined;
  for (const line of text.split("\n")) {
    if (/^\s*$/.test(line)) current = undefined;
    if (/^\s*(#|$)/.test(line)) continue;
    const [, type, id] = /^([A-Za-z0-9_-]+):\s*(\S+)\s*$/.exec(line) ?? [];
    if (type !== undefined && id !== undefined) {
      current = {};
      found.push({ type: type.toLowerCase(), id, options: current });
      continue;
    }
    const [, key, value = "1"] = /^\s+(\S+)(?:\s+(.*?))?\s*$/.exec(line) ?? [];
    if (key !== undefined && current !== undefined) current[key] = value;
  }
  return found;
}
