/** Verbs that were killed half-way, and what may be done with the volume then. */
import { assert, assertEquals } from "@std/assert";
import { readingName } from "../../src/volumes/reading.ts";
import type { Storage } from "../../src/volumes/storage.ts";
import { Place } from "../support/place.ts";
import { both, exports, stopRename, zvolNamesOf, zvolOf } from "./life_support.ts";
import { contentOf, writeContent } from "./snapshot_support.ts";

both(
  "a template whose making was killed before the old snapshot went has none of the old content",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "old");
    await place.array((nas) => nas.snapshots.create(zvolOf(place, "vm-100-disk-0"), "__base__"));
    await writeContent(place, volname, "new");
    // Killed when disk and export have their new name, and nothing can be taken back.
    await place.faults([
      { method: "pool.snapshot.delete", do: "cut" },
      { method: "nvmet.namespace.update", nth: 3, do: "error", errno: 5 },
      { method: "pool.dataset.rename", nth: 2, do: "error", errno: 5 },
    ]);
    assertEquals((await place.ask("create_base", { volname })).ok, false);
    await place.faults([]);
    const base = await place.must("create_base", { volname });
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    await place.must("activate_volume", { volname: clone });
    assertEquals(await contentOf(place, clone, 3), "new");
  },
);

both(
  "a node that was killed between making and marking its clone reads the snapshot at the next try",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "vzdump" });
    const storage = { node: "pve1", settings: { dataset: place.simulator.ready.dataset } };
    const name = readingName(storage as Storage, "vm-100-disk-0", "vzdump");
    await place.array((nas) =>
      nas.snapshots.clone(`${zvolOf(place, "vm-100-disk-0")}@vzdump`, zvolOf(place, name))
    );
    // PVE deletes what a backup left before it makes the next one.
    await place.must("activate_volume", { volname, snapshot: "vzdump" });
    await place.must("volume_snapshot_delete", { volname, snapshot: "vzdump" });
    assertEquals(await zvolNamesOf(place), ["vm-100-disk-0"]);
  },
  { release: "26" },
);

both(
  "a new volume does not take the export of one whose rename was killed half-way",
  async (place) => {
    const volname = await place.alloc();
    await stopRename(place, volname, 200);
    const [identity] = await exports(place);
    for (const name of [null, "vm-100-disk-0"]) {
      await place.ask("alloc_image", { vmid: 100, format: "raw", name, sizeKiB: 1024 });
      assert((await exports(place)).includes(identity), `alloc of ${name}`);
    }
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed });
  },
);

both(
  "freeing by the old name what was half renamed frees the zvol, or says that it does not",
  async (place) => {
    const volname = await place.alloc();
    await stopRename(place, volname, 200);
    const reply = await place.ask("free_image", { volname, finish: true });
    assertEquals(
      [reply.ok, await zvolNamesOf(place), (await exports(place)).length],
      reply.ok ? [true, [], 0] : [false, ["vm-200-disk-0"], 1],
    );
  },
);

both(
  "a snapshot of a half renamed volume is not called gone while it is there",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await stopRename(place, volname, 200);
    const reply = await place.ask("volume_snapshot_delete", { volname, snapshot: "before" });
    const left = (await place.objects()).snapshots?.length ?? 0;
    assertEquals(reply.ok, left === 0);
  },
);

Deno.test("nvme-tcp: a volume starts under its old name after its rename was killed before the zvol's own", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const volname = await place.alloc();
  await place.faults([
    { method: "pool.dataset.rename", nth: 1, do: "error", errno: 5 },
    { method: "nvmet.namespace.update", nth: 2, do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("rename_volume", { volname, targetVmid: 200 })).ok, false);
  await place.faults([]);
  await place.must("activate_volume", { volname });
});

both("what is listed after a rename was killed half-way can be activated", async (place) => {
  await stopRename(place, await place.alloc(), 200);
  for (const { volid } of await place.must("list_images")) {
    await place.must("activate_volume", { volname: volid.slice("san:".length) });
  }
});

Deno.test("iscsi: a rollback that was killed with the extent off leaves it on after its repetition", async () => {
  await using place = await Place.start("iscsi", { release: "25.10" });
  const volname = await place.alloc();
  const rollback = { volname, snapshot: "before" };
  await place.must("volume_snapshot", rollback);
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  await place.faults([{ method: "iscsi.extent.update", nth: 2, do: "error", errno: 5 }]);
  assertEquals((await place.ask("volume_snapshot_rollback", rollback)).ok, false);
  await place.faults([]);
  await place.must("volume_snapshot_rollback", rollback);
  await place.must("activate_volume", { volname });
});
