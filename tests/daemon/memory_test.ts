import { assert, assertEquals } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";
import { daemonOn, eventually, QUICK } from "./memory_support.ts";
import { writeStorageCfg } from "./state_support.ts";

for (const transport of TRANSPORTS) {
  const test = (name: string, run: () => Promise<void>) => Deno.test(`${transport}: ${name}`, run);

  test("what this node makes and frees is listed at once, and listing costs the array nothing", async () => {
    await using place = await Place.start(transport);
    await writeStorageCfg(place);
    await using daemon = await daemonOn(place);
    assertEquals(await daemon.listed(), []);
    const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
    const first = await daemon.must("alloc_image", args);
    assertEquals(await daemon.listed(), [first]);
    const second = await daemon.must("alloc_image", args);
    assertEquals(await daemon.listed(), [first, second]);
    await daemon.must("free_image", { volname: first, isBase: 0, finish: true });
    assertEquals(await daemon.listed(), [second]);
    // The events of all that have been seen by now, or will be.
    await eventually(async () => {
      const reads = await daemon.reads();
      daemon.calls.length = 0;
      await daemon.listed();
      await daemon.must("status");
      assertEquals([daemon.calls, await daemon.reads()], [[], reads]);
    });
    const [row] = await daemon.must("list_images", { vmid: 100 });
    assertEquals([row.volid, row.size, row.vmid], [`san:${second}`, 65536 * 1024, 100]);
    assertEquals(await daemon.must("list_images", { vmid: 101 }), []);
    assertEquals((await daemon.must("list_images", { volids: [`san:${second}`] })).length, 1);
  });

  test("what another node makes and frees is found by the array's events", async () => {
    await using place = await Place.start(transport, { nodes: ["pve1", "pve2"] });
    await using daemon = await daemonOn(place);
    assertEquals(await daemon.listed(), []);
    const volname = await place.must(
      "alloc_image",
      { vmid: 100, format: "raw", sizeKiB: 65536 },
      { node: "pve2" },
    );
    await eventually(async () => assertEquals(await daemon.listed(), [volname]));
    await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
    await eventually(async () => assertEquals(await daemon.listed(), []));
  });
}

Deno.test("a listing waits for what the array has told of, however long that may wait else", async () => {
  await using place = await Place.start("nvme-tcp", { nodes: ["pve1", "pve2"] });
  const timing = { ...QUICK, eventMs: 3_600_000 };
  await using daemon = await daemonOn(place, { timing });
  assertEquals(await daemon.listed(), []);
  const volname = await place.must(
    "alloc_image",
    { vmid: 100, format: "raw", sizeKiB: 65536 },
    { node: "pve2" },
  );
  await eventually(async () => assertEquals(await daemon.listed(), [volname]));
  // With the array away the answer is what was there a moment ago.
  await place.must("volume_resize", { volname, size: 1 << 27, running: 0 }, { node: "pve2" });
  await place.faults([{ method: "zfs.resource.query", do: "error", errno: 5 }]);
  assertEquals(await daemon.listed(), [volname]);
});

Deno.test("space comes with what is read", async () => {
  await using place = await Place.start("iscsi", { volumes: 3 });
  await using daemon = await daemonOn(place);
  const direct = await place.must("status");
  assertEquals(await daemon.must("status"), direct);
  assert(direct.active === 1 && direct.available > 0);
});

const SLOW = { deadlineMs: 3_000 };

