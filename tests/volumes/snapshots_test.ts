/** Snapshots of a volume: taken, listed, deleted; what stands in the way is named, and nothing else touched. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";
import { contentOf, over, snapshotNames, writeContent, writesOf } from "./snapshot_support.ts";

over("a snapshot is taken, told of, and deleted, each in one write", async (place) => {
  const volname = await place.alloc();
  assertEquals(await writesOf(place, "volume_snapshot", { volname, snapshot: "before" }), 1);
  const info = await place.must("volume_snapshot_info", { volname });
  assertEquals(Object.keys(info), ["before"]);
  assertMatch(info.before.id, /^[0-9]+$/);
  assert(Number.isInteger(info.before.timestamp) && info.before.timestamp > 1_600_000_000);
  assertEquals(await writesOf(place, "volume_snapshot_delete", { volname, snapshot: "before" }), 1);
  assertEquals(await place.must("volume_snapshot_info", { volname }), {});
});

over(
  "a snapshot of a name that is taken is refused, and the one that is there stays",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    const before = await place.must("volume_snapshot_info", { volname });
    const reply = await place.ask("volume_snapshot", { volname, snapshot: "s" });
    assertEquals(reply.error?.code, "exists");
    assertStringIncludes(reply.error?.message ?? "", '"s"');
    assertEquals(await place.must("volume_snapshot_info", { volname }), before);
  },
);

over(
  "taking a snapshot costs few round trips, because the guest may stand still",
  async (place) => {
    const volname = await place.alloc();
    place.calls.length = 0;
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    // What the name means is read side by side (iSCSI: the LUN in a second round), then comes the write.
    assert(place.calls.length <= 7, place.calls.join(", "));
    assert(place.calls.at(-1)?.endsWith(".snapshot.create"));
  },
);

for (const how of ["done-then-drop", "cut"]) {
  over(
    `a snapshot whose answer is lost (${how}) is there once, and it is success`,
    async (place, { method }) => {
      const volname = await place.alloc();
      await place.faults([{ method: method("create"), nth: 1, do: how }]);
      await place.must("volume_snapshot", { volname, snapshot: "s" });
      assertEquals(await snapshotNames(place), ["s"]);
    },
  );

  over(`a snapshot whose deletion's answer is lost (${how}) is gone`, async (place, { method }) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await place.faults([{ method: method("delete"), nth: 1, do: how }]);
    await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
    assertEquals(await snapshotNames(place), []);
  });
}

over(
  "somebody else's snapshot of that name is not taken for ours when an answer is lost",
  async (place, { zvol, method }) => {
    const volname = await place.alloc();
    await place.array((nas) => nas.snapshots.create(zvol, "s"));
    await place.faults([{ method: method("create"), nth: 1, do: "cut" }]);
    const reply = await place.ask("volume_snapshot", { volname, snapshot: "s" });
    assertEquals(reply.error?.code, "exists");
    assertEquals(await snapshotNames(place), ["s"]);
  },
);

over(
  "a snapshot that was taken too late for its caller is taken back",
  async (place, { method }) => {
    const volname = await place.alloc();
    await place.faults([{ method: method("create"), nth: 1, do: "delay", ms: 900 }]);
    const reply = await place.ask("volume_snapshot", { volname, snapshot: "s" }, {
      deadlineMs: 600,
    });
    assertEquals(reply.error?.code, "timeout");
    assertEquals(await snapshotNames(place), []);
  },
);

over("a deletion whose caller is gone is finished", async (place, { method }) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.faults([{ method: method("delete"), nth: 1, do: "delay", ms: 900 }]);
  const args = { volname, snapshot: "s" };
  const reply = await place.ask("volume_snapshot_delete", args, { deadlineMs: 600 });
  assertEquals(reply.error?.code, "timeout");
  assertStringIncludes(reply.error?.message ?? "", `told to delete the snapshot "s" of the volume`);
  assertEquals(await snapshotNames(place), []);
});

over("deleting what is gone is success: the snapshot, or the whole volume", async (place) => {
  const volname = await place.alloc();
  assertEquals(await writesOf(place, "volume_snapshot_delete", { volname, snapshot: "s" }), 0);
  await place.must("free_image", { volname, isBase: 0, finish: true });
  await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
});

over("a dataset that is away is not taken for gone", async (place) => {
  const volname = await place.alloc();
  const reply = await place.ask("volume_snapshot_delete", { volname, snapshot: "s" }, {
    config: { "tnb-dataset": "tank/away" },
  });
  assertEquals(reply.error?.code, "array-fault");
});

over("clones and holds refuse a deletion, and are named", async (place, { zvol, method }) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.array(async (nas) => {
    await nas.snapshots.clone(`${zvol}@s`, "tank/mine");
    await nas.snapshots.clone(`${zvol}@s`, `${zvol.slice(0, -13)}vzdump-vm-100-disk-0-s-0a1b2c3d`);
  });
  const cloned = await place.ask("volume_snapshot_delete", { volname, snapshot: "s" });
  assertEquals(cloned.error?.code, "has-dependents");
  assertStringIncludes(cloned.error?.message ?? "", "clone tank/mine");
  assertStringIncludes(cloned.error?.message ?? "", "of a backup by the Perl plugin");
  assertEquals(await snapshotNames(place), ["s"]);
  await place.must("volume_snapshot", { volname, snapshot: "held" });
  await place.array((nas) => nas.session.call(method("hold"), [`${zvol}@held`, {}]));
  const held = await place.ask("volume_snapshot_delete", { volname, snapshot: "held" });
  assertEquals(held.error?.code, "has-dependents");
  assertStringIncludes(held.error?.message ?? "", 'hold "truenas"');
  assertEquals(await snapshotNames(place), ["held", "s"]);
});

over(
  "a snapshot that is busy is tried again, and told of when it stays so",
  async (place, { method }) => {
    const volname = await place.alloc();
    const deletion = method("delete");
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await place.faults([{ method: deletion, nth: 1, do: "error", errno: 16 }]);
    await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
    await place.must("volume_snapshot", { volname, snapshot: "t" });
    await place.faults([{ method: deletion, do: "error", errno: 16 }]);
    const args = { volname, snapshot: "t" };
    const reply = await place.ask("volume_snapshot_delete", args, { deadlineMs: 2500 });
    assertEquals(reply.error?.code, "busy");
    await place.faults([]);
    assertEquals(await snapshotNames(place), ["t"]);
  },
);

over("every verb refuses a stale name, and touches nothing", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  const stale = place.transport === "iscsi"
    ? volname.replace(/lun(\d+)$/, (_all, lun) => `lun${(Number(lun) + 1) % 255}`)
    : volname.replace(/ns.*$/, `ns${crypto.randomUUID()}`);
  for (
    const method of [
      "volume_snapshot",
      "volume_snapshot_delete",
      "volume_snapshot_rollback",
      "volume_rollback_is_possible",
      "volume_snapshot_info",
      "activate_volume",
    ]
  ) {
    const reply = await place.ask(method, { volname: stale, snapshot: "s" });
    assertEquals([method, reply.error?.code], [method, "volume-replaced"]);
  }
  assertEquals(await snapshotNames(place), ["s"]);
});

over("snapshots of a volume without our marks are not touched", async (place, { zvol }) => {
  const volname = await place.alloc();
  await place.array(async (nas) => {
    await nas.snapshots.create(zvol, "s");
    await nas.zvols.setUserProperties(zvol, { "tnblock:cluster": "another" });
  });
  for (const method of ["volume_snapshot", "volume_snapshot_delete", "volume_snapshot_rollback"]) {
    const reply = await place.ask(method, { volname, snapshot: "s" });
    assertEquals([method, reply.error?.code], [method, "not-ours"]);
  }
  assertEquals(await snapshotNames(place), ["s"]);
});

over(
  "info is about one volume, with TrueNAS's own snapshots and without names that PVE cannot say",
  async (place, { zvol }) => {
    const volname = await place.alloc();
    const other = await place.alloc(200);
    await place.must("volume_snapshot", { volname: other, snapshot: "theirs" });
    const names = ["auto-2026-11-22_00-00", "__base__", "-odd"];
    await place.array(async (nas) => {
      for (const name of names) await nas.snapshots.create(zvol, name);
    });
    await place.must("volume_snapshot", { volname, snapshot: "ours" });
    const info = await place.must("volume_snapshot_info", { volname });
    assertEquals(Object.keys(info).sort(), ["__base__", "auto-2026-11-22_00-00", "ours"]);
    const ids = Object.values(info).map((one) => (one as { id: string }).id);
    assertEquals(new Set(ids).size, 3);
  },
);

over("a snapshot gets a name of PVE's or none", async (place) => {
  const volname = await place.alloc();
  const names = [
    "S-1_a",
    "vzdump",
    "__migration__",
    "__replicate_100-0_1795000000__",
    "a".repeat(40),
  ];
  for (const snapshot of names) await place.must("volume_snapshot", { volname, snapshot });
  place.calls.length = 0;
  const others = [
    ...["__base__", "current", "Pending", "auto-2026-11-22_00:00", "a.b", "a b", "1st", "_a", "-a"],
    ...["__replicate_", "__other__", "tnblock:s", "", "a@b", "a/b", "../a", "a\n", "a".repeat(101)],
  ];
  for (const snapshot of others) {
    const { error } = await place.ask("volume_snapshot", { volname, snapshot });
    assertEquals([snapshot, error?.code, error?.field], [snapshot, "invalid", "args.snapshot"]);
  }
  assertEquals(place.calls, []);
  assertEquals(await snapshotNames(place), [...names].sort());
  for (const snapshot of names) await place.must("volume_snapshot_delete", { volname, snapshot });
  assertEquals(await snapshotNames(place), []);
});

over("volumes for the memory of a guest live like any other", async (place) => {
  for (const name of ["vm-100-state-before_upgrade", "vm-100-state-suspend-2026-11-22"]) {
    const volname = await place.alloc(100, 1024 * 512, name);
    assertStringIncludes(volname, name);
    const listed = await place.must("list_images", { vmid: 100 });
    assertEquals(listed.map((row: { volid: string }) => row.volid), [`san:${volname}`]);
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "the guest's memory");
    assertEquals(await contentOf(place, volname, 18), "the guest's memory");
    await place.must("deactivate_volume", { volname });
    await place.must("free_image", { volname, isBase: 0, finish: true });
  }
  assertEquals((await place.objects()).zvols, []);
});

over("a volume that is attached and in use is snapshotted as it is", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.holdOpen(volname);
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
});

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}, 26: a deletion that was answered with true and not done is done`, async () => {
    await using place = await Place.start(transport, { release: "26" });
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await place.faults([{ method: "pool.snapshot.delete", nth: 1, do: "result", result: true }]);
    await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
    assertEquals(await snapshotNames(place), []);
  });
}
