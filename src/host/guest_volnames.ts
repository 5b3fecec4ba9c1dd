/**
 * All volumes of a storage that any guest's configuration names, on any node: present, pending and unused ones, and
 * those that snapshots keep. pmxcfs shows the configurations of all nodes everywhere.
 */
import { sectionsNaming } from "./guest_configs.ts";
import type { Host } from "./host.ts";

/** What configurations name. */
export interface GuestVolnames {
  /** As they stand there, without the storage's id; of linked clones `<base>/<clone>`. */
  readonly volnames: ReadonlySet<string>;
  /** Files and folders that could not be read: what they name is not known. */
  readonly unread: readonly string[];
}

const NODES = "/etc/pve/nodes";

/** Files read at a time: pmxcfs answers them one after another anyway. */
const AT_ONCE = 16;

/** Reads all configurations. Never throws: what cannot be read is told. */
export async function guestVolnames(host: Host, storage: string): Promise<GuestVolnames> {
  const volnames = new Set<string>();
  const unread: string[] = [];
  const tolerant = async <T>(path: string, read: () => Promise<T | undefined>) => {
    try {
      return await read();
    } catch {
      unread.push(path);
      return undefined;
    }
  };
  const nodes = await tolerant(NODES, () => host.files.list(NODES));
  // Not there: pmxcfs is not mounted, which says nothing of guests.
  if (nodes === undefined && unread.length === 0) unread.push(NODES);
  const folders = (nodes ?? []).flatMap((node) => [
    `${NODES}/${node}/qemu-server`,
    `${NODES}/${node}/lxc`,
  ]);
  const lists = await Promise.all(folders.map(async (folder) => {
    const names = await tolerant(folder, () => host.files.list(folder)) ?? [];
    return names.filter((name) => /^[1-9][0-9]*\.conf$/.test(name)).map((name) =>
      `${folder}/${name}`
    );
  }));
  const files = lists.flat();
  for (let at = 0; at < files.length; at += AT_ONCE) {
    await Promise.all(
      files.slice(at, at + AT_ONCE).map(async (path) => {
        const text = await tolerant(path, () => host.files.readText(path));
        if (text === undefined) return;
        sectionsNaming(text, storage, (volname) => {
          volnames.add(volname);
          return false;
        });
      }),
    );
  }
  return { volnames, unread };
}
