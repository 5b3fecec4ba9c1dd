/** The tasks of Proxmox VE that run on this node: the file of its active workers, and /proc. */
import type { Host } from "../host/host.ts";

/** Kept by every process that starts workers (pve-common, `PVE/INotify.pm`, `read_active_workers`). */
const ACTIVE = "/var/log/pve/tasks/active";

/** One task. */
export interface RunningTask {
  /** As PVE calls it: `qmigrate`, `vzdump`; `unknown` for a line that cannot be read. */
  readonly type: string;
  /** The guest's number, or what else it is about. */
  readonly id: string;
}

const LINE = /^(\S+)\s[01](?:\s([0-9A-Za-z]{8})(?:\s.*)?)?$/;
const UPID = /^UPID:[^:]+:([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):[0-9A-Fa-f]{8}:([^:\s]+):([^:\s]*):/;

/** Tasks that touch no volume: consoles, updates of packages, certificates. */
const HARMLESS = /^(?:vncproxy|vncshell|spiceproxy|spiceshell|termproxy|apt\w*|acme\w*)$/;

/** Reads the tasks that have not ended and whose process lives; those that touch no volume are left out. */
export async function runningTasks(host: Host): Promise<RunningTask[]> {
  const text = await host.files.readText(ACTIVE) ?? "";
  const found: RunningTask[] = [];
  for (const line of text.split("\n").filter((one) => one.trim() !== "")) {
    const [, upid, ended] = LINE.exec(line) ?? [];
    if (ended !== undefined) continue;
    const [, pid, start, type, id] = UPID.exec(upid ?? "") ?? [];
    if (pid === undefined || start === undefined || type === undefined) {
      found.push({ type: "unknown", id: line.slice(0, 80) });
    } else if (!HARMLESS.test(type) && await lives(host, parseInt(pid, 16), parseInt(start, 16))) {
      found.push({ type, id: id ?? "" });
    }
  }
  return found;
}

/** Whether the process is still the one that had this start time, in the kernel's ticks (proc(5), stat, field 22). */
async function lives(host: Host, pid: number, start: number): Promise<boolean> {
  const stat = await host.files.readText(`/proc/${pid}/stat`);
  if (stat === undefined) return false;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[19] === undefined || Number(fields[19]) === start;
}
