/** What must never be lost, whatever the array's state: each case was once a way to lose it. */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";

type Release = "25.10" | "26";

function both(
  name: string,
  run: (place: Place) => Promise<void>,
  release: Release = "25.10",
): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, { release });
      const before = await infrastructure(place);
      await run(place);
      assertEquals(await infrastructure(place), before);
    });
  }
}

/** The administrator's own objects, which no volume operation may touch. */
async function infrastructure(place: Place): Promise<unknown> {
  return await place.array(async (nas) => ({
    targets: await nas.targets.all(),
    portals: await nas.portals.all(),
    subsystems: await nas.subsystems.all(),
  }));
}

/** Removes a volume's export as an administrator would, and leaves the zvol. */
async function removeExportByHand(place: Place): Promise<void> {
  const { mappings, extents, namespaces } = await place.objects();
  await place.array(async (nas) => {
    for (const row of mappings ?? []) await nas.targetExtents.remove(row.id, { force: true });
    for (const row of extents ?? []) await nas.extents.remove(row.id, { force: true });
    for (const row of namespaces ?? []) await nas.namespaces.remove(row.id);
  });
}

async function zvolNames(place: Place): Promise<string[]> {
  return ((await place.objects()).zvols ?? []).map((zvol) => String(zvol.name ?? zvol.id ?? zvol));
}

both(
  "a volume whose export was removed by hand is not freed by any name, and the listing says so",
  async (place) => {
    const volname = await place.alloc();
    await removeExportByHand(place);
    const reply = await place.ask("free_image", { volname, isBase: 0, finish: true });
    assertEquals(reply.error?.code, "volume-replaced");
    assertEquals((await zvolNames(place)).length, 1);
    assertEquals(await place.must("list_images"), []);
    assert(place.log.some((line) => line.includes("nothing exports them")));
  },
);

both("a name of the other protocol reaches nothing", async (place) => {
  await place.alloc();
  const uuid = crypto.randomUUID();
  const volname = place.transport === "iscsi"
    ? `vol-vm-100-disk-0-ns${uuid}`
    : "vol-vm-100-disk-0-lun9";
  for (const method of ["free_image", "activate_volume", "volume_size_info"]) {
    const reply = await place.ask(method, { volname, finish: true });
    assertEquals([method, reply.error?.code], [method, "volume-replaced"]);
  }
  assertEquals((await zvolNames(place)).length, 1);
});

both("a free that stopped after the export is gone goes on under the same name", async (place) => {
  const volname = await place.alloc();
  const { token } = await place.must("free_image", { volname, isBase: 0 });
  await removeExportByHand(place);
  assertNotEquals(token, undefined);
  await place.must("free_image", { volname, isBase: 0, finish: true });
  assertEquals(await zvolNames(place), []);
});

both("an undo that fails stops there: the zvol stays, and with it the target", async (place) => {
  const [fails, undo] = place.transport === "iscsi"
    ? ["iscsi.targetextent.query", "iscsi.targetextent.delete"]
    : ["nvmet.namespace.create", "nvmet.namespace.query"];
  await place.faults([
    // The first query is the survey's, the second reads the new LUN back.
    { method: fails, ...(place.transport === "iscsi" ? { nth: 2 } : {}), do: "error", errno: 5 },
    { method: undo, ...(place.transport === "iscsi" ? {} : { nth: 2 }), do: "error", errno: 5 },
  ]);
  const reply = await place.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  assertEquals(reply.ok, false);
  assertStringIncludes(reply.error?.message ?? "", "left behind");
  await place.faults([]);
  assertEquals((await zvolNames(place)).length, 1);
});

both("with the dataset away nothing is taken for gone", async (place) => {
  const volname = await place.alloc();
  for (const method of ["free_image", "volume_size_info", "activate_volume"]) {
    const reply = await place.ask(method, { volname, finish: true }, {
      config: { "tnb-dataset": "tank/away" },
    });
    assertEquals([method, reply.error?.code], [method, "array-fault"]);
  }
});

