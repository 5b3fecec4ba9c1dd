/** A node of a place that loses power, or is booted anew. */
import { linuxHost } from "../../src/host/linux.ts";
import type { Place } from "../support/place.ts";

/** Puts a volume into the configuration of a guest of the first node, as all nodes see it; a volid's rest. */
export async function configure(place: Place, vmid: number, volname: string): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    const folder = `${directory}/etc/pve/nodes/pve1/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/${vmid}.conf`, `scsi0: san:${volname},size=64M\n`);
  }
}

/** Takes a guest's configuration away. */
export async function unconfigure(place: Place, vmid: number): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    await Deno.remove(`${directory}/etc/pve/nodes/pve1/qemu-server/${vmid}.conf`);
  }
}

/**
 * Boots the first node anew, as tnblock sees it: no session, no controller, no link, nothing below /run; /etc and
 * /var stay. Its daemon, if it has one, must have been stopped.
 */
export async function reboot(place: Place): Promise<void> {
  const root = place.directory;
  const host = linuxHost({ root });
  const bounds = { deadlineMs: 5_000 };
  for (const iqn of await host.files.list("/var/lib/iscsi/nodes") ?? []) {
    for (const portal of await host.files.list(`/var/lib/iscsi/nodes/${iqn}`) ?? []) {
      const [address, ...port] = portal.split(",");
      const args = ["-m", "node", "-T", iqn, "-p", `${address}:${port.join(",")}`, "--logout"];
      await host.run("/usr/sbin/iscsiadm", args, bounds);
    }
  }
  for (const name of await host.files.list("/sys/class/nvme") ?? []) {
    await host.files.writeControl(`/sys/class/nvme/${name}/delete_controller`, "1\n", bounds);
  }
  for (const folder of ["run/tnblock", "dev/tnblock"]) {
    await Deno.remove(`${root}/${folder}`, { recursive: true }).catch(() => {});
  }
  const left = [
    ...await host.files.list("/sys/class/nvme") ?? [],
    ...await host.files.list("/sys/class/iscsi_session") ?? [],
  ];
  if (left.length > 0) throw new Error(`the node still has ${left.join(", ")}`);
}

/** Has the other node do something to the volume of guest 100, which would not be let while its configuration is here. */
export async function elsewhere<T>(
  place: Place,
  volname: string,
  work: (options: { readonly node: string }) => Promise<T>,
): Promise<T> {
  await unconfigure(place, 100);
  const result = await work({ node: "pve2" });
  await configure(place, 100, volname);
  return result;
}

/** What is kept of volumes on the first node for when the API is away: their names. */
export async function keptNames(place: Place, root = place.directory): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(`${root}/var/lib/tnblock/.verified/san`)) {
      names.push(name.replace(/\.json$/, ""));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}
