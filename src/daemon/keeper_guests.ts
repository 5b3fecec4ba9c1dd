/**
 * Whether PVE is about to use a guest's volumes though nobody has them open: a task of it may have activated all
 * of them at once, and come to the last one hours later (a clone of several disks), or be about to start it.
 */
import type { HostFiles } from "../host/host.ts";

/** Tasks without a guest in their name that may work on any guest's volumes. */
const OF_ANY = ["vzdump"];

/**
 * Whether the guest runs as a virtual machine here, or a task of it does: a worker of PVE is called
 * `task UPID:<node>:<pid>:<start>:<time>:<type>:<guest>:<user>:` (`PVE/RESTEnvironment.pm`, `fork_worker`), and a
 * machine that runs has its process in `/run/qemu-server/<guest>.pid` (`PVE/QemuServer/Helpers.pm`).
 */
export async function isGuestBusy(files: HostFiles, vmid: number): Promise<boolean> {
  const pid = (await files.readText(`/run/qemu-server/${vmid}.pid`))?.trim();
  if (pid !== undefined && /^\d+$/.test(pid) && await files.list(`/proc/${pid}`) !== undefined) {
    return true;
  }
  for (const name of await files.list("/proc") ?? []) {
    if (!/^\d+$/.test(name)) continue;
    // Processes end while they are looked at.
    const text = await files.readText(`/proc/${name}/cmdline`).catch(() => undefined);
    if (text !== undefined && isTaskOf(vmid, text)) return true;
  }
  return false;
}

/** Whether a process of this command line is a task that may work on the guest's volumes. */
export function isTaskOf(vmid: number, commandLine: string): boolean {
  const upid = /^task UPID:([^\0 ]+)/.exec(commandLine)?.[1]?.split(":");
  if (upid === undefined) return false;
  const [type, guest] = [upid[4] ?? "", upid[5] ?? ""];
  return guest === String(vmid) || (guest === "" && OF_ANY.includes(type));
}
