/** The other TrueNAS plugins of a node, and how they and tnblock live side by side. */
import type { Section } from "./storage_sections.ts";

/** The types of other TrueNAS plugins: truenas-proxmox-plugin, and proxmox-truenas. */
const TYPES = ["truenasplugin", "truenas"];

/** Another plugin that is there. */
export interface Neighbour {
  readonly type: string;
  /** Its files in Proxmox VE's folder of custom plugins. */
  readonly files: readonly string[];
  /** Its storages. */
  readonly storages: readonly string[];
}

/**
 * Other TrueNAS plugins.
 *
 * @param plugins texts of the custom plugins by their file names, ours excluded.
 */
export function findNeighbours(
  plugins: Readonly<Record<string, string>>,
  sections: readonly Section[],
): Neighbour[] {
  return TYPES.map((type) => ({
    type,
    files: Object.entries(plugins)
      // sub type { return 'truenasplugin'; }
      .filter(([, text]) =>
        new RegExp(`sub\\s+type\\s*(\\(\\)\\s*)?\\{[^}]*['"]${type}['"]`).test(text)
      )
      .map(([name]) => name),
    storages: sections.filter((section) => section.type === type).map(({ id }) => id),
  })).filter(({ files, storages }) => files.length + storages.length > 0);
}

/** What is said about one. */
export function describeNeighbour({ type, files, storages }: Neighbour): string {
  const what = [
    files.length > 0 ? files.join(", ") : "no file of it is here",
    storages.length > 0 ? `storages ${storages.join(", ")}` : "no storage",
  ].join("; ");
  const advice = type === "truenasplugin" && storages.length > 0
    ? ", or move one over with tnblock migrate"
    : "";
  return `The plugin "${type}" is here too (${what}). Both work side by side: types and options have names of ` +
    `their own. Give a dataset, target or subsystem to one of them only${advice}.`;
}
