/** Volumes that another node, or an administrator, uses or changes. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Place } from "../support/place.ts";
import { both, holdOpen, NODES, runsElsewhere, zvolOf } from "./life_support.ts";
import { contentOf } from "./snapshot_support.ts";

both(
  "a disk whose zvol an administrator renamed is not unexported under a guest that runs elsewhere",
  async (place) => {
    const volname = await place.alloc();
    await runsElsewhere(place, 100, volname);
    await place.array((nas) =>
      nas.zvols.rename(zvolOf(place, "vm-100-disk-0"), zvolOf(place, "kept"))
    );
    const reply = await place.ask("free_image", { volname, finish: true });
    const { extents = [], namespaces = [] } = await place.objects();
    assertEquals([reply.ok, extents.length + namespaces.length], [false, 1]);
  },
);

both(
  "a disk that shrank in a rollback has its size on another node that had it attached",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("volume_snapshot_rollback", { volname, snapshot: "before" });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    assertEquals((await Deno.stat(place.linkOf(volname, "pve2"))).size, 64 << 20);
  },
  { nodes: NODES },
);

Deno.test("iscsi: a shrinking rollback that an administrator did in TrueNAS is told with its remedy", async () => {
  await using place = await Place.start("iscsi");
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  const snapshot = `${zvolOf(place, "vm-100-disk-0")}@before`;
  await place.array((nas) => nas.session.call("pool.snapshot.rollback", [snapshot, {}]));
  const reply = await place.ask("activate_volume", { volname });
  assertEquals(reply.error?.code, "host-fault");
  assertStringIncludes(reply.error?.hint ?? "", "switch the extent off and on");
});

both(
  "what forces a free forces neither a rollback nor a rename under a guest that runs elsewhere",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await runsElsewhere(place, 100, volname);
    const options = { config: { "tnb-force-free": 1 } };
    for (
      const [method, args] of [
        ["volume_snapshot_rollback", { volname, snapshot: "before" }],
        ["rename_volume", { volname, targetVmid: 200 }],
        ["create_base", { volname }],
      ] as const
    ) {
      const reply = await place.ask(method, args, options);
      assertEquals([method, reply.error?.code], [method, "in-use"]);
    }
  },
);

both(
  "a disk that one node rolls back while another one has it open is left alone",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await writeOn(place, volname, "pve2", "newer");
    await using _guest = await holdOpen(place, volname, "pve2");
    await runsElsewhere(place, 100, volname);
    const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "before" });
    assertEquals(reply.error?.code, "in-use");
    assertEquals(await contentOf(place, volname, 5, undefined, "pve2"), "newer");
  },
  { nodes: NODES },
);

async function writeOn(place: Place, volname: string, node: string, text: string) {
  await Deno.writeTextFile(place.linkOf(volname, node), text, { create: false });
}
