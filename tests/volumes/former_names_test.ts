/** Names that a volume had once, and what bears them today, on nodes that know the former one. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { Place } from "../support/place.ts";
import { both, holdOpen, NODES, runsElsewhere, zvolNamesOf } from "./life_support.ts";

/** Where a volume's link leads on a node. */
const target = (place: Place, volname: string, node: string) =>
  Deno.realPath(place.linkOf(volname, node));

/** The multipath maps that a node has, by their WWID. */
async function mapsOf(place: Place, node: string): Promise<string[]> {
  const block = `${place.node(node).directory}/sys/block`;
  const found: string[] = [];
  for await (const { name } of Deno.readDir(block)) {
    if (!name.startsWith("dm-")) continue;
    found.push((await Deno.readTextFile(`${block}/${name}/dm/uuid`)).trim());
  }
  return found.sort();
}

both(
  "the name that a volume had before it was reassigned reaches it no more",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    // Guest 100's configuration comes back from a backup and names the disk still.
    for (
      const [method, args] of [
        ["rename_volume", { volname, targetVmid: 300 }],
        ["create_base", { volname }],
      ] as const
    ) {
      const reply = await place.ask(method, args);
      assertEquals([method, reply.ok], [method, false]);
      assertEquals(await zvolNamesOf(place), ["vm-200-disk-0"]);
    }
    await place.must("activate_volume", { volname: renamed });
  },
);

both(
  "a disk is not renamed by a former name while its guest runs on another node",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await runsElsewhere(place, 200, renamed);
    const reply = await place.ask("rename_volume", { volname, targetVmid: 300 });
    assertEquals(reply.ok, false);
    assertEquals(await zvolNamesOf(place), ["vm-200-disk-0"]);
  },
);

both(
  "a cloud-init volume that was reassigned is not what its name means on a node that had it attached",
  async (place) => {
    const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.alloc(100, 4096, "vm-100-cloudinit");
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("activate_volume", { volname: "vm-200-cloudinit" }, { node: "pve2" });
    const former = await target(place, "vm-200-cloudinit", "pve2");
    assertNotEquals(await target(place, volname, "pve2"), former);
  },
  { nodes: NODES },
);

both(
  "what a crashed node knew of a reassigned disk does not keep the old name's new disk from starting",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname }, { node: "pve2" });
    // The node dies and comes back: its links are gone, what it keeps on its disk is not.
    await Deno.remove(place.linkOf(volname, "pve2"));
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed }, { node: "pve2" });
    await using _guest = await holdOpen(place, renamed, "pve2");
    const today = await place.alloc(100, 65536, "vm-100-disk-0");
    await place.must("activate_volume", { volname: today }, { node: "pve2" });
    await place.must("deactivate_volume", { volname: today }, { node: "pve2" });
    await place.must("free_image", { volname: today, finish: true }, { node: "pve2" });
  },
  { nodes: NODES },
);

both(
  "letting a new disk of a former name in does not take the renamed one's paths away",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await Deno.remove(place.linkOf(volname, "pve2"));
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed }, { node: "pve2" });
    const today = await place.alloc(100, 65536, "vm-100-disk-0");
    await place.must("activate_volume", { volname: today }, { node: "pve2" });
    // Guest 200 is about to be started: its disk was activated a moment ago.
    await Deno.stat(place.linkOf(renamed, "pve2"));
  },
  { nodes: NODES },
);

Deno.test("iscsi: a cloud-init volume made anew leaves no map of the old one on a node", async () => {
  await using place = await Place.start("iscsi", { release: "25.10", nodes: NODES });
  const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
  const config = { "tnb-use-multipath": 1 };
  await place.must("activate_volume", { volname }, { node: "pve2", config });
  const before = await mapsOf(place, "pve2");
  assertEquals(before.length, 1);
  await place.must("free_image", { volname, finish: true });
  await place.alloc(100, 4096, "vm-100-cloudinit");
  await place.must("activate_volume", { volname }, { node: "pve2", config });
  const after = await mapsOf(place, "pve2");
  assertEquals(after.length, 1);
  assertNotEquals(after, before);
});

both("names at their limits live a whole life", async (place) => {
  const name = `vm-999999999-A${"b:_.-c0Z9".repeat(7).slice(0, 60)}`;
  const snapshot = `s${"n".repeat(39)}`;
  const volname = await place.alloc(999999999, 1024, name);
  await place.must("activate_volume", { volname });
  await place.must("volume_snapshot", { volname, snapshot });
  await place.must("activate_volume", { volname, snapshot });
  await place.must("deactivate_volume", { volname, snapshot });
  await place.must("volume_snapshot_delete", { volname, snapshot });
  const base = await place.must("create_base", { volname });
  const clone = await place.must("clone_image", { volname: base, vmid: 999999998 });
  for (const own of [clone, base]) {
    await place.must("activate_volume", { volname: own });
    await place.must("free_image", { volname: own, finish: true });
  }
  assertEquals(await zvolNamesOf(place), []);
});
