/** What the nodes of a cluster last told of their guests: the lines of `/etc/pve/.rrd`. */
import type { Host } from "./host.ts";

/** Whether a guest runs, by its number; one that no node told of is missing. */
export type GuestStates = ReadonlyMap<number, boolean | "unknown">;

const FILE = "/etc/pve/.rrd";

/**
 * Seconds after which what was told of a guest says nothing any more. Every node's pvestatd tells every 10 s;
 * pmxcfs drops a line after 5 minutes (`cfs_rrd_dump`, pve-cluster, status.c).
 */
const STALE_S = 60;

/** Reads what is known of all guests; empty when the file is not there. */
export async function readGuestStates(host: Host): Promise<GuestStates> {
  const text = await host.files.readText(FILE);
  return text === undefined ? new Map() : parseGuestStates(text, host.now() / 1000);
}

/**
 * Reads the lines of guests; those of nodes and storages are passed over.
 *
 * ```text
 * pve2.3-vm/100:86400:web:running:0:1763769600:4:0.02:4294967296:1073741824:...
 * pve-vm-9.0/101:0:db:stopped:0:1763769600:2:U:2147483648:U:...
 * ```
 *
 * Fields: uptime, name, status, template, time of the telling node. The status is `stopped`, or what
 * QEMU says (`running`, `paused`, `prelaunch` ...): everything but `stopped` has a process.
 * Source: `update_qemu_status` and `update_lxc_status` (pve-manager, pvestatd.pm).
 *
 * @param nowS seconds since the epoch; what was told long before or after is `"unknown"`.
 */
export function parseGuestStates(text: string, nowS: number): GuestStates {
  const states = new Map<number, boolean | "unknown">();
  const times = new Map<number, number>();
  // The text ends with a zero byte.
  for (const line of text.replaceAll("\0", "").split("\n")) {
    const [key = "", , , status = "", , time = ""] = line.split(":");
    const id = /^pve(?:2\.3-vm|-vm-[0-9.]+)\/([1-9][0-9]{0,8})$/.exec(key)?.[1];
    if (id === undefined || status === "" || !/^[0-9]+$/.test(time)) continue;
    const vmid = Number(id);
    // While nodes are upgraded a guest may have a line of either form: the later one counts.
    if ((times.get(vmid) ?? -1) > Number(time)) continue;
    times.set(vmid, Number(time));
    const isFresh = Math.abs(nowS - Number(time)) <= STALE_S;
    states.set(vmid, isFresh && status !== "unknown" ? status !== "stopped" : "unknown");
  }
  return states;
}
