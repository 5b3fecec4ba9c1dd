/**
 * Which guests of the cluster name a volume in their configuration, and whether they run: pmxcfs shows the
 * configurations of all nodes everywhere. A guard and no proof: what another node last told of a guest is up
 * to seconds old, and a process that no configuration knows is not seen at all.
 */
import type { Host } from "./host.ts";
import { type GuestStates, readGuestStates } from "./guest_states.ts";

/** What is looked for. */
export interface GuestSearch {
  /** PVE's storage id: a configuration names volumes as `<storage>:<volname>`. */
  readonly storage: string;
  /** What every name of the volume contains: a file without it is not read further. */
  readonly contains: string;
  /** Whether a volname means the volume; linked clones come as `<base>/<clone>`. */
  readonly isMeant: (volname: string) => boolean;
  /** The node whose guests are left out. */
  readonly exceptNode: string;
}

/** A guest whose configuration names the volume. */
export interface NamingGuest {
  readonly vmid: number;
  readonly node: string;
  readonly kind: "qemu" | "lxc";
  /** The snapshots that name it; empty when only the present configuration does. */
  readonly snapshots: readonly string[];
  /** Whether the present configuration names it: disks, unused ones, pending changes, fleecing. */
  readonly now: boolean;
  readonly running: boolean | "unknown";
}

/** What was found, and what could not be looked at. */
export interface FoundGuests {
  readonly guests: readonly NamingGuest[];
  /** Paths that could not be read, with the reason; the files of these guests were not looked at. */
  readonly unread: readonly string[];
}

const NODES = "/etc/pve/nodes";

const FOLDERS = [["qemu-server", "qemu"], ["lxc", "lxc"]] as const;

/** Files read at a time: pmxcfs answers them one after another anyway. */
const AT_ONCE = 16;

/** A configuration file. */
interface ConfigFile {
  readonly path: string;
  readonly vmid: number;
  readonly node: string;
  readonly kind: "qemu" | "lxc";
}

/** Finds the guests of other nodes that name a volume. Never throws: what cannot be read is told. */
export async function findGuests(host: Host, search: GuestSearch): Promise<FoundGuests> {
  const unread: string[] = [];
  const tolerant = async <T>(path: string, read: () => Promise<T | undefined>) => {
    try {
      return await read();
    } catch (error) {
      unread.push(`${path} (${error instanceof Error ? error.message : String(error)})`);
      return undefined;
    }
  };
  const files = await listConfigs(host, search.exceptNode, tolerant);
  const found: Omit<NamingGuest, "running">[] = [];
  for (let at = 0; at < files.length; at += AT_ONCE) {
    await Promise.all(
      files.slice(at, at + AT_ONCE).map(async ({ path, vmid, node, kind }) => {
        const text = await tolerant(path, () => host.files.readText(path));
        if (text === undefined || !text.includes(search.contains)) return;
        const sections = sectionsNaming(text, search.storage, search.isMeant);
        if (sections.length === 0) return;
        const snapshots = sections.filter((section) => section !== NOW);
        found.push({ vmid, node, kind, snapshots, now: sections.includes(NOW) });
      }),
    );
  }
  if (found.length === 0) return { guests: [], unread };
  const states: GuestStates = await tolerant("/etc/pve/.rrd", () => readGuestStates(host)) ??
    new Map();
  const guests = found
    .map((guest) => ({ ...guest, running: states.get(guest.vmid) ?? "unknown" as const }))
    .sort((a, b) => a.vmid - b.vmid);
  return { guests, unread };
}

async function listConfigs(
  host: Host,
  exceptNode: string,
  tolerant: <T>(path: string, read: () => Promise<T | undefined>) => Promise<T | undefined>,
): Promise<ConfigFile[]> {
  const nodes = await tolerant(NODES, () => host.files.list(NODES)) ?? [];
  const folders = nodes.filter((node) => node !== exceptNode).flatMap((node) =>
    FOLDERS.map(([folder, kind]) => ({ path: `${NODES}/${node}/${folder}`, node, kind }))
  );
  const lists = await Promise.all(
    folders.map(async ({ path, node, kind }) => {
      const names = await tolerant(path, () => host.files.list(path)) ?? [];
      return names.flatMap((name) => {
        const vmid = /^([1-9][0-9]{0,8})\.conf$/.exec(name)?.[1];
        return vmid === undefined
          ? []
          : [{ path: `${path}/${name}`, vmid: Number(vmid), node, kind }];
      });
    }),
  );
  return lists.flat();
}

/** What {@link sectionsNaming} calls everything that is no snapshot; no snapshot can have this name. */
export const NOW = "";

/**
 * The sections of a guest's configuration that name the volume: {@link NOW} for the present
 * configuration with its pending changes and fleecing images, else a snapshot's name.
 *
 * ```text
 * #a comment: san:vol-vm-100-disk-0-lun5
 * scsi0: san:vol-vm-100-disk-0-lun5,size=32G
 * ide2: san:vm-100-cloudinit,media=cdrom
 * unused0: san:vol-vm-100-disk-1-lun7
 *
 * [before]
 * scsi0: san:vol-vm-100-disk-0-lun5,size=32G
 * vmstate: san:vol-vm-100-state-before-lun9
 *
 * [special:fleecing]
 * fleecing-images: san:vol-vm-100-fleece-0-lun3
 * ```
 *
 * Source of the form: `parse_vm_config` (qemu-server, QemuServer.pm), `parse_pct_config` (pve-container).
 */
export function sectionsNaming(
  text: string,
  storage: string,
  isMeant: (volname: string) => boolean,
): string[] {
  const found = new Set<string>();
  let section = NOW;
  for (const line of text.split("\n")) {
    const heading = /^\[([^\]]*)\]\s*$/.exec(line)?.[1];
    if (heading !== undefined) {
      // A pending disk is the guest's too; sections with a colon are no snapshots.
      section = /^(?:pending|pve:.*|special:.*)$/i.test(heading) ? NOW : heading;
      continue;
    }
    const value = /^[a-z][a-z0-9_-]*:\s*(\S.*?)\s*$/i.exec(line)?.[1];
    if (value === undefined) continue;
    for (const part of value.split(/[,;\s]+/)) {
      const volid = part.replace(/^(?:file|volume)=/, "");
      if (!volid.startsWith(`${storage}:`)) continue;
      if (isMeant(volid.slice(storage.length + 1))) found.add(section);
    }
  }
  return [...found];
}