both(
  "what a dead volume left on the array does not become the identity of a new one",
  async (place) => {
    const volname = await place.alloc();
    const identities = async () => {
      const { extents, namespaces } = await place.objects();
      return [
        ...(extents ?? []).map((extent) => extent.naa),
        ...(namespaces ?? []).map((row) => row.device_uuid),
      ];
    };
    const [dead] = await identities();
    // This node never let go of it, and still knows it under the name.
    await place.must("activate_volume", { volname });
    // On 26 a zvol can go without its extent or namespace, while the service is stopped.
    const service = place.transport === "iscsi" ? "iscsitarget" : "nvmet";
    await place.stopService(service);
    await place.array((nas) => nas.zvols.destroy(`${place.simulator.ready.dataset}/vm-100-disk-0`));
    await place.startService(service);
    const today = await place.alloc();
    assertStringIncludes(today, "vm-100-disk-0");
    const [now, ...more] = await identities();
    assertNotEquals(now, dead);
    assertEquals(more, []);
    if (today !== volname) {
      assertEquals(
        (await place.ask("activate_volume", { volname })).error?.code,
        "volume-replaced",
      );
    }
  },
  "26",
);

for (const what of ["done-then-drop", "cut"]) {
  both(`a free whose connection is lost (${what}) is finished`, async (place) => {
    const volname = await place.alloc();
    const method = place.transport === "iscsi"
      ? "iscsi.targetextent.delete"
      : "nvmet.namespace.delete";
    await place.faults([{ method, nth: 1, do: what }]);
    await place.must("free_image", { volname, isBase: 0, finish: true });
    assertEquals(await zvolNames(place), []);
    assertEquals((await place.objects()).extents, []);
    assertEquals((await place.objects()).namespaces, []);
  });
}

both("a free whose caller's deadline passes is finished", async (place) => {
  const volname = await place.alloc();
  const { token } = await place.must("free_image", { volname, isBase: 0 });
  const method = place.transport === "iscsi"
    ? "iscsi.targetextent.delete"
    : "nvmet.namespace.delete";
  const reply = await place.askAndGiveUp({ method, nth: 1 }, "free_image_finish", { token });
  assertEquals(reply.error?.code, "timeout");
  assertEquals(await zvolNames(place), []);
});

both("a hold on a snapshot refuses the free before the export is touched", async (place) => {
  const volname = await place.alloc();
  const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
  await place.array(async (nas) => {
    await nas.snapshots.create(zvol, "kept");
    await nas.session.call("pool.snapshot.hold", [`${zvol}@kept`, {}]);
  });
  const reply = await place.ask("free_image", { volname, isBase: 0, finish: true });
  assertEquals(reply.error?.code, "has-dependents");
  assertStringIncludes(reply.error?.message ?? "", "kept");
  await place.must("activate_volume", { volname });
});

for (const release of ["25.10", "26"] as const) {
  both(`a volume with snapshots is freed with them on ${release}`, async (place) => {
    const volname = await place.alloc();
    const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
    await place.array(async (nas) => {
      await nas.snapshots.create(zvol, "one");
      await nas.snapshots.create(zvol, "two");
    });
    await place.must("free_image", { volname, isBase: 0, finish: true });
    assertEquals([await zvolNames(place), (await place.objects()).snapshots], [[], []]);
  }, release);

  both(
    `a volume with a clone is not freed on ${release}, and the clone is named`,
    async (place) => {
      const volname = await place.alloc();
      const { dataset } = place.simulator.ready;
      await place.array(async (nas) => {
        await nas.snapshots.create(`${dataset}/vm-100-disk-0`, "one");
        await nas.snapshots.clone(`${dataset}/vm-100-disk-0@one`, `${dataset}/somebodys-clone`);
      });
      const reply = await place.ask("free_image", { volname, isBase: 0, finish: true });
      assertEquals(reply.error?.code, "has-dependents");
      assertStringIncludes(reply.error?.message ?? "", "somebodys-clone");
      await place.must("activate_volume", { volname });
    },
    release,
  );
}

both(
  "a disk in use is not let go of, although this node has forgotten its identity",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await Deno.remove(`${place.directory}/var/lib/tnblock/san/vm-100-disk-0.json`);
    await place.holdOpen(volname);
    assertEquals((await place.ask("deactivate_volume", { volname })).error?.code, "in-use");
    await Deno.stat(place.linkOf(volname));
  },
);

both("a node that cannot keep identities still attaches disks", async (place) => {
  const volname = await place.alloc();
  await Deno.remove(`${place.directory}/var/lib/tnblock`, { recursive: true }).catch(() => {});
  await Deno.writeTextFile(`${place.directory}/var/lib/tnblock`, "in the way");
  await place.must("activate_volume", { volname });
  await Deno.stat(place.linkOf(volname));
  await Deno.remove(`${place.directory}/var/lib/tnblock`);
});