for (const transport of TRANSPORTS) {
  const test = (name: string, run: () => Promise<void>) => Deno.test(`${transport}: ${name}`, run);

  test("what an administrator deletes with all that hangs on it is found by the next full read", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    // No event tells of it.
    const lost = ["pool.dataset.query", "iscsi.extent.query", "iscsi.targetextent.query"]
      .map((name) => ({ method: `event.${name}`, do: "cut" }));
    await place.faults(lost);
    const timing = { ...QUICK, periodMs: 300 };
    await using daemon = await daemonOn(place, { timing });
    assertEquals(await daemon.listed(), [volname]);
    const path = `${place.simulator.ready.dataset}/vm-100-disk-0`;
    await place.array((nas) =>
      nas.session.call("pool.dataset.delete", [path, { recursive: true, force: true }])
    );
    await eventually(async () => assertEquals(await daemon.listed(), []));
  });

  test("the same is found at once when the event of the deletion arrives", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await using daemon = await daemonOn(place);
    assertEquals(await daemon.listed(), [volname]);
    const path = `${place.simulator.ready.dataset}/vm-100-disk-0`;
    await place.array((nas) =>
      nas.session.call("pool.dataset.delete", [path, { recursive: true, force: true }])
    );
    await eventually(async () => assertEquals(await daemon.listed(), []));
  });

  test("a former name of a reassigned volume opens nothing on a node that kept an idle link to its disk", async () => {
    await using place = await Place.start(transport, { nodes: ["pve1", "pve2"] });
    await using daemon = await daemonOn(place);
    const volname = await place.alloc();
    await daemon.must("activate_volume", { volname });
    // Whose volume it is and where is known by now: attaching what is attached asks the array nothing.
    await daemon.listed();
    await eventually(async () => {
      daemon.calls.length = 0;
      await daemon.must("activate_volume", { volname });
      assertEquals(daemon.calls, []);
    });
    const renamed = await place.must(
      "rename_volume",
      { volname, targetVmid: 200 },
      { node: "pve2" },
    );
    await eventually(async () => assertEquals(await daemon.listed(), [renamed]));
    const reply = await daemon.ask("activate_volume", { volname });
    assert(!reply.ok, "the former name still opens the disk");
  });
}

Deno.test("with the array away a minute is bridged, then listing fails with the reason, which is logged once", async () => {
  const place = await Place.start("iscsi", { volumes: 3 });
  try {
    await using daemon = await daemonOn(place);
    const before = await daemon.listed();
    assertEquals(before.length, 3);
    await place.simulator.stop();
    await eventually(async () => {
      assertEquals(await daemon.listed(), before);
      assertEquals((await daemon.must("status")).active, 1);
      assert(daemon.log.some((line) => line.includes("session with TrueNAS ended")));
    });
    daemon.leap(61_000);
    assertEquals((await daemon.must("status")).active, 0);
    const failed = await daemon.ask("list_images", {}, SLOW);
    assertEquals(failed.error?.code, "unreachable");
    for (let count = 0; count < 5; count++) {
      daemon.leap(10_000);
      assertEquals((await daemon.must("status")).active, 0);
    }
    const said = daemon.log.filter((line) => line.includes("is inactive"));
    assertEquals(said.length, 1, daemon.log.join("\n"));
    assert(said[0]?.startsWith("info: "), said[0]);
  } finally {
    await place[Symbol.asyncDispose]();
  }
});

Deno.test("a storage is reachable until API and portals are known to be away", async () => {
  const place = await Place.start("iscsi");
  try {
    await using daemon = await daemonOn(place);
    assertEquals(await daemon.must("check_connection"), true);
    place.simulator.cutConnections();
    await place.simulator.stop();
    assertEquals(await daemon.must("check_connection"), true);
    await eventually(async () => {
      daemon.leap(61_000);
      assertEquals(await daemon.must("check_connection"), false);
    });
  } finally {
    await place[Symbol.asyncDispose]();
  }
});

