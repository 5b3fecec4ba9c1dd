/**
 * Reads our sections of `/etc/pve/storage.cfg`, for those who act without being asked by PVE: the daemon,
 * and tools. The format is PVE's SectionConfig (`PVE/SectionConfig.pm`): a line `type: id`, then lines
 * that begin with blanks and hold a key and, unless it is a flag, a value.
 */
import type { HostFiles } from "../host/host.ts";

/** PVE's own file; it is there as soon as the file system of the cluster is. */
export const STORAGE_CFG = "/etc/pve/storage.cfg";

/** A section of type `tnblock`, its values as they stand in the file. */
export interface StorageSection {
  readonly id: string;
  /** As the `config` of a request: `type` included, flags as `1`. */
  readonly config: Readonly<Record<string, string>>;
}

/**
 * All `tnblock` sections, in the file's order. A line that is no line of such a file is passed over, as
 * PVE does; of two sections with one id the first counts.
 */
export function parseStorageCfg(text: string): StorageSection[] {
  const found = new Map<string, StorageSection>();
  let current: Record<string, string> | undefined;
  for (const line of text.split("\n")) {
    if (/^\s*(#|$)/.test(line)) {
      // Only an empty line ends a section; a comment does not.
      if (/^\s*$/.test(line)) current = undefined;
      continue;
    }
    const header = /^([A-Za-z0-9_-]+):\s*(\S+)\s*$/.exec(line);
    if (header !== null) {
      const [, type, id] = header;
      current = undefined;
      if (type !== "tnblock" || id === undefined || found.has(id)) continue;
      current = { type };
      found.set(id, { id, config: current });
      continue;
    }
    const option = /^\s+(\S+)(?:\s+(.*?))?\s*$/.exec(line);
    if (option?.[1] !== undefined && current !== undefined) current[option[1]] = option[2] ?? "1";
  }
  return [...found.values()];
}

/** Our sections that are enabled on a node; none when there is no such file. */
export async function readSections(files: HostFiles, node: string): Promise<StorageSection[]> {
  const text = await files.readText(STORAGE_CFG);
  if (text === undefined) return [];
  return parseStorageCfg(text).filter(({ config }) => isEnabled(config, node));
}

function isEnabled(config: Readonly<Record<string, string>>, node: string): boolean {
  if (config["disable"] !== undefined && config["disable"] !== "0") return false;
  const nodes = config["nodes"]?.split(",").map((name) => name.trim()).filter((name) =>
    name !== ""
  );
  return nodes === undefined || nodes.length === 0 || nodes.includes(node);
}
