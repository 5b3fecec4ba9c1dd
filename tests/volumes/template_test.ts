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
import { Place, TRANSPORTS } from "../support/place.ts";
import { recover } from "../support/mortal.ts";

/** Over both transports and both releases that can rename. */
function everywhere(name: string, run: (place: Place) => Promise<void>): void {
  for (const transport of TRANSPORTS) {
    for (const release of ["25.10", "26"] as const) {
      Deno.test(`${transport}, ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { release });
        await run(place);
      });
    }
  }
}

/** A volume of guest 100 with a text on it. */
async function written(place: Place, text = "content"): Promise<string> {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await Deno.writeTextFile(place.linkOf(volname), text, { create: false });
  return volname;
}

const zvolOf = (place: Place, name: string) => `${place.simulator.ready.dataset}/${name}`;

/** Names of all snapshots. */
async function snapshotNames(place: Place): Promise<string[]> {
  return ((await place.objects()).snapshots ?? []).map((snapshot) => String(snapshot.name));
}

everywhere(
  "a template's disk keeps number or uuid and content, and has the snapshot for its clones",
  async (place) => {
    const volname = await written(place);
    const base = await place.must("create_base", { volname });
    assertEquals(base, volname.replace("vm-100-disk-0", "base-100-disk-0"));
    await place.must("activate_volume", { volname: base });
    assertStringIncludes(await place.beginning(base), "content");
    assertEquals(await snapshotNames(place), [`${zvolOf(place, "base-100-disk-0")}@__base__`]);
    const [row] = await place.must("list_images", { vmid: 100 });
    assertEquals([row.volid, row.parent], [`san:${base}`, undefined]);
  },
);

everywhere("a template costs one write more than a rename", async (place) => {
  const volname = await place.alloc();
  place.calls.length = 0;
  await place.must("create_base", { volname });
  assertEquals(writes(place).length, place.transport === "iscsi" ? 4 : 5);
});

everywhere("making a template again is fine, by its old name and by its new one", async (place) => {
  const volname = await place.alloc();
  const base = await place.must("create_base", { volname });
  const before = await arrayState(place);
  for (const again of [volname, base]) {
    assertEquals(await place.must("create_base", { volname: again }), base);
  }
  assertEquals(await arrayState(place), before);
});

everywhere(
  "a template that stopped before its snapshot gets it by the same call",
  async (place) => {
    const volname = await written(place);
    const base = await place.must("create_base", { volname });
    await place.array((nas) => nas.snapshots.remove(zvolOf(place, "base-100-disk-0"), "__base__"));
    assertEquals(
      (await place.ask("clone_image", { volname: base, vmid: 101 })).error?.code,
      "not-found",
    );
    assertEquals(await place.must("create_base", { volname }), base);
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    await place.must("activate_volume", { volname: clone });
    assertStringIncludes(await place.beginning(clone), "content");
  },
);

everywhere("a linked clone that becomes a template keeps its base in its name", async (place) => {
  const base = await place.must("create_base", { volname: await place.alloc() });
  const clone = await place.must("clone_image", { volname: base, vmid: 101 });
  const second = await place.must("create_base", { volname: clone });
  assertEquals(second, clone.replace("vm-101-disk-0", "base-101-disk-0"));
  const third = await place.must("clone_image", { volname: second, vmid: 102 });
  assert(third.startsWith(`${second.split("/")[1]}/vol-vm-102-disk-0-`), third);
  const renamed = await place.must("rename_volume", { volname: third, targetVmid: 103 });
  assertEquals(renamed, third.replace("vm-102-disk-0", "vm-103-disk-0"));
  const rows = await place.must("list_images", { vmid: 103 });
  assertEquals(rows.map((row: { volid: string }) => row.volid), [`san:${renamed}`]);
});

everywhere(
  "a base with linked clones is not renamed, and names them; without them it is",
  async (place) => {
    const base = await place.must("create_base", { volname: await place.alloc() });
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    const before = await arrayState(place);
    const reply = await place.ask("rename_volume", { volname: base, targetVmid: 200 });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(reply.error?.message ?? "", "vm-101-disk-0");
    assertEquals(await arrayState(place), before);
    await place.must("free_image", { volname: clone, finish: true });
    const renamed = await place.must("rename_volume", { volname: base, targetVmid: 200 });
    assertMatch(renamed, /^vol-base-200-disk-0-/);
    assertMatch(await place.must("clone_image", { volname: renamed, vmid: 101 }), /^vol-base-200/);
  },
);

everywhere(
  "a volume in use, a cloud-init volume and a taken name make no template",
  async (place) => {
    await place.alloc(100, 4096, "vm-100-cloudinit");
    const volname = await written(place);
    await place.holdOpen(volname);
    const before = await arrayState(place);
    assertEquals((await place.ask("create_base", { volname })).error?.code, "in-use");
    const cloudInit = await place.ask("create_base", { volname: "vm-100-cloudinit" });
    assertEquals(cloudInit.error?.code, "unsupported");
    assertEquals(await arrayState(place), before);
    await Deno.remove(`${place.directory}/proc/4711`, { recursive: true });
    await place.array((nas) =>
      nas.zvols.create({
        name: zvolOf(place, "base-100-disk-0"),
        volsize: 1 << 20,
        volblocksize: "16K",
        sparse: true,
      })
    );
    assertEquals((await place.ask("create_base", { volname })).error?.code, "not-ours");
    await place.must("activate_volume", { volname });
  },
);

everywhere(
  "a snapshot left by a template half made is taken anew, unless something hangs on it",
  async (place) => {
    const volname = await written(place, "old");
    const zvol = zvolOf(place, "vm-100-disk-0");
    await place.array((nas) => nas.snapshots.create(zvol, "__base__"));
    await Deno.writeTextFile(place.linkOf(volname), "new", { create: false });
    const foreign = zvolOf(place, "vm-999-foreign");
    await place.array((nas) => nas.snapshots.clone(`${zvol}@__base__`, foreign));
    const before = await arrayState(place);
    const reply = await place.ask("create_base", { volname });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(reply.error?.message ?? "", "vm-999-foreign");
    assertEquals(await arrayState(place), before);
    await place.array((nas) => nas.zvols.destroy(foreign));
    const base = await place.must("create_base", { volname });
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    await place.must("activate_volume", { volname: clone });
    assertStringIncludes(await place.beginning(clone), "new");
    assertEquals((await snapshotNames(place)).length, 1);
  },
);

everywhere(
  "a volume that has a base's name has no older snapshot, at whichever write it was killed",
  async (place) => {
    const zvol = zvolOf(place, "vm-100-disk-0");
    const old = () => place.array((nas) => nas.snapshots.create(zvol, "__base__"));
    const calls = async () => {
      const volname = await written(place, "old");
      await old();
      place.calls.length = 0;
      const base = await place.must("create_base", { volname });
      const found = nthCalls(place.calls).filter(({ method }) =>
        /snapshot\.(?!q)|rename/.test(method)
      );
      await place.must("free_image", { volname: base, finish: true });
      return found.filter(({ method }) => isWrite(method));
    };
    for (const call of await calls()) {
      const volname = await written(place, "old");
      await old();
      await Deno.writeTextFile(place.linkOf(volname), "new", { create: false });
      // From that call on, nothing of its kind works: what is to be taken back stays as well.
      const from = Array.from({ length: 9 }, (_, n) => ({ ...call, nth: call.nth + n }));
      await place.faults(from.map((one) => ({ ...one, do: "error", errno: 5 })));
      assertEquals([call, (await place.ask("create_base", { volname })).ok], [call, false]);
      await place.faults([]);
      const base = await place.must("create_base", { volname });
      const clone = await place.must("clone_image", { volname: base, vmid: 101 });
      await place.must("activate_volume", { volname: clone });
      assertStringIncludes(await place.beginning(clone), "new");
      for (const name of [clone, base]) {
        await place.must("free_image", { volname: name, finish: true });
      }
    }
  },
);

everywhere(
  "a volume with snapshots becomes a template with them, as under the Perl plugin",
  async (place) => {
    const volname = await place.alloc();
    await place.array((nas) => nas.snapshots.create(zvolOf(place, "vm-100-disk-0"), "before"));
    await place.must("create_base", { volname });
    assertEquals((await snapshotNames(place)).sort(), [
      `${zvolOf(place, "base-100-disk-0")}@__base__`,
      `${zvolOf(place, "base-100-disk-0")}@before`,
    ]);
  },
);

everywhere(
  "with each of its calls refused, a template leaves the array as it was",
  async (place) => {
    const calls = await callsOfCreateBase(place);
    const volname = await written(place);
    await failEachCall(place, calls, () => place.ask("create_base", { volname }));
    await place.must("activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "content");
  },
);

for (const what of ["done-then-drop", "cut"]) {
  everywhere(
    `a template whose answer is lost (${what}) at any write is made, or unmade`,
    async (place) => {
      const calls = nthCalls(await callsOfCreateBase(place)).filter((call) => isWrite(call.method));
      for (const call of calls) {
        const volname = await place.alloc();
        const before = await arrayState(place);
        await place.faults([{ ...call, do: what }]);
        const reply = await place.ask("create_base", { volname });
        await place.faults([]);
        assertEquals([call, reply.ok], [call, what === "done-then-drop"]);
        // After a lost answer the array may yet rename it: marks that are right for both names stay until recovery.
        if (!reply.ok) await recover(place);
        if (!reply.ok) assertEquals({ call, ...await arrayState(place) }, { call, ...before });
        else {assertMatch(
            await place.must("clone_image", { volname: reply.result, vmid: 101 }),
            /base/,
          );}
        if (!reply.ok) await place.must("free_image", { volname, finish: true });
        else {
          const [clone] = await place.must("list_images", { vmid: 101 });
          for (const name of [clone.volid.slice("san:".length), reply.result]) {
            await place.must("free_image", { volname: name, finish: true });
          }
        }
      }
    },
  );
}

everywhere(
  "a template whose caller has gone, at any write or after the last, is unmade",
  async (place) => {
    const calls = nthCalls(await callsOfCreateBase(place)).filter((call) => isWrite(call.method));
    const volname = await place.alloc();
    const before = await arrayState(place);
    for (const call of calls) {
      const reply = await place.askAndGiveUp(call, "create_base", { volname });
      assertEquals([call, reply.error?.code], [call, "timeout"]);
      assertEquals({ call, ...await arrayState(place) }, { call, ...before });
    }
  },
);

everywhere("a template whose answer reaches nobody is taken back", async (place) => {
  const volname = await written(place);
  await place.must("deactivate_volume", { volname });
  const before = await disks(place);
  assertEquals(await askInVain(place, "create_base", { volname }), true);
  assertEquals(await disks(place), before);
  await place.must("activate_volume", { volname });
});

/** The calls of a clean run; what it made is gone again. */
async function callsOfCreateBase(place: Place): Promise<string[]> {
  const volname = await place.alloc();
  place.calls.length = 0;
  const base = await place.must("create_base", { volname });
  const calls = [...place.calls];
  await place.must("free_image", { volname: base, finish: true });
  return calls;
}