Deno.test("a key that the array does not know any more is an error for the administrator", async () => {
  await using place = await Place.start("iscsi", { volumes: 1 });
  const key = `1-${"x".repeat(64)}`;
  await place.writeSecrets({ "tnb-api-key": key });
  await using daemon = await daemonOn(place);
  const status = await daemon.must("status");
  assertEquals(status.active, 0);
  await eventually(async () => {
    await daemon.must("status");
    const said = daemon.log.filter((line) => line.includes("is inactive"));
    assertEquals(said.length, 1, daemon.log.join("\n"));
    assert(said[0]?.startsWith("error: "), said[0]);
    assert(!daemon.log.join("\n").includes(key));
  });
  const failed = await daemon.ask("list_images", {}, SLOW);
  assertEquals(failed.error?.code, "auth");
});

Deno.test("after a restart with the array away the volumes of before are shown for a minute", async () => {
  const place = await Place.start("iscsi", { volumes: 3 });
  try {
    const first = await daemonOn(place);
    const before = await first.listed();
    const { total } = await first.must("status");
    await first[Symbol.asyncDispose]();
    await place.simulator.stop();
    await using daemon = await daemonOn(place);
    assertEquals(await daemon.must("status").then((one) => [one.total, one.active]), [total, 1]);
    assertEquals(await daemon.listed(), before);
    // Another dataset's memory would be another storage's volumes.
    const other = await daemon.must("status", {}, { config: { "tnb-dataset": "tank/other" } });
    assertEquals(other.active, 0);
    daemon.leap(61_000);
    assertEquals((await daemon.must("status")).active, 0);
    assertEquals((await daemon.ask("list_images", {}, SLOW)).error?.code, "unreachable");
  } finally {
    await place[Symbol.asyncDispose]();
  }
});

Deno.test("after a restart the present volumes are listed, not those of before", async () => {
  await using place = await Place.start("iscsi", { volumes: 2 });
  const first = await daemonOn(place);
  assertEquals((await first.listed()).length, 2);
  await first[Symbol.asyncDispose]();
  await place.alloc();
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.listed()).length, 3);
});

Deno.test("a dataset that is gone makes the storage inactive, with that reason", async () => {
  await using place = await Place.start("nvme-tcp");
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.must("status")).active, 1);
  const { dataset } = place.simulator.ready;
  await place.array((nas) =>
    nas.session.call("pool.dataset.delete", [dataset, { recursive: true, force: true }])
  );
  await eventually(async () => assertEquals((await daemon.must("status")).active, 0));
  const reply = await daemon.ask("list_images");
  assertEquals(reply.error?.code, "not-found");
  assert(daemon.log.some((line) => line.startsWith("error: ") && line.includes(dataset)));
});

Deno.test("two storages on one array share one session, and each lists its own", async () => {
  await using place = await Place.start("iscsi", { volumes: 2 });
  await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "other");
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.listed()).length, 2);
  assertEquals(await daemon.must("list_images", {}, { storage: "other" }), []);
  assertEquals((await place.stats()).logins, 1);
});

Deno.test("over REST, where nobody tells of changes, they are found by the next full read", async () => {
  await using place = await Place.start("iscsi", { release: "25.10" });
  const config = { "tnb-api-transport": "rest" };
  await using daemon = await daemonOn(place, { timing: { ...QUICK, periodMs: 300 } });
  const list = () => daemon.must("list_images", {}, { config });
  assertEquals(await list(), []);
  const volname = await place.alloc();
  await eventually(async () =>
    assertEquals((await list()).map((row: { volid: string }) => row.volid), [`san:${volname}`])
  );
});

