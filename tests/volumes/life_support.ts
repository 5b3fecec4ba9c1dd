/** What the tests about a volume's whole life share: places, guests on other nodes, and stopped renames. */
import { assertEquals } from "@std/assert";
import type { Place } from "../support/place.ts";
import { zvolNames } from "./snapshot_support.ts";

export { both } from "../support/both.ts";

/** A cluster of two. */
export const NODES = ["pve1", "pve2"];

/** Puts a guest that runs on the second node into the cluster's configurations. */
export async function runsElsewhere(place: Place, vmid: number, volname: string): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    const folder = `${directory}/etc/pve/nodes/pve2/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/${vmid}.conf`, `scsi0: san:${volname},size=64M\n`);
    const now = Math.floor(Date.now() / 1000);
    await Deno.writeTextFile(
      `${directory}/etc/pve/.rrd`,
      `pve-vm-9.0/${vmid}:3600:web:running:0:${now}:4:0:1:1\n`,
    );
  }
}

/** Full path of a zvol. */
export const zvolOf = (place: Place, name: string) => `${place.simulator.ready.dataset}/${name}`;

/** Names of all zvols but the weight. */
export async function zvolNamesOf(place: Place): Promise<string[]> {
  return (await zvolNames(place)).filter((name) => !name.startsWith("tnb-weight-"));
}

/** The identities of all exports. */
export const exports = async (place: Place) => {
  const { extents = [], namespaces = [] } = await place.objects();
  return [...extents.map((row) => row.naa), ...namespaces.map((row) => row.device_uuid)];
};

/** Stops a rename as a kill would, with the zvol at its new path and the export at the old one. */
export async function stopRename(place: Place, volname: string, targetVmid: number): Promise<void> {
  const point = place.transport === "iscsi" ? "iscsi.extent.update" : "nvmet.namespace.update";
  await place.faults([
    { method: point, nth: place.transport === "iscsi" ? 1 : 2, do: "error", errno: 5 },
    { method: "pool.dataset.rename", nth: 2, do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("rename_volume", { volname, targetVmid })).ok, false);
  await place.faults([]);
  assertEquals(await zvolNamesOf(place), [`vm-${targetVmid}-disk-0`]);
}

/** Plays a process of a node that has the volume open. */
export async function holdOpen(
  place: Place,
  volname: string,
  node: string,
): Promise<AsyncDisposable> {
  const root = place.node(node).directory;
  const device = await Deno.realPath(place.linkOf(volname, node));
  const proc = `${root}/proc/4711`;
  await Deno.mkdir(`${proc}/fd`, { recursive: true });
  await Deno.writeTextFile(`${proc}/comm`, "qemu-system-x86\n");
  await Deno.symlink(device.slice((await Deno.realPath(root)).length), `${proc}/fd/12`);
  return {
    [Symbol.asyncDispose]: async () => await Deno.remove(proc, { recursive: true }),
  };
}
