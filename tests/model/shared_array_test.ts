import { assertEquals } from "@std/assert";
import { World } from "./world.ts";

Deno.test("what one node writes the other reads, and a snapshot keeps what was there before", async () => {
  await using world = await World.start("nvme-tcp", "25.10");
  const { place } = world;
  const volname = await place.alloc(100, 1024);
  const text = async (node: string) => (await place.beginning(volname, node)).slice(0, 3);
  for (const node of ["pve1", "pve2"]) await place.must("activate_volume", { volname }, { node });
  const write = (node: string, what: string) =>
    Deno.writeTextFile(place.linkOf(volname, node), what.padEnd(1 << 20, "\0"));
  await write("pve1", "one");
  assertEquals(await text("pve2"), "one");
  await place.array((nas) => nas.snapshots.create("tank/pve/vm-100-disk-0", "kept"));
  await write("pve2", "two");
  assertEquals(await text("pve1"), "two");
});