for (
  const [transport, release] of [["iscsi", "25.04"], ["iscsi", "26"], ["nvme-tcp", "26"]] as const
) {
  Deno.test(`${transport}, ${release}: what other nodes make, clone, rename and free is found without being asked for`, async () => {
    await using place = await Place.start(transport, { release, nodes: ["pve1", "pve2"] });
    await using daemon = await daemonOn(place, { timing: { ...QUICK, periodMs: 1_000 } });
    const there = { node: "pve2" };
    const agrees = () =>
      eventually(async () => {
        const direct = await place.must("list_images", {}, there);
        assertEquals(await daemon.must("list_images"), direct);
      });
    await agrees();
    const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
    const disk = await place.must("alloc_image", args, there);
    await agrees();
    if (release !== "25.04") {
      const base = await place.must("create_base", { volname: disk }, there);
      await agrees();
      const clone = await place.must("clone_image", { volname: base, vmid: 101 }, there);
      await agrees();
      await place.must("free_image", { volname: clone, isBase: 0, finish: true }, there);
      await agrees();
    } else {
      await place.must("volume_resize", { volname: disk, size: 1 << 27, running: 0 }, there);
      await agrees();
      await place.must("free_image", { volname: disk, isBase: 0, finish: true }, there);
      await agrees();
    }
  });
}

Deno.test("after the connection was lost events are followed on the next one", async () => {
  await using place = await Place.start("nvme-tcp", { nodes: ["pve1", "pve2"] });
  await using daemon = await daemonOn(place);
  assertEquals(await daemon.listed(), []);
  place.simulator.cutConnections();
  const volname = await place.must(
    "alloc_image",
    { vmid: 100, format: "raw", sizeKiB: 65536 },
    { node: "pve2" },
  );
  await eventually(async () => assertEquals(await daemon.listed(), [volname]));
  await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
  await eventually(async () => assertEquals(await daemon.listed(), []));
});

Deno.test("a subscription that is refused leaves the periodic reading", async () => {
  await using place = await Place.start("nvme-tcp", { nodes: ["pve1", "pve2"] });
  await place.faults([{ method: "core.subscribe", do: "error", errno: 13 }]);
  await using daemon = await daemonOn(place, { timing: { ...QUICK, periodMs: 200 } });
  assertEquals(await daemon.listed(), []);
  const volname = await place.must(
    "alloc_image",
    { vmid: 100, format: "raw", sizeKiB: 65536 },
    { node: "pve2" },
  );
  await eventually(async () => assertEquals(await daemon.listed(), [volname]));
  const said = daemon.log.filter((line) => line.includes("does not tell of changes"));
  assertEquals(said.length, 1, daemon.log.join("\n"));
});

Deno.test("a locked dataset and a suspended pool make the storage inactive, and it comes back", async () => {
  await using place = await Place.start("nvme-tcp");
  await using daemon = await daemonOn(place, { timing: { ...QUICK, periodMs: 200 } });
  const { dataset } = place.simulator.ready;
  const zfs = place.simulator.world.zfs.datasets.get(dataset);
  assert(zfs !== undefined);
  const active = async () => (await daemon.must("status")).active;
  await eventually(async () => assertEquals(await active(), 1));
  zfs.locked = true;
  await eventually(async () => assertEquals(await active(), 0));
  assertEquals((await daemon.ask("list_images")).error?.code, "config");
  zfs.locked = false;
  await eventually(async () => assertEquals(await active(), 1));
  const pool = { name: "tank", status: "SUSPENDED", healthy: false };
  await place.faults([{ method: "pool.query", do: "result", result: [pool] }]);
  await eventually(async () => assertEquals(await active(), 0));
  await place.faults([]);
  await eventually(async () => assertEquals(await active(), 1));
});

Deno.test("a degraded pool serves its volumes, and so does a storage whose key may not read pools", async () => {
  await using place = await Place.start("nvme-tcp");
  const pool = { name: "tank", status: "DEGRADED", healthy: false };
  await place.faults([{ method: "pool.query", do: "result", result: [pool] }]);
  {
    await using daemon = await daemonOn(place);
    assertEquals((await daemon.must("status")).active, 1);
  }
  await place.faults([{ method: "pool.query", do: "error", errno: 13 }]);
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.must("status")).active, 1);
});

