/** What recovery must do, and what it must never do. */
import { assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { arrayState, disks, writes } from "../../support/array_state.ts";
import { openEntries, recover } from "../../support/mortal.ts";
import { Place, TRANSPORTS } from "../../support/place.ts";
import { contentOf, exportCount, snapshotNames, writeContent } from "../snapshot_support.ts";
import {
  ALLOC,
  both,
  forgetLateCalls,
  kill,
  lastWrite,
  name,
  outcomes,
  own,
  SETTLE_MS,
  volnameOf,
  Watching,
} from "./support.ts";
import { lastingCommand } from "../../support/child.ts";

both("recovery leaves a running operation alone", async (place) => {
  const create = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
  await place.faults([{ method: create, do: "delay", ms: 1500 }]);
  const running = place.alloc();
  const until = Date.now() + 5_000;
  while ((await own(place)).length === 0 && Date.now() < until) await recover(place);
  assertEquals(outcomes(await recover(place)), ["running"]);
  const volname = await running;
  await place.must("activate_volume", { volname });
  assertEquals(await openEntries(place), []);
});

both(
  "nothing is decided while the dead process's call may be under way on the array",
  async (place) => {
    await place.faults([{ method: "pool.dataset.create", do: "delay", ms: 1000 }]);
    await kill(place, "alloc_image", ALLOC, { nth: 1, when: "under way" });
    place.calls.length = 0;
    const recovery = new Watching(place);
    for (let pass = 0; pass < 3; pass++) assertEquals(await recovery.pass(60_000), ["waits"]);
    assertEquals(writes(place), []);
    const until = Date.now() + 5_000;
    while ((await own(place)).length === 0 && Date.now() < until) await place.must("status");
    assertEquals(outcomes(await recover(place)), ["undone"]);
    assertEquals([await own(place), await openEntries(place)], [[], []]);
  },
);

both("what is away with its pool is not taken for gone", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
  const queries = ["pool.dataset.query", "zfs.resource.query"];
  await place.faults(queries.map((method) => ({ method, do: "result", result: [] })));
  assertEquals(outcomes(await recover(place)), ["waits"]);
  await place.faults([]);
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
});

both("two recoveries at once do it once", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
  const found = (await Promise.all([recover(place), recover(place), recover(place)])).flat();
  assertEquals(outcomes(found).filter((outcome) => outcome === "undone").length, 1);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
  assertEquals(await recover(place), []);
});

both(
  "a volume that was made under the name since survives the undoing of the first",
  async (place) => {
    const named = { ...ALLOC, name: "vm-100-disk-5" };
    await kill(place, "alloc_image", named, { nth: lastWrite(place), when: "after" });
    // Somebody removes it by hand, and the user asks once more.
    const first = await volnameOf(place, "vm-100-disk-5");
    await place.must("free_image", { volname: first, finish: true });
    const second = await place.must("alloc_image", named);
    assertNotEquals(second, first);
    const was = await arrayState(place);
    assertEquals(outcomes(await recover(place)), ["closed"]);
    assertEquals([await arrayState(place), await openEntries(place)], [was, []]);
  },
);

both("a volume that was made under the name since survives the end of a free", async (place) => {
  const named = { ...ALLOC, name: "vm-100-disk-5" };
  const volname = await place.must("alloc_image", named);
  await kill(place, "free_image", { volname, finish: true }, { nth: 1, when: "after" });
  await place.must("free_image", { volname, finish: true });
  await place.must("alloc_image", named);
  const was = await arrayState(place);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await arrayState(place), was);
});

both(
  "a snapshot that was taken under the name since survives the end of a deletion",
  async (place) => {
    const volname = await place.alloc();
    const args = { volname, snapshot: "a" };
    await place.must("volume_snapshot", args);
    await kill(place, "volume_snapshot_delete", args, { nth: 1, when: "after" });
    await forgetLateCalls(place);
    await place.must("volume_snapshot", args);
    assertEquals(outcomes(await recover(place)), ["closed"]);
    assertEquals(await snapshotNames(place), ["a"]);
  },
);

both("what a guest's configuration names is not undone", async (place) => {
  await kill(place, "alloc_image", ALLOC, {
    nth: lastWrite(place),
    when: "after",
  });
  const volname = await volnameOf(place, "vm-100-disk-0");
  // The user found it in the list, and gave it to the guest.
  await name(place, 100, volname);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals([await own(place), await openEntries(place)], [["vm-100-disk-0"], []]);
  await place.must("activate_volume", { volname });
});

both("what is attached here, or has snapshots, is not undone", async (place) => {
  const last = lastWrite(place);
  await kill(place, "alloc_image", ALLOC, { nth: last, when: "after" });
  const volname = await volnameOf(place, "vm-100-disk-0");
  await place.must("activate_volume", { volname });
  assertEquals(outcomes(await recover(place)), ["closed"]);
  await kill(place, "alloc_image", { ...ALLOC, vmid: 101 }, { nth: last, when: "after" });
  const other = await volnameOf(place, "vm-101-disk-0");
  await place.must("volume_snapshot", { volname: other, snapshot: "a" });
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await own(place), ["vm-100-disk-0", "vm-101-disk-0"]);
});