Deno.test("iscsi: an administrator's own extent on a volume is left alone", async () => {
  await using place = await Place.start("iscsi");
  const volname = await place.alloc();
  const { dataset } = place.simulator.ready;
  await removeExportByHand(place);
  await place.array((nas) =>
    nas.extents.create({
      name: "mine",
      zvol: `${dataset}/vm-100-disk-0`,
      blocksize: 512,
      comment: "do not touch",
    })
  );
  assertEquals((await place.ask("free_image", { volname, finish: true })).error?.code, "in-use");
  assertEquals((await place.objects()).extents?.length, 1);
});

both(
  "a volume that was given up late does not take today's volume of its name with it",
  async (place) => {
    const method = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    await place.faults([{ method, nth: 1, do: "hold" }]);
    const late = place.begin("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    await place.held(method);
    // While the array is slow somebody deletes the half-made zvol, and the name is used again.
    const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
    await place.array((nas) => nas.zvols.destroy(zvol));
    const today = await place.alloc();
    assertStringIncludes(today, "vm-100-disk-0");
    late.giveUp();
    assertEquals((await late.reply).error?.code, "timeout");
    await place.faults([]);
    await late.settled;
    assertEquals((await place.must("list_images"))[0]?.volid, `san:${today}`);
    await place.must("activate_volume", { volname: today });
  },
);

both(
  "a disk that was attached again between the two steps of a free is let go of",
  async (place) => {
    const volname = await place.alloc();
    const { token } = await place.must("free_image", { volname, isBase: 0 });
    await place.must("activate_volume", { volname });
    await place.must("free_image_finish", { token });
    assertEquals(await Deno.lstat(place.linkOf(volname)).then(() => true, () => false), false);
    assertEquals(await zvolNames(place), []);
  },
);

both(
  "a storage that takes in another one's dataset, or shares its target or subsystem, is refused",
  async (place) => {
    await place.must("validate_storage");
    await place.alloc();
    await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "other");
    await place.array((nas) =>
      nas.session.call("pool.dataset.create", [{ name: "tank/other", type: "FILESYSTEM" }])
    );
    for (const dataset of ["tank", "tank/other"]) {
      const reply = await place.ask("validate_storage", {}, {
        storage: "other",
        config: { "tnb-dataset": dataset },
      });
      assertEquals([dataset, reply.error?.code], [dataset, "not-ours"]);
    }
  },
);

both(
  "a cloud-init volume that the other protocol exports is not destroyed, nor its target with it",
  async (place) => {
    await place.alloc(100, 4096, "vm-100-cloudinit");
    const { ready } = place.simulator;
    const other = place.transport === "iscsi"
      ? {
        "tnb-transport-mode": "nvme-tcp",
        "tnb-subsystem-nqn": ready.subsystemNqn,
        "tnb-discovery-portal": ready.portals.nvme[0],
        "tnb-portals": ready.portals.nvme.join(","),
      }
      : {
        "tnb-transport-mode": "iscsi",
        "tnb-target-iqn": ready.targetIqn,
        "tnb-discovery-portal": ready.portals.iscsi[0],
        "tnb-portals": ready.portals.iscsi.join(","),
      };
    const reply = await place.ask("free_image", { volname: "vm-100-cloudinit", finish: true }, {
      config: other,
    });
    assertEquals(reply.error?.code, "in-use");
    await place.must("activate_volume", { volname: "vm-100-cloudinit" });
  },
);

both(
  "an undo leaves a volume that was found in a listing and attached meanwhile",
  async (place) => {
    // The answer to the last write is lost for good, but the volume is whole and listed.
    const method = place.transport === "iscsi"
      ? "iscsi.targetextent.query"
      : "nvmet.namespace.create";
    const held = place.transport === "iscsi" ? method : "nvmet.namespace.query";
    await place.faults([
      { method: held, nth: 2, do: "hold" },
      ...place.transport === "iscsi" ? [] : [{ method, nth: 1, do: "done-then-drop" }],
    ]);
    const late = place.begin("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    await place.held(held);
    const [row] = await place.must("list_images");
    const volname = String(row.volid).slice("san:".length);
    await place.must("activate_volume", { volname });
    late.giveUp();
    assertEquals((await late.reply).error?.code, "timeout");
    await place.faults([]);
    await late.settled;
    assertEquals((await place.must("list_images"))[0]?.volid, `san:${volname}`);
  },
);