Deno.test("what this node wrote just before the array went away is not left out of a listing in silence", async () => {
  const place = await Place.start("nvme-tcp");
  try {
    await using daemon = await daemonOn(place, { timing: { ...QUICK, ownMs: 3_600_000 } });
    assertEquals(await daemon.listed(), []);
    // No event tells of it either.
    await place.faults([
      { method: "event.pool.dataset.query", do: "cut" },
      { method: "event.nvmet.namespace.query", do: "cut" },
    ]);
    await daemon.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });
    await place.simulator.stop();
    const reply = await daemon.ask("list_images", {}, SLOW);
    assertEquals(reply.ok, false, "a listing without the volume");
  } finally {
    await place[Symbol.asyncDispose]();
  }
});

Deno.test("a hundred questions at once on a new daemon cost the array one read", async () => {
  await using place = await Place.start("nvme-tcp", { volumes: 5 });
  await using daemon = await daemonOn(place);
  const replies = await Promise.all(Array.from({ length: 100 }, () => daemon.listed()));
  assert(replies.every((one) => one.length === 5));
  const reads = daemon.calls.filter((method) => method === "nvmet.namespace.query");
  assertEquals(reads.length, 1);
});

Deno.test("an array that takes a call and says nothing stalls neither status nor a listing past its deadline", async () => {
  await using place = await Place.start("nvme-tcp");
  await place.faults([{ method: "nvmet.namespace.query", do: "hold" }]);
  await using daemon = await daemonOn(place);
  const began = performance.now();
  // The first question of a storage that nothing is known of waits a second, and no other does.
  assertEquals((await daemon.must("status")).active, 0);
  const first = performance.now();
  for (let count = 0; count < 20; count++) await daemon.must("status");
  const each = (performance.now() - first) / 20;
  assert(first - began < 3_000 && each < 100, `${first - began} ms, then ${each} ms each`);
  assertEquals((await daemon.ask("list_images", {}, { deadlineMs: 500 })).error?.code, "timeout");
  assertEquals(await daemon.must("check_connection"), true);
  await place.faults([]);
  assertEquals(await daemon.listed(), []);
  assertEquals((await daemon.must("status")).active, 1);
});

Deno.test("a dataset that another cluster owns makes the storage inactive", async () => {
  await using place = await Place.start("nvme-tcp");
  const { dataset } = place.simulator.ready;
  await place.array((nas) => nas.datasets.setUserProperties(dataset, { "tnblock:owner": "x/san" }));
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.must("status")).active, 0);
  assertEquals((await daemon.ask("list_images")).error?.code, "not-ours");
  assert(daemon.log.some((line) => line.startsWith("error: ") && line.includes("another cluster")));
});

Deno.test("the storages of storage.cfg are read before anybody asks", async () => {
  await using place = await Place.start("nvme-tcp", { volumes: 2 });
  const config = Object.entries(place.config()).filter(([name]) => name.startsWith("tnb-"));
  const lines = config.map(([name, value]) => `\t${name} ${value}`);
  await Deno.writeTextFile(
    `${place.directory}/etc/pve/storage.cfg`,
    `tnblock: san\n${lines.join("\n")}\n\tcontent images\n\tshared 1\n`,
  );
  await using daemon = await daemonOn(place);
  await eventually(() => {
    assert(daemon.calls.includes("nvmet.namespace.query"), daemon.log.join("\n"));
    return Promise.resolve();
  });
  await eventually(async () => assertEquals((await daemon.must("status")).active, 1));
  daemon.calls.length = 0;
  assertEquals((await daemon.listed()).length, 2);
  assertEquals(daemon.calls, []);
});

Deno.test("a new key begins a new memory, and the old one's failure is not its own", async () => {
  await using place = await Place.start("nvme-tcp", { volumes: 2 });
  await place.writeSecrets({ "tnb-api-key": `1-${"x".repeat(64)}` });
  await using daemon = await daemonOn(place);
  assertEquals((await daemon.must("status")).active, 0);
  await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey });
  assertEquals((await daemon.must("status")).active, 1);
  assertEquals((await daemon.listed()).length, 2);
});