both("what is looked into on this node is undone once nobody does any more", async (place) => {
  const args = { vmid: 100, size: 1 << 20 };
  await kill(place, "volume_import_prepare", args, { nth: lastWrite(place), when: "after" });
  const volname = await volnameOf(place, "vm-100-disk-0");
  await place.must("activate_volume", { volname });
  await place.holdOpen(volname);
  assertEquals(outcomes(await recover(place)), ["waits"]);
  await Deno.remove(`${place.directory}/proc/4711`, { recursive: true });
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
});

both("a cloud-init volume that was asked for again is not undone", async (place) => {
  const args = { vmid: 100, format: "raw", name: "vm-100-cloudinit", sizeKiB: 4096 };
  await kill(place, "alloc_image", args, { nth: 1, when: "after" });
  const volname = await place.must("alloc_image", args);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  await place.must("activate_volume", { volname });
});

both(
  "a whole volume that a guest's configuration names is not destroyed by the end of its free",
  async (place) => {
    const volname = await place.alloc();
    await name(place, 100, volname);
    await kill(place, "free_image", { volname, finish: true }, { nth: 1, when: "before" });
    assertEquals(outcomes(await recover(place)), ["closed"]);
    await place.must("activate_volume", { volname });
  },
);

both("a rename that was killed and asked for again keeps its new name", async (place) => {
  const volname = await place.alloc();
  const args = { volname, targetVmid: 200 };
  await kill(place, "rename_volume", args, {
    nth: 3 + Number(place.transport === "nvme-tcp"),
    when: "after",
  });
  const renamed = await place.must("rename_volume", args);
  // PVE has not written the configuration yet.
  const was = await disks(place);
  assertEquals([await openEntries(place), await recover(place)], [[], []]);
  assertEquals(await disks(place), was);
  await place.must("activate_volume", { volname: renamed });
});

both(
  "a volume that grows while its rename is half done has its new size afterwards",
  async (place) => {
    const volname = await place.alloc();
    const half = place.transport === "iscsi" ? 2 : 3;
    await kill(place, "rename_volume", { volname, targetVmid: 200 }, { nth: half, when: "after" });
    await place.must("volume_resize", { volname, size: 128 << 20 });
    await recover(place);
    await place.must("activate_volume", { volname });
    assertEquals((await Deno.stat(place.linkOf(volname))).size, 128 << 20);
  },
);

both("a volume whose rename was killed is not called gone by its old name", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "a" });
  const last = 3 + Number(place.transport === "nvme-tcp");
  await kill(place, "rename_volume", { volname, targetVmid: 200 }, { nth: last, when: "after" });
  for (
    const [method, args] of [
      ["free_image", { volname, finish: true }],
      ["volume_snapshot_delete", { volname, snapshot: "a" }],
    ] as const
  ) {
    assertEquals((await place.ask(method, args)).error?.code, "busy");
  }
  await recover(place);
  await place.must("volume_snapshot_delete", { volname, snapshot: "a" });
  await place.must("free_image", { volname, finish: true });
  assertEquals(await own(place), []);
});

both("a template that was killed and asked for again stays one", async (place) => {
  const volname = await place.alloc();
  await kill(place, "create_base", { volname }, { nth: 4, when: "after" });
  const again = await place.ask("create_base", { volname });
  const base = again.result ?? await place.must("create_base", { volname });
  await recover(place);
  await place.must("clone_image", { volname: base, vmid: 101 });
});

both("a renamed volume whose old name is taken keeps its new one, and is whole", async (place) => {
  const volname = await place.alloc();
  const half = place.transport === "iscsi" ? 2 : 3;
  await kill(place, "rename_volume", { volname, targetVmid: 200 }, { nth: half, when: "after" });
  const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
  // An administrator's: tnblock gives that name to none now.
  await place.array((nas) =>
    nas.zvols.create({ name: zvol, volsize: 1 << 20, volblocksize: "16K", sparse: true })
  );
  assertEquals(outcomes(await recover(place)), ["finished"]);
  await place.must("activate_volume", { volname: await volnameOf(place, "vm-200-disk-0") });
});

both(
  "a rename that is killed half-way, and whose guest starts, is not touched any more",
  async (place) => {
    const volname = await place.alloc();
    const half = place.transport === "iscsi" ? 2 : 3;
    await kill(place, "rename_volume", { volname, targetVmid: 200 }, { nth: half, when: "after" });
    await place.must("activate_volume", { volname });
    const was = await arrayState(place);
    assertEquals(outcomes(await recover(place)), ["closed"]);
    assertEquals(await arrayState(place), was);
  },
);

