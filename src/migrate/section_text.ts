/** A section of storage.cfg as text: found where it stands, read, and written. */

/** A section as it stands in the file. */
export interface SectionText {
  readonly type: string;
  readonly id: string;
  /** From its heading to the line feed of its last line; nothing of it is left out. */
  readonly text: string;
  /** As Proxmox VE reads it; flags as `1`. */
  readonly options: Readonly<Record<string, string>>;
}

const HEADING = /^([A-Za-z0-9_-]+):\s*(\S+)\s*$/;

/** All sections, in the file's order. The form is PVE's SectionConfig, as in `src/pve/storage_cfg.ts`. */
export function sectionTexts(text: string): SectionText[] {
  const found: { type: string; id: string; text: string; options: Record<string, string> }[] = [];
  let current: typeof found[number] | undefined;
  for (const line of text.split(/(?<=\n)/)) {
    if (/^\s*$/.test(line)) {
      current = undefined;
      continue;
    }
    const [, type, id] = HEADING.exec(line.trimEnd()) ?? [];
    if (type !== undefined && id !== undefined) {
      current = { type, id, text: line, options: {} };
      found.push(current);
      continue;
    }
    if (current === undefined) continue;
    current.text += line;
    if (/^\s*#/.test(line)) continue;
    const [, key, value] = /^\s+(\S+)(?:\s+(.*))?$/.exec(line.trimEnd()) ?? [];
    if (key !== undefined) current.options[key] = value ?? "1";
  }
  return found;
}

/** Writes one. */
export function sectionText(
  type: string,
  id: string,
  options: Readonly<Record<string, string>>,
): string {
  const lines = Object.entries(options).map(([key, value]) => `\t${key} ${value}\n`);
  return `${type}: ${id}\n${lines.join("")}`;
}

/** Whether two sections say the same, in whatever order. */
export function sameOptions(
  one: Readonly<Record<string, string>>,
  other: Readonly<Record<string, string>>,
): boolean {
  // Proxmox VE writes lists again in an order of its own.
  const plain = (options: Readonly<Record<string, string>>) =>
    JSON.stringify(
      Object.entries(options).map(([key, value]) => [
        key,
        ["content", "nodes"].includes(key) ? value.split(",").sort().join(",") : value,
      ]).sort(),
    );
  return plain(one) === plain(other);
}
