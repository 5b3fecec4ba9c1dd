/** The weight of an iSCSI target: made once, whole again after every fault, and nobody's to free. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { isWeight, weightName } from "../../src/volumes/weight.ts";
import { Place } from "../support/place.ts";

const RELEASES = ["25.04", "25.10", "26"] as const;
const WRITE = /\.(create|update|delete|destroy)$/;

/** The weights that are mapped to a LUN: names of their zvols, LUNs, and what each says it weighs down. */
async function weights(place: Place): Promise<{ name: string; lun: number }[]> {
  const { extents, mappings } = await place.objects({ weight: true });
  return (extents ?? []).flatMap((extent) => {
    const name = String(extent.disk ?? extent.path).replace(/^zvol\//, "");
    const luns = (mappings ?? []).filter((row) => row.extent === extent.id).map((row) => row.lunid);
    return isWeight({ name }) ? luns.map((lun) => ({ name, lun })) : [];
  });
}

async function weightZvols(place: Place): Promise<string[]> {
  const { zvols } = await place.objects({ weight: true });
  return (zvols ?? []).map((zvol) => String(zvol.name)).filter((name) => isWeight({ name }));
}

function expected(place: Place): { name: string; lun: number }[] {
  const { dataset, targetIqn } = place.simulator.ready;
  return [{ name: `${dataset}/${weightName(targetIqn)}`, lun: 0 }];
}

for (const release of RELEASES) {
  const test = (name: string, run: (place: Place) => Promise<void>) =>
    Deno.test(`iscsi ${release}: ${name}`, async () => {
      await using place = await Place.start("iscsi", { release });
      await run(place);
    });

  test("validation gives the target a weight at LUN 0, and a second one changes nothing", async (place) => {
    await place.must("validate_storage");
    assertEquals(await weights(place), expected(place));
    const before = JSON.stringify(await place.objects({ weight: true }));
    place.calls.length = 0;
    await place.must("validate_storage");
    assertEquals(JSON.stringify(await place.objects({ weight: true })), before);
    assertEquals(place.calls.filter((method) => WRITE.test(method)), []);
  });

  test("an allocation makes the missing weight, and the next one asks the array for nothing more", async (place) => {
    await place.alloc();
    const [weight, ...more] = await weights(place);
    assertEquals([weight?.name, more], [expected(place)[0]?.name, []]);
    // With little time left the weight is not looked at: what is asked then is the least.
    const asked: string[][] = [];
    for (const deadlineMs of [45_000, 10_000]) {
      place.calls.length = 0;
      const args = { vmid: 100, format: "raw", name: null, sizeKiB: 1024 };
      assertEquals((await place.ask("alloc_image", args, { deadlineMs })).error, undefined);
      assertEquals(place.calls.filter((method) => method === "pool.dataset.create").length, 1);
      asked.push(place.calls.filter((method) => method.endsWith(".query")).sort());
    }
    assertEquals(asked[0], asked[1]);
  });

  test("activation and status make no weight", async (place) => {
    await place.must("activate_storage");
    await place.must("status");
    assertEquals(await weightZvols(place), []);
  });

  for (
    const [step, method] of [
      ["its zvol", "pool.dataset.create"],
      ["its extent", "iscsi.extent.create"],
      ["its mapping", "iscsi.targetextent.create"],
      ["its mark", "pool.dataset.update"],
    ] as const
  ) {
    test(`a lost answer to ${step} leaves one whole weight`, async (place) => {
      // The dataset's mark is written with the same method before.
      const nth = method === "pool.dataset.update" ? 2 : 1;
      await place.faults([{ method, nth, do: "done-then-drop" }]);
      await place.must("validate_storage");
      await place.must("validate_storage");
      assertEquals(await weights(place), expected(place));
      assertEquals(await weightZvols(place), [expected(place)[0]?.name]);
    });

    test(`a failure at ${step} is a warning, and the next allocation makes the weight whole`, async (place) => {
      const nth = method === "pool.dataset.update" ? 2 : 1;
      await place.faults([{ method, nth, do: "error", errno: 5 }]);
      await place.must("validate_storage");
      assert(place.log.some((line) => line.startsWith("warning:") && line.includes("no weight")));
      await place.faults([]);
      const volname = await place.alloc();
      assertEquals((await weights(place)).map(({ name }) => name), [expected(place)[0]?.name]);
      assertEquals((await place.must("list_images")).map((row: { volid: string }) => row.volid), [
        `san:${volname}`,
      ]);
    });
  }

  test("a half-made weight beside other volumes is made whole by the next allocation", async (place) => {
    // The first mapping is the volume's own.
    await place.faults([{ method: "iscsi.targetextent.create", nth: 2, do: "error", errno: 5 }]);
    await place.alloc();
    assertEquals([await weights(place), (await weightZvols(place)).length], [[], 1]);
    await place.faults([]);
    await place.alloc();
    assertEquals((await weights(place)).length, 1);
  });

  test("a weight whose mapping was removed by hand is mapped again by an allocation on the empty target", async (place) => {
    await place.must("validate_storage");
    const { mappings } = await place.objects({ weight: true });
    await place.array((nas) => nas.targetExtents.remove(mappings?.[0]?.id, { force: true }));
    await place.alloc();
    assertEquals((await weights(place)).length, 1);
  });

  test("with LUN 0 taken the weight gets another one", async (place) => {
    await place.array(async (nas) => {
      const zvol = `${place.simulator.ready.dataset}/somebodys`;
      await nas.zvols.create({ name: zvol, volsize: 1 << 20, volblocksize: "16K", sparse: true });
      const extent = await nas.extents.create({ name: "own", zvol, blocksize: 512, comment: "" });
      await nas.targetExtents.create({ target: 1, extent: extent.id, lun: 0 });
    });
    await place.must("validate_storage");
    const [weight, ...more] = await weights(place);
    assertEquals([weight?.name, more], [expected(place)[0]?.name, []]);
    assert(weight?.lun !== 0);
  });

  test("the target outlives its last volume, and the weight its storage's", async (place) => {
    await place.must("validate_storage");
    const volname = await place.alloc();
    await place.must("free_image", { volname, isBase: 0, finish: true });
    assertEquals(await weights(place), expected(place));
  });

  for (
    const legacy of [
      "pve-plugin-weight",
      "pve-weight-pve",
      `pve-weight-pve-${
        // The last generation carries the beginning of the IQN's SHA-1, as ours does.
        weightName("iqn.2005-10.org.freenas.ctl:pve").slice(-8)}`,
    ]
  ) {
    test(`the Perl plugin's ${legacy} is the target's weight: no second one is made`, async (place) => {
      const { dataset } = place.simulator.ready;
      await place.array(async (nas) => {
        const zvol = `${dataset}/${legacy}`;
        await nas.zvols.create({ name: zvol, volsize: 1 << 30, volblocksize: "64K", sparse: true });
        const extent = await nas.extents.create({
          name: legacy,
          zvol,
          blocksize: 512,
          comment: "",
        });
        await nas.targetExtents.create({ target: 1, extent: extent.id, lun: 0 });
      });
      await place.must("validate_storage");
      await place.alloc();
      assertEquals(await weights(place), [{ name: `${dataset}/${legacy}`, lun: 0 }]);
      assertEquals((await place.must("list_images")).length, 1);
    });
  }

  test("a legacy weight that is not mapped weighs nothing: ours is made", async (place) => {
    const { dataset } = place.simulator.ready;
    const zvol = `${dataset}/pve-plugin-weight`;
    await place.array((nas) =>
      nas.zvols.create({ name: zvol, volsize: 1 << 30, volblocksize: "64K", sparse: true })
    );
    await place.must("validate_storage");
    assertEquals(await weights(place), expected(place));
  });

  test("a zvol of the weight's name without our mark is left alone", async (place) => {
    const { dataset, targetIqn } = place.simulator.ready;
    const zvol = `${dataset}/${weightName(targetIqn)}`;
    await place.array((nas) =>
      nas.zvols.create({ name: zvol, volsize: 1 << 20, volblocksize: "16K", sparse: true })
    );
    await place.must("validate_storage");
    assertEquals(await weights(place), []);
    assert(place.log.some((line) => line.includes("carries no mark")));
  });

  test("two nodes that make it at once make one", async (place) => {
    const asked = await Promise.all(
      ["alloc_image", "alloc_image", "validate_storage"].map((method, index) =>
        place.ask(method, { vmid: 100 + index, format: "raw", name: null, sizeKiB: 1024 })
      ),
    );
    assertEquals(asked.map((reply) => reply.error), [undefined, undefined, undefined]);
    await place.must("validate_storage");
    assertEquals((await weights(place)).map(({ name }) => name), [expected(place)[0]?.name]);
    assertEquals((await weightZvols(place)).length, 1);
  });

  test("no name reaches a weight, and no listing shows it", async (place) => {
    await place.must("validate_storage");
    const own = weightName(place.simulator.ready.targetIqn);
    assertEquals(await place.must("list_images"), []);
    for (const volname of [own, `vol-${own}-lun0`, "pve-plugin-weight", "vol-pve-weight-a-lun0"]) {
      assertEquals(await place.must("list_images", { volids: [`san:${volname}`] }), []);
      for (const method of ["free_image", "activate_volume", "volume_size_info", "path"]) {
        const reply = await place.ask(method, { volname, finish: true });
        assertEquals([volname, method, reply.error?.code], [volname, method, "invalid"]);
      }
    }
    assertEquals(await weights(place), expected(place));
  });

  test("an allocation that has little time left leaves the weight to the next one", async (place) => {
    const reply = await place.ask("alloc_image", {
      vmid: 100,
      format: "raw",
      name: null,
      sizeKiB: 1024,
    }, { deadlineMs: 10_000 });
    assertEquals([reply.error, await weightZvols(place)], [undefined, []]);
  });

  test("another storage's weight on the target does not bar the way", async (place) => {
    await place.must("validate_storage");
    await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "other");
    await place.array((nas) =>
      nas.session.call("pool.dataset.create", [{ name: "tank/other", type: "FILESYSTEM" }])
    );
    const reply = await place.ask("validate_storage", {}, {
      storage: "other",
      config: { "tnb-dataset": "tank/other" },
    });
    assertEquals(reply.error, undefined);
    // It is the target's: one is enough.
    assertEquals(await weights(place), expected(place));
  });
}

Deno.test("nvme-tcp: a subsystem needs no weight", async () => {
  await using place = await Place.start("nvme-tcp");
  await place.must("validate_storage");
  await place.alloc();
  assertEquals((await place.objects({ weight: true })).zvols?.length, 1);
});

Deno.test("a weight's name is short, the same for one IQN, and no guest's", () => {
  const name = weightName("iqn.2005-10.org.freenas.ctl:pve");
  assertMatch(name, /^tnb-weight-[0-9a-f]{8}$/);
  assertEquals(name, weightName("iqn.2005-10.org.freenas.ctl:pve"));
  assert(name !== weightName("iqn.2005-10.org.freenas.ctl:other"));
});

for (const name of ["vm-100-disk-0", "base-9-disk-0", "weight", "pve-weight", "tnb-read-0"]) {
  Deno.test(`${name} is no weight`, () =>
    assertEquals(isWeight({ name: `tank/pve/${name}` }), false));
}
