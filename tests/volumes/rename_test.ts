import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  arrayState,
  askInVain,
  disks,
  failEachCall,
  isWrite,
  nthCalls,
  writes,
} from "../support/array_state.ts";
import { isWeight } from "../../src/volumes/weight.ts";
import { Place, type PlaceOptions, TRANSPORTS } from "../support/place.ts";
import { recover } from "../support/mortal.ts";

const RELEASES = ["25.10", "26"] as const;

/** Over both transports and both releases that can rename. */
function everywhere(
  name: string,
  run: (place: Place) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    for (const release of RELEASES) {
      Deno.test(`${transport}, ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { ...options, release });
        await run(place);
      });
    }
  }
}

/** A volume with a text on it that this node has attached. */
async function written(place: Place, text = "content", vmid = 100): Promise<string> {
  const volname = await place.alloc(vmid);
  await place.must("activate_volume", { volname });
  await Deno.writeTextFile(place.linkOf(volname), text, { create: false });
  return volname;
}

/** The present identities of all exports. */
async function identities(place: Place): Promise<string[]> {
  return await place.array(async (nas) => [
    ...(await nas.extents.all()).map((extent) => extent.naa),
    ...(await nas.targetExtents.all()).map((row) => `LUN ${row.lun}`),
    ...(await nas.namespaces.all()).map((row) => `${row.nsid} ${row.uuid} ${row.nguid}`),
  ]);
}

const zvolNames = async (place: Place) =>
  ((await place.objects()).zvols ?? []).map((zvol) => String(zvol.name))
    .filter((name) => !isWeight({ name })).sort();

const update = (place: Place) =>
  place.transport === "iscsi" ? "iscsi.extent.update" : "nvmet.namespace.update";

everywhere(
  "a renamed volume keeps its number or uuid, its identity and its content",
  async (place) => {
    const volname = await written(place);
    const before = await identities(place);
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    assertEquals(renamed, volname.replace("vm-100-disk-0", "vm-200-disk-0"));
    assertEquals(await identities(place), before);
    await place.must("activate_volume", { volname: renamed });
    assertStringIncludes(await place.beginning(renamed), "content");
    const rows = await place.must("list_images");
    assertEquals(rows.map((row: { volid: string; vmid: number }) => [row.volid, row.vmid]), [
      [`san:${renamed}`, 200],
    ]);
    // Nothing of the old name is left on the node.
    assertEquals(await Deno.lstat(place.linkOf(volname)).catch(() => undefined), undefined);
    assertEquals((await place.ask("activate_volume", { volname })).error?.code, "not-found");
  },
);

everywhere(
  "a renamed volume lives on: renamed again, back to its first name, freed",
  async (place) => {
    const volname = await written(place);
    const second = await place.must("rename_volume", { volname, targetVmid: 200 });
    const third = await place.must("rename_volume", { volname: second, targetVmid: "300" });
    assertMatch(third, /vm-300-disk-0/);
    const back = await place.must("rename_volume", {
      volname: third,
      targetVmid: 100,
      targetName: "vm-100-disk-0",
    });
    assertEquals(back, volname);
    await place.must("activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "content");
    await place.must("free_image", { volname, finish: true });
    assertEquals(await zvolNames(place), []);
  },
);

everywhere(
  "a later volume of the old name is another one, and its name free on the array",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    const today = await place.alloc(100, 65536, "vm-100-disk-0");
    assertMatch(today, /vm-100-disk-0/);
    for (const name of [renamed, today]) await place.must("activate_volume", { volname: name });
    await place.must("free_image", { volname: renamed, finish: true });
    assertEquals(await zvolNames(place), [`${place.simulator.ready.dataset}/vm-100-disk-0`]);
    await place.must("activate_volume", { volname: today });
  },
);

everywhere(
  "renaming costs three writes over iSCSI, and one more over NVMe/TCP, which must be switched off for it",
  async (place) => {
    const volname = await place.alloc();
    place.calls.length = 0;
    await place.must("rename_volume", { volname, targetVmid: 200 });
    assertEquals(writes(place).length, place.transport === "iscsi" ? 3 : 4);
  },
);

everywhere(
  "the name may be given whole, and PVE's missing guest is taken from it",
  async (place) => {
    const name = "vm-200-disk-7";
    for (const targetVmid of [undefined, null, "base-100-disk-0", 200]) {
      const volname = await place.alloc();
      const renamed = await place.must("rename_volume", { volname, targetVmid, targetName: name });
      assertMatch(renamed, /^vol-vm-200-disk-7-/);
      await place.must("free_image", { volname: renamed, finish: true });
    }
  },
);

everywhere(
  "names that are none of the target guest's are refused, and nothing is touched",
  async (place) => {
    const volname = await place.alloc();
    await place.alloc(200, 1024, "vm-200-disk-3");
    await place.array((nas) =>
      nas.zvols.create({
        name: `${place.simulator.ready.dataset}/vm-200-disk-4`,
        volsize: 1 << 20,
        volblocksize: "16K",
        sparse: true,
      })
    );
    const before = await arrayState(place);
    const cases: [unknown, string | undefined, string][] = [
      [200, "vm-201-disk-0", "invalid"],
      [200, "vm-200-disk-0/../x", "invalid"],
      [200, "base-200-disk-0", "invalid"],
      [200, "vm-200-cloudinit", "invalid"],
      [undefined, undefined, "invalid"],
      ["x", "", "invalid"],
      [200, "vm-200-disk-3", "exists"],
      [200, "vm-200-disk-4", "not-ours"],
    ];
    for (const [targetVmid, targetName, code] of cases) {
      const reply = await place.ask("rename_volume", { volname, targetVmid, targetName });
      assertEquals([targetName, reply.error?.code], [targetName, code]);
    }
    assertEquals(await arrayState(place), before);
    // Without a name the first free one is taken.
    assertMatch(await place.must("rename_volume", { volname, targetVmid: 200 }), /vm-200-disk-0-/);
  },
);

everywhere(
  "what is no disk yet gets a disk's name with another guest, as PVE's own storages give it",
  async (place) => {
    for (const [number, name] of ["vm-100-state-suspend", "vm-100-fleece-0"].entries()) {
      const volname = await place.alloc(100, 1024, name);
      const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
      assertEquals(renamed, volname.replace(name, `vm-200-disk-${number}`));
    }
  },
);

everywhere("a cloud-init volume stays one, and has no number in its name", async (place) => {
  await place.alloc(100, 4096, "vm-100-cloudinit");
  const renamed = await place.must("rename_volume", {
    volname: "vm-100-cloudinit",
    targetVmid: 200,
  });
  assertEquals(renamed, "vm-200-cloudinit");
  assertEquals((await place.must("list_images"))[0].volid, "san:vm-200-cloudinit");
  await place.must("activate_volume", { volname: renamed });
});

everywhere("a volume in use here, or by a guest elsewhere, is not renamed", async (place) => {
  const volname = await written(place);
  const before = await arrayState(place);
  const conf = `${place.directory}/etc/pve/nodes/pve2/qemu-server`;
  await Deno.mkdir(conf, { recursive: true });
  await Deno.writeTextFile(`${conf}/100.conf`, `scsi0: san:${volname},size=64M\n`);
  const elsewhere = await place.ask("rename_volume", { volname, targetVmid: 200 });
  assertEquals(elsewhere.error?.code, "in-use");
  assertStringIncludes(elsewhere.error?.message ?? "", "pve2");
  await Deno.remove(`${conf}/100.conf`);
  await place.holdOpen(volname);
  const here = await place.ask("rename_volume", { volname, targetVmid: 200 });
  assertEquals(here.error?.code, "in-use");
  assertStringIncludes(here.error?.message ?? "", "qemu-system-x86");
  assertEquals(await arrayState(place), before);
});

everywhere(
  "a volume whose snapshot a node reads is not renamed, and the node is named",
  async (place) => {
    const volname = await place.alloc();
    const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
    await place.array(async (nas) => {
      await nas.snapshots.create(zvol, "backup");
      const clone = `${place.simulator.ready.dataset}/tnb-read-0123456789abcdef`;
      await nas.snapshots.clone(`${zvol}@backup`, clone);
      await nas.zvols.setUserProperties(clone, {
        "tnblock:volume": clone,
        "tnblock:reads": `${zvol}@backup`,
        "tnblock:node": "pve7",
      });
    });
    for (
      const [method, args] of [["rename_volume", { targetVmid: 200 }], ["create_base", {}]] as const
    ) {
      const reply = await place.ask(method, { volname, ...args });
      assertEquals([method, reply.error?.code], [method, "in-use"]);
      assertStringIncludes(reply.error?.message ?? "", "pve7");
    }
  },
);

everywhere(
  "a stale name is refused, and so is a volume that is exported twice or not at all",
  async (place) => {
    const volname = await place.alloc();
    const stale = place.transport === "iscsi"
      ? volname.replace(/\d+$/, (lun) => String((Number(lun) + 1) % 256))
      : volname.replace(/ns.*$/, `ns${crypto.randomUUID()}`);
    const reply = await place.ask("rename_volume", { volname: stale, targetVmid: 200 });
    assertEquals(reply.error?.code, "volume-replaced");
    await place.array(async (nas) => {
      for (const row of await nas.targetExtents.all()) {
        await nas.targetExtents.remove(row.id, { force: true });
      }
      for (const row of await nas.namespaces.all()) await nas.namespaces.remove(row.id);
    });
    const lost = await place.ask("rename_volume", { volname, targetVmid: 200 });
    assertEquals(lost.error?.code, "not-found");
    assertEquals(await zvolNames(place), [`${place.simulator.ready.dataset}/vm-100-disk-0`]);
  },
);

everywhere(
  "with each of its calls refused, a rename leaves the array as it was, and foreign objects too",
  async (place) => {
    const volname = await place.alloc();
    await place.alloc(300);
    // A second rename has marks of a first one to put back.
    const once = await place.must("rename_volume", { volname, targetVmid: 150 });
    place.calls.length = 0;
    const there = await place.must("rename_volume", { volname: once, targetVmid: 200 });
    const calls = [...place.calls];
    const back = await place.must("rename_volume", {
      volname: there,
      targetVmid: 150,
      targetName: "vm-150-disk-0",
    });
    await failEachCall(
      place,
      calls,
      () => place.ask("rename_volume", { volname: back, targetVmid: 200 }),
    );
    await place.must("activate_volume", { volname: back });
  },
);

for (const what of ["done-then-drop", "cut"]) {
  everywhere(
    `a rename whose answer is lost (${what}) at any write is done, or undone`,
    async (place) => {
      const volname = await written(place);
      place.calls.length = 0;
      const there = await place.must("rename_volume", { volname, targetVmid: 200 });
      const calls = nthCalls(place.calls).filter((call) => isWrite(call.method));
      const back = () =>
        place.must("rename_volume", {
          volname: there,
          targetVmid: 100,
          targetName: "vm-100-disk-0",
        });
      await back();
      for (const call of calls) {
        const before = await arrayState(place);
        await place.faults([{ ...call, do: what }]);
        const reply = await place.ask("rename_volume", { volname, targetVmid: 200 });
        await place.faults([]);
        assertEquals([call, reply.ok], [call, what === "done-then-drop"]);
        // After a lost answer the array may yet rename it: marks that are right for both names stay until recovery.
        if (!reply.ok) await recover(place);
        if (!reply.ok) assertEquals({ call, ...await arrayState(place) }, { call, ...before });
        else {
          assertEquals(reply.result, there);
          await back();
        }
      }
      await place.must("activate_volume", { volname });
      assertStringIncludes(await place.beginning(volname), "content");
    },
  );
}

everywhere(
  "a rename whose caller has gone, at any write or after the last, is undone",
  async (place) => {
    const volname = await place.alloc();
    place.calls.length = 0;
    const there = await place.must("rename_volume", { volname, targetVmid: 200 });
    const calls = nthCalls(place.calls).filter((call) => isWrite(call.method));
    await place.must("rename_volume", {
      volname: there,
      targetVmid: 100,
      targetName: "vm-100-disk-0",
    });
    const before = await arrayState(place);
    for (const call of calls) {
      const reply = await place.askAndGiveUp(call, "rename_volume", { volname, targetVmid: 200 });
      assertEquals([call, reply.error?.code], [call, "timeout"]);
      assertEquals({ call, ...await arrayState(place) }, { call, ...before });
    }
  },
);

everywhere("a rename whose answer reaches nobody is taken back", async (place) => {
  const volname = await written(place);
  await place.must("deactivate_volume", { volname });
  const before = await disks(place);
  assertEquals(await askInVain(place, "rename_volume", { volname, targetVmid: 200 }), true);
  assertEquals(await disks(place), before);
  await place.must("activate_volume", { volname });
});

everywhere("the device node of the new name may come late", async (place) => {
  const volname = await place.alloc();
  const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
  await place.must("activate_volume", { volname: renamed });
}, { latency: "lan" });

everywhere("a reload that fails is undone", async (place) => {
  const volname = await place.alloc();
  const before = await arrayState(place);
  const service = place.transport === "iscsi" ? "iscsitarget" : "nvmet";
  for (const nth of [1, 2]) {
    await place.faults([{ method: `reload.${service}`, nth, do: "error" }]);
    const reply = await place.ask("rename_volume", { volname, targetVmid: 200 });
    await place.faults([]);
    assertEquals([nth, reply.ok], [nth, false]);
    assertEquals({ nth, ...await arrayState(place) }, { nth, ...before });
  }
  await place.must("activate_volume", { volname });
});

everywhere(
  "a reload by somebody else between rename and re-pointing does not lose the disk",
  async (place) => {
    const volname = await written(place);
    const nth = place.transport === "iscsi" ? 1 : 2;
    await place.faults([{ method: update(place), nth, do: "hold" }]);
    const rename = place.ask("rename_volume", { volname, targetVmid: 200 });
    await place.held(update(place));
    // Another volume of the storage is made meanwhile: a reload over the whole configuration.
    const other = await place.alloc(300);
    await place.faults([]);
    const renamed = (await rename).result;
    for (const name of [renamed, other]) await place.must("activate_volume", { volname: name });
    assertStringIncludes(await place.beginning(renamed), "content");
  },
);

everywhere("a name that somebody takes at the last moment is left to him", async (place) => {
  const volname = await place.alloc();
  const path = `${place.simulator.ready.dataset}/vm-200-disk-0`;
  await place.faults([{ method: "pool.dataset.rename", nth: 1, do: "hold" }]);
  place.calls.length = 0;
  const rename = place.ask("rename_volume", { volname, targetVmid: 200 });
  await place.held("pool.dataset.rename");
  await place.array((nas) =>
    nas.zvols.create({ name: path, volsize: 1 << 20, volblocksize: "16K", sparse: true })
  );
  await place.faults([]);
  assertMatch((await rename).result, /^vol-vm-200-disk-1-/);
  const taken = (await place.objects()).zvols?.find((zvol) => zvol.name === path);
  assertEquals(taken?.user_properties, {});
});

everywhere(
  "a rename that stopped half-way is finished by the same call, also under the name it got",
  async (place) => {
    for (const targetName of [undefined, "vm-200-disk-0"]) {
      const volname = await written(place);
      await stopHalfWay(place, "vm-200-disk-0");
      const before = await identities(place);
      const renamed = await place.must("rename_volume", { volname, targetVmid: 200, targetName });
      assertEquals(renamed, volname.replace("vm-100-disk-0", "vm-200-disk-0"));
      assertEquals(await identities(place), before);
      await place.must("activate_volume", { volname: renamed });
      assertStringIncludes(await place.beginning(renamed), "content");
      // And once more, when only its answer was lost.
      assertEquals(
        await place.must("rename_volume", { volname, targetVmid: 200, targetName }),
        renamed,
      );
      await place.must("free_image", { volname: renamed, finish: true });
    }
  },
);

everywhere(
  "a rename that stopped half-way goes on to another name when that is asked for",
  async (place) => {
    const volname = await written(place);
    await stopHalfWay(place, "vm-200-disk-0");
    const renamed = await place.must("rename_volume", { volname, targetVmid: 300 });
    assertEquals(renamed, volname.replace("vm-100-disk-0", "vm-300-disk-0"));
    await place.must("activate_volume", { volname: renamed });
    assertStringIncludes(await place.beginning(renamed), "content");
  },
);

everywhere(
  "a volume's former name asks for what its rename did and for nothing else",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    const before = await arrayState(place);
    for (
      const [method, args] of [
        ["rename_volume", { targetVmid: 300 }],
        ["rename_volume", { targetVmid: 200, targetName: "vm-200-disk-1" }],
        ["create_base", {}],
      ] as const
    ) {
      const reply = await place.ask(method, { volname, ...args });
      assertEquals([method, reply.error?.code], [method, "volume-replaced"]);
      assertStringIncludes(reply.error?.message ?? "", "vm-200-disk-0");
    }
    // PVE asks again whose answer was lost: it has written no configuration.
    assertEquals(await place.must("rename_volume", { volname, targetVmid: 200 }), renamed);
    const conf = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
    await Deno.mkdir(conf, { recursive: true });
    await Deno.writeTextFile(`${conf}/200.conf`, `scsi0: san:${renamed},size=64M\n`);
    const stale = await place.ask("rename_volume", { volname, targetVmid: 200 });
    assertEquals(stale.error?.code, "volume-replaced");
    assertEquals(await arrayState(place), before);
  },
);

everywhere("a half-renamed volume is left alone while a guest elsewhere has it", async (place) => {
  const volname = await place.alloc();
  await stopHalfWay(place, "vm-200-disk-0");
  const before = await arrayState(place);
  const conf = `${place.directory}/etc/pve/nodes/pve2/qemu-server`;
  await Deno.mkdir(conf, { recursive: true });
  for (const name of [volname, volname.replace("vm-100", "vm-200")]) {
    await Deno.writeTextFile(`${conf}/100.conf`, `scsi0: san:${name},size=64M\n`);
    for (
      const [method, args] of [["rename_volume", { targetVmid: 200 }], ["create_base", {}]] as const
    ) {
      const reply = await place.ask(method, { volname, ...args });
      assertEquals([name, method, reply.error?.code], [name, method, "in-use"]);
    }
  }
  assertEquals(await arrayState(place), before);
});

everywhere(
  "a half-renamed volume whose next rename fails has its old name, whole",
  async (place) => {
    const volname = await written(place);
    await stopHalfWay(place, "vm-200-disk-0");
    // The first takes the old rename back.
    await place.faults([{ method: "pool.dataset.rename", nth: 2, do: "error", errno: 5 }]);
    assertEquals((await place.ask("rename_volume", { volname, targetVmid: 300 })).ok, false);
    await place.faults([]);
    await place.must("activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "content");
  },
);

everywhere("a half-renamed volume may keep its name", async (place) => {
  const volname = await written(place);
  await stopHalfWay(place, "vm-200-disk-0");
  const args = { volname, targetVmid: 100, targetName: "vm-100-disk-0" };
  assertEquals(await place.must("rename_volume", args), volname);
  await place.must("activate_volume", { volname });
});

everywhere(
  "an undone rename is exported again, whoever reloaded while the zvol was away",
  async (place) => {
    const volname = await written(place);
    const nth = place.transport === "iscsi" ? 1 : 2;
    await place.faults([
      { method: update(place), nth, do: "error", errno: 5 },
      { method: "pool.dataset.rename", nth: 2, do: "hold" },
    ]);
    const rename = place.ask("rename_volume", { volname, targetVmid: 200 });
    await place.held("pool.dataset.rename");
    await place.alloc(300);
    await place.faults([]);
    assertEquals((await rename).ok, false);
    await place.must("activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "content");
  },
);

everywhere("a rename that stopped before the zvol's own leaves it on again", async (place) => {
  const volname = await written(place);
  await stopHalfWay(place, "vm-200-disk-0", false);
  const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
  await place.must("activate_volume", { volname: renamed });
});

everywhere(
  "an export of somebody else's making under the new path is not touched",
  async (place) => {
    const volname = await place.alloc();
    const dead = await place.alloc(200);
    // On 26 a zvol can go without its extent or namespace, while the service is stopped.
    const service = place.transport === "iscsi" ? "iscsitarget" : "nvmet";
    const zvol = `${place.simulator.ready.dataset}/vm-200-disk-0`;
    await place.stopService(service);
    await place.array((nas) =>
      nas.session.call("pool.dataset.rename", [zvol, {
        new_name: `${zvol}-away`,
        force: true,
      }])
    );
    await place.startService(service);
    assert(dead.includes("vm-200-disk-0"));
    const named = await place.ask("rename_volume", {
      volname,
      targetVmid: 200,
      targetName: "vm-200-disk-0",
    });
    assertEquals(named.error?.code, "exists");
    assertMatch(await place.must("rename_volume", { volname, targetVmid: 200 }), /vm-200-disk-1-/);
  },
);

Deno.test("iscsi: an extent that keeps another's name does not stand in the way of a new volume", async () => {
  await using place = await Place.start("iscsi");
  const volname = await place.alloc();
  const path = `${place.simulator.ready.dataset}/vm-100-disk-0`;
  // Renamed in TrueNAS by hand: the extent points at the new path, under its old name.
  await place.array(async (nas) => {
    const [extent] = await nas.extents.byZvol(path);
    await nas.zvols.rename(path, `${path}-mine`);
    if (extent !== undefined) await nas.extents.update(extent.id, { zvol: `${path}-mine` });
  });
  const today = await place.alloc();
  assertMatch(today, /vm-100-disk-0/);
  await place.must("activate_volume", { volname: today });
  const extents = (await place.objects()).extents ?? [];
  assertEquals(extents.filter((row) => String(row.path).startsWith(`zvol/${path}`)).length, 2);
  assert(today !== volname);
});

Deno.test("iscsi: an extent that was named otherwise keeps its name", async () => {
  await using place = await Place.start("iscsi");
  const volname = await place.alloc();
  await place.array(async (nas) => {
    const [extent] = await nas.extents.byZvol(`${place.simulator.ready.dataset}/vm-100-disk-0`);
    if (extent?.zvol !== undefined) {
      await nas.extents.update(extent.id, { zvol: extent.zvol, name: "legacy" });
    }
  });
  await place.must("rename_volume", { volname, targetVmid: 200 });
  const extents = (await place.objects()).extents ?? [];
  assertEquals(
    extents.find((row) => row.name === "legacy")?.path,
    `zvol/${place.simulator.ready.dataset}/vm-200-disk-0`,
  );
});

Deno.test("iscsi, 25.04: renaming and templates are refused with the reason, and nothing is touched", async () => {
  await using place = await Place.start("iscsi", { release: "25.04" });
  const volname = await place.alloc();
  const before = await arrayState(place);
  for (
    const [method, args] of [["rename_volume", { targetVmid: 200 }], ["create_base", {}]] as const
  ) {
    const reply = await place.ask(method, { volname, ...args });
    assertEquals([method, reply.error?.code], [method, "unsupported"]);
    assertStringIncludes(reply.error?.message ?? "", "25.04");
    assertStringIncludes(reply.error?.hint ?? "", "25.10");
  }
  assertEquals(await arrayState(place), before);
});

/**
 * Leaves the array as a node does that dies in the middle of renaming guest 100's first disk: marked, NVMe
 * switched off, and the zvol renamed.
 */
async function stopHalfWay(place: Place, to: string, isRenamed = true): Promise<void> {
  const { dataset } = place.simulator.ready;
  const from = `${dataset}/vm-100-disk-0`;
  await place.array(async (nas) => {
    const [extent] = await nas.extents.byZvol(from);
    const namespace = await nas.namespaces.byZvol(from);
    await nas.zvols.setUserProperties(from, {
      "tnblock:volume": from,
      "tnblock:rename-to": `${dataset}/${to}`,
      "tnblock:rename-id": extent?.naa ?? namespace?.uuid,
      "tnblock:op": crypto.randomUUID(),
    });
    if (namespace !== undefined) await nas.namespaces.update(namespace.id, { enabled: false });
    if (isRenamed) await nas.zvols.rename(from, `${dataset}/${to}`);
  });
}