both("a rollback that was killed is never done by recovery", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "old");
  const args = { volname, snapshot: "a" };
  await place.must("volume_snapshot", args);
  await writeContent(place, volname, "new");
  for (const when of ["before", "after"] as const) {
    await kill(place, "volume_snapshot_rollback", args, { nth: 1, when });
    // The guest was started since.
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "since");
    assertEquals(outcomes(await recover(place)), ["closed"]);
    assertEquals(await contentOf(place, volname, 5), "since");
  }
});

both("a snapshot that is read after its first reader was killed stays readable", async (place) => {
  const volname = await place.alloc();
  const args = { volname, snapshot: "a" };
  await place.must("volume_snapshot", args);
  const last = lastWrite(place);
  await kill(place, "activate_volume", args, { nth: last, when: "after" });
  await place.must("activate_volume", args);
  assertEquals([await openEntries(place), await recover(place)], [[], []]);
  await contentOf(place, volname, 3, "a");
});

both("a resize that was killed grows nothing that got another size since", async (place) => {
  const volname = await place.alloc();
  const size = async () => (await place.objects()).zvols?.map((zvol) => zvol.volsize);
  await kill(place, "volume_resize", { volname, size: 256 << 20 }, { nth: 1, when: "before" });
  await place.must("volume_resize", { volname, size: 128 << 20 });
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await size(), [128 << 20]);
});

for (const transport of TRANSPORTS) {
  const start = () => Place.start(transport, { release: "26" });
  const killed = async (place: Place) => {
    const volname = await place.must("create_base", { volname: await place.alloc() });
    await kill(place, "clone_image", { volname, vmid: 101 }, { nth: 1, when: "after" });
    assertEquals(await own(place), ["base-100-disk-0", "vm-101-disk-0"]);
  };
  Deno.test(`${transport}: a clone that was killed before its marks goes when it is still without them much later`, async () => {
    await using place = await start();
    await killed(place);
    const recovery = new Watching(place);
    assertEquals(await recovery.pass(), ["waits"]);
    // Known from here on.
    assertEquals(await recovery.pass(SETTLE_MS), ["waits"]);
    assertEquals(await recovery.pass(SETTLE_MS - 1_000), ["waits"]);
    assertEquals((await own(place)).length, 2);
    assertEquals(await recovery.pass(1_000), ["undone"]);
    assertEquals([await own(place), await openEntries(place)], [["base-100-disk-0"], []]);
  });

  Deno.test(`${transport}: a clone without marks that another node was about to mark stays`, async () => {
    await using place = await start();
    await killed(place);
    const recovery = new Watching(place);
    await recovery.pass();
    assertEquals(await recovery.pass(SETTLE_MS), ["waits"]);
    const zvol = `${place.simulator.ready.dataset}/vm-101-disk-0`;
    await place.array((nas) =>
      nas.zvols.setUserProperties(zvol, { "tnblock:op": "other", "tnblock:volume": zvol })
    );
    assertEquals(await recovery.pass(SETTLE_MS), ["closed"]);
    assertEquals((await own(place)).length, 2);
  });
}

both(
  "what a node left is not the other node's to recover, and the array shows whose it is",
  async (place) => {
    await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
    assertEquals(await recover(place, {}, "pve2"), []);
    const [zvol] = (await place.objects()).zvols ?? [];
    const marks = JSON.stringify(zvol);
    for (const mark of ["tnblock:op", "tnblock:storage", "tnblock:cluster", "tnblock:volume"]) {
      assertStringIncludes(marks, mark);
    }
  },
  { nodes: ["pve1", "pve2"] },
);

/** A hook in a process of its own, as PVE starts it. */
function hookProcess(place: Place, method: string, args: Record<string, unknown>) {
  const child = lastingCommand(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-lock",
      "--no-check",
      "src/main.ts",
      "--root",
      place.directory,
      "hook",
    ],
    cwd: new URL("../../..", import.meta.url).pathname,
    env: { TNBLOCK_LOGIN_BUDGET: "0" },
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const request = {
    protocol: 1,
    id: "t",
    method,
    storage: "san",
    config: place.config(),
    args,
    deadlineMs: 45_000,
    node: "pve1",
    pveApi: 13,
  };
  const writer = child.stdin.getWriter();
  writer.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`)).catch(() => {});
  return {
    kill: async () => {
      child.kill("SIGKILL");
      await child.status;
      await writer.close().catch(() => {});
    },
  };
}

both(
  "a real process that is killed with -9 in the middle is recovered, and not before",
  async (place) => {
    const was = await arrayState(place);
    const create = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    await place.faults([{ method: create, do: "delay", ms: 60_000 }]);
    const hook = hookProcess(place, "alloc_image", ALLOC);
    try {
      const until = Date.now() + 20_000;
      while ((await own(place)).length === 0 && Date.now() < until) await place.must("status");
      assertEquals((await own(place)).length, 1);
      assertEquals(outcomes(await recover(place)), ["running"]);
    } finally {
      await hook.kill();
    }
    await place.faults([]);
    assertEquals(outcomes(await recover(place)), ["undone"]);
    const now = await arrayState(place);
    assertEquals([now, await exportCount(place)], [was, 0]);
  },
);
