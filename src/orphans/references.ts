/** Who in the cluster's configuration names a volume: guests of all nodes, whatever the section, and what runs by the clock. */
import { type Host, HostError } from "../host/host.ts";
import { ownerOf } from "../pve/volume_name.ts";

/** What the configuration says. */
export interface References {
  /** By the zvol's name: the files that name it, as in `VM 100 on pve1`. */
  readonly byZvol: ReadonlyMap<string, readonly string[]>;
  /** By naa or uuid: the files in which it stands, as in a path of `/dev/disk/by-id`. */
  readonly byDisk: ReadonlyMap<string, readonly string[]>;
  /** Guests that an operation has locked, with what it is called: `migrate`. */
  readonly locked: ReadonlyMap<number, string>;
  /** What could not be read: whom that names is not known. */
  readonly unread: readonly string[];
}

const NODES = "/etc/pve/nodes";

/** Files of the cluster that may name volumes besides guests' own. */
const OTHER_FILES = [
  "/etc/pve/storage.cfg",
  "/etc/pve/jobs.cfg",
  "/etc/pve/replication.cfg",
  "/etc/pve/vzdump.cron",
  "/etc/pve/ha/resources.cfg",
] as const;

const FOLDERS = [["qemu-server", "VM"], ["lxc", "container"]] as const;

/** Files read at a time: pmxcfs answers them one after another anyway. */
const AT_ONCE = 16;

/**
 * Reads all of it. A volume is named wherever its id stands: in the present configuration, as an unused or
 * pending disk, in a snapshot's section, in a comment. Never throws: what cannot be read is told.
 *
 * @param storages ids under which the volumes are known: more than one while two sections share a dataset.
 */
export async function readReferences(
  host: Host,
  storages: readonly string[],
): Promise<References> {
  const unread: string[] = [];
  const byZvol = new Map<string, string[]>();
  const byDisk = new Map<string, string[]>();
  const locked = new Map<number, string>();
  const tolerant = async <T>(path: string, work: () => Promise<T | undefined>) => {
    try {
      return await work();
    } catch (error) {
      unread.push(`${path} (${error instanceof HostError ? error.code : String(error)})`);
      return undefined;
    }
  };
  const nodes = await tolerant(NODES, () => host.files.list(NODES));
  // Not there: pmxcfs is not mounted, which says nothing of guests.
  if (nodes === undefined && unread.length === 0) unread.push(`${NODES} (not there)`);
  const files: { path: string; who: string; vmid?: number }[] = OTHER_FILES.map((path) => ({
    path,
    who: path,
  }));
  for (const node of nodes ?? []) {
    for (const [folder, kind] of FOLDERS) {
      const path = `${NODES}/${node}/${folder}`;
      for (const name of await tolerant(path, () => host.files.list(path)) ?? []) {
        const vmid = /^([1-9][0-9]{0,8})\.conf/.exec(name)?.[1];
        if (vmid === undefined) continue;
        files.push({ path: `${path}/${name}`, who: `${kind} ${vmid} on ${node}`, vmid: +vmid });
      }
    }
  }
  for (let at = 0; at < files.length; at += AT_ONCE) {
    await Promise.all(
      files.slice(at, at + AT_ONCE).map(async ({ path, who, vmid }) => {
        const text = await tolerant(path, () => host.files.readText(path));
        if (text === undefined) return;
        const lock = vmid === undefined ? undefined : /^lock:\s*(\S+)/m.exec(text)?.[1];
        if (vmid !== undefined && lock !== undefined) locked.set(vmid, lock);
        for (const zvol of zvolsNamed(text, storages)) {
          byZvol.set(zvol, [...byZvol.get(zvol) ?? [], who]);
        }
        for (const disk of disksNamed(text)) byDisk.set(disk, [...byDisk.get(disk) ?? [], who]);
      }),
    );
  }
  return { byZvol, byDisk, locked, unread };
}

/**
 * The zvols that a text names as volumes of one of the storages, whatever number or uuid their names have, or by the
 * paths of their links.
 */
export function zvolsNamed(text: string, storages: readonly string[]): Set<string> {
  const ids = storages.map((id) => id.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  const volid = new RegExp(`(?<![A-Za-z0-9_.-])(?:${ids}):([^\\s,;"']+)`, "g");
  const found = new Set<string>();
  for (const [, volname = ""] of text.matchAll(volid)) {
    for (const part of volname.split("/")) {
      found.add(/^vol-(.+)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(part)?.[1] ?? part);
    }
  }
  const path = new RegExp(`/dev/tnblock/(?:${ids})/([A-Za-z0-9:_.-]+)`, "g");
  for (const [, zvol = ""] of text.matchAll(path)) found.add(zvol);
  return found;
}

/** What may be an naa or the uuid of a namespace in a text; before an naa may stand a digit of the path's own. */
export function disksNamed(text: string): Set<string> {
  const found = new Set<string>();
  for (const [uuid] of text.matchAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/gi)) {
    found.add(uuid.toLowerCase());
  }
  for (const [digits] of text.matchAll(/[0-9a-f]{32,}/gi)) {
    found.add(digits.slice(0, 32).toLowerCase()).add(digits.slice(-32).toLowerCase());
  }
  return found;
}

/** The lock on the guest that a zvol's name belongs to; undefined when there is none. */
export function lockOf(references: References, zvol: string): string | undefined {
  const vmid = ownerOf(zvol);
  return vmid === undefined ? undefined : references.locked.get(vmid);
}
