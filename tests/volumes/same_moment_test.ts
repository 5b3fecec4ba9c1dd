/** Two that do something about one volume at the same moment, with every reply held where it hurts most. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { beginOn, pmxcfsHost } from "./cluster_support.ts";
import { both, exports, NODES, runsElsewhere, zvolNamesOf, zvolOf } from "./life_support.ts";
import { contentOf, writeContent } from "./snapshot_support.ts";

both(
  "a rollback that its caller gave up is not repeated under a guest that another node has started",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "old");
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    place.calls.length = 0;
    await place.must("volume_snapshot_rollback", { volname, snapshot: "before" });
    const method = "pool.snapshot.query";
    const looks = place.calls.filter((call) => call === method).length;
    await place.must("deactivate_volume", { volname });
    // The array rolls back, its answer is lost, and it is slow for a while after.
    await place.faults([
      { method: "pool.snapshot.rollback", nth: 1, do: "done-then-drop" },
      { method, nth: looks + 1, do: "hold" },
    ]);
    const late = place.begin("volume_snapshot_rollback", { volname, snapshot: "before" });
    await place.held(method);
    late.giveUp();
    assertEquals((await late.reply).error?.code, "timeout");
    // PVE has told the user, who starts the guest on the other node.
    await runsElsewhere(place, 100, volname);
    await place.must("activate_volume", { volname }, { node: "pve2" });
    const file = place.linkOf(volname, "pve2");
    await Deno.writeTextFile(file, "newer", { create: false });
    await place.faults([]);
    await late.settled;
    assertEquals(await contentOf(place, volname, 5, undefined, "pve2"), "newer");
  },
  { nodes: NODES },
);

both(
  "a clone that somebody else made at the same moment is not taken for ours after a lost answer",
  async (place) => {
    const volname = await place.alloc();
    const base = await place.must("create_base", { volname });
    const snapshot = `${zvolOf(place, "base-100-disk-0")}@__base__`;
    const foreign = zvolOf(place, "vm-101-disk-0");
    // The listing is read; the survey takes a while; then the clone call never reaches the array.
    const slow = place.transport === "iscsi"
      ? "iscsi.targetextent.query"
      : "nvmet.port_subsys.query";
    await place.faults([{ method: slow, do: "hold" }]);
    const clone = place.ask("clone_image", { volname: base, vmid: 101 });
    await place.held(slow);
    await place.array((nas) => nas.snapshots.clone(snapshot, foreign));
    await place.faults([{ method: "pool.snapshot.clone", nth: 1, do: "cut" }]);
    const reply = await clone;
    const found = (await place.objects()).zvols?.find((zvol) => zvol.name === foreign);
    assertEquals([reply.result, found?.user_properties], [reply.result, {}]);
    assert(!String(reply.result).includes("vm-101-disk-0"));
  },
);

both(
  "a free that finishes late does not destroy the volume that was made under its name since",
  async (place) => {
    const volname = await place.alloc();
    const { token } = await place.must("free_image", { volname, isBase: 0 });
    const iscsi = place.transport === "iscsi";
    const remove = iscsi ? "iscsi.extent.delete" : "nvmet.namespace.delete";
    const create = iscsi ? "iscsi.extent.create" : "nvmet.namespace.create";
    const slowCreate = { method: create, nth: 1, do: "hold" };
    await place.faults([{ method: remove, nth: 1, do: "hold" }, slowCreate]);
    const late = place.ask("free_image_finish", { token });
    await place.held(remove);
    // Another node finishes it first, and the name is given out again.
    await place.must("free_image_finish", { token }, { node: "pve2" });
    const made = place.ask(
      "alloc_image",
      { vmid: 100, format: "raw", name: "vm-100-disk-0", sizeKiB: 1024 },
      { node: "pve2" },
    );
    await place.held(create);
    await place.faults([slowCreate]);
    await late;
    await place.faults([]);
    assertEquals((await made).error, undefined);
    assertEquals(await zvolNamesOf(place), ["vm-100-disk-0"]);
  },
  { nodes: NODES },
);

both(
  "a cloud-init volume that is handed out again while it is being freed is there afterwards",
  async (place) => {
    const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
    const { token } = await place.must("free_image", { volname, isBase: 0 });
    // The drive is removed and added again before PVE's worker comes to the second step.
    const again = await place.ask("alloc_image", {
      vmid: 100,
      format: "raw",
      name: "vm-100-cloudinit",
      sizeKiB: 4096,
    });
    await place.ask("free_image_finish", { token });
    if (again.ok) await place.must("activate_volume", { volname });
  },
);

both(
  "a periodic snapshot taken while a rollback's answer was lost does not leave the disk with a wrong size",
  async (place) => {
    const volname = await place.alloc();
    const rollback = { volname, snapshot: "before" };
    await place.must("volume_snapshot", rollback);
    await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    await place.faults([
      { method: "pool.snapshot.rollback", nth: 1, do: "done-then-drop" },
      { method: "pool.snapshot.rollback", nth: 2, do: "hold" },
    ]);
    const late = place.ask("volume_snapshot_rollback", rollback);
    await place.held("pool.snapshot.rollback");
    await place.array((nas) =>
      nas.snapshots.create(zvolOf(place, "vm-100-disk-0"), "auto-2026-11-22_09-00")
    );
    await place.faults([]);
    await late;
    await place.must("activate_volume", { volname });
    assertEquals((await Deno.stat(place.linkOf(volname))).size, 64 << 20);
  },
);

both(
  "a snapshot is not deleted while its clone for reading comes into being on another node",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    const create = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    await place.faults([{ method: create, nth: 1, do: "hold" }]);
    const reading = place.ask("activate_volume", { volname, snapshot: "before" }, { node: "pve2" });
    await place.held(create);
    const reply = await place.ask("volume_snapshot_delete", { volname, snapshot: "before" });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(reply.error?.message ?? "", "pve2");
    await place.faults([]);
    assertEquals((await reading).ok, true);
  },
  { nodes: NODES },
);

both(
  "a volume is not freed while another node makes a clone for reading one of its snapshots",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    const clone = "pool.snapshot.clone";
    await place.faults([{ method: clone, nth: 1, do: "hold" }]);
    const reading = place.ask("activate_volume", { volname, snapshot: "before" }, { node: "pve2" });
    await place.held(clone);
    const freed = await place.ask("free_image", { volname, finish: true });
    await place.faults([]);
    const read = await reading;
    // One of them comes first, and nothing is left half done.
    assert(freed.ok !== read.ok, JSON.stringify([freed, read]));
    if (freed.ok) assertEquals([await zvolNamesOf(place), (await exports(place)).length], [[], 0]);
    else await place.must("activate_volume", { volname });
  },
  { nodes: NODES },
);

both("two nodes that free one volume at the same moment both succeed", async (place) => {
  const volname = await place.alloc();
  const method = "pool.dataset.delete";
  await place.faults([{ method, nth: 1, do: "hold" }, { method, nth: 2, do: "hold" }]);
  const args = { volname, isBase: 0, finish: true };
  const first = place.begin("free_image", args);
  await place.held(method);
  const reached = Promise.withResolvers<void>();
  const host = pmxcfsHost(place, "pve2");
  const { replaceText } = host.files;
  const second = beginOn(
    place,
    {
      ...host,
      files: {
        ...host.files,
        replaceText: async (path, ...rest) => {
          await replaceText(path, ...rest);
          // The last thing before the call.
          if (path.startsWith("/run/tnblock/doomed/")) reached.resolve();
        },
      },
    },
    "free_image",
    args,
    "pve2",
  );
  await reached.promise;
  await place.array((nas) => nas.zvols.list(place.simulator.ready.dataset));
  await place.faults([]);
  const replies = await Promise.all([first.reply, second.reply]);
  await Promise.all([first.settled, second.settled]);
  assertEquals(replies.map(({ error }) => error), [undefined, undefined]);
  assertEquals(await zvolNamesOf(place), []);
}, { nodes: NODES, release: "25.10" });
