import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
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

const RELEASES = ["25.10", "26"] as const;
type Release = "25.04" | typeof RELEASES[number];

/** Over both transports and the releases that differ; 25.04 has no NVMe-oF. */
function everywhere(
  name: string,
  run: (place: Place, release: Release) => Promise<void>,
  releases: readonly Release[] = ["25.04", ...RELEASES],
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    for (const release of releases) {
      if (transport === "nvme-tcp" && release === "25.04") continue;
      Deno.test(`${transport}, ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { ...options, release });
        await run(place, release);
      });
    }
  }
}

const plain = (volname: string) => volname.slice(volname.lastIndexOf("/") + 1);
const disk = (place: Place, volname: string) => place.beginning(volname);

/** A volume with a text on it, and a snapshot of that. */
async function withSnapshot(place: Place, text = "content", snapshot = "one"): Promise<string> {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await Deno.writeTextFile(place.linkOf(volname), text, { create: false });
  const zvol = /^vol-(.*)-(?:lun|ns)/.exec(volname)?.[1];
  await place.array((nas) =>
    nas.snapshots.create(`${place.simulator.ready.dataset}/${zvol}`, snapshot)
  );
  return volname;
}

/** A base with a text on it. */
async function withBase(place: Place, text = "content"): Promise<string> {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await Deno.writeTextFile(place.linkOf(volname), text, { create: false });
  return await place.must("create_base", { volname });
}

everywhere(
  "a clone of a snapshot has its content, an export of its own, and a plain name",
  async (place) => {
    const volname = await withSnapshot(place, "before");
    await Deno.writeTextFile(place.linkOf(volname), "after!", { create: false });
    const clone = await place.must("clone_image", { volname, vmid: 101, snapshot: "one" });
    assertMatch(clone, /^vol-vm-101-disk-0-(?:lun|ns)/);
    assertNotEquals(clone.replace("101", "100"), volname);
    await place.must("activate_volume", { volname: clone });
    assertStringIncludes(await disk(place, clone), "before");
    assertStringIncludes(await disk(place, volname), "after!");
    const rows = await place.must("list_images", { vmid: 101 });
    assertEquals(rows.map((row: { volid: string }) => row.volid), [`san:${clone}`]);
  },
);

everywhere("what is written to a clone or to its base stays there", async (place) => {
  const base = await withBase(place, "template");
  const clone = await place.must("clone_image", { volname: base, vmid: 101 });
  await place.must("activate_volume", { volname: clone });
  await place.must("activate_volume", { volname: base });
  await Deno.writeTextFile(place.linkOf(clone), "CLONE", { create: false });
  assertStringIncludes(await disk(place, base), "template");
  assertStringIncludes(await disk(place, clone), "CLONE");
}, RELEASES);

everywhere(
  "a clone of a base is listed in the slash form with its parent, and known by both forms",
  async (place) => {
    const base = await withBase(place);
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    assert(clone.startsWith(`${base}/vol-vm-101-disk-0-`));
    const [row] = await place.must("list_images", { vmid: 101 });
    assertEquals([row.volid, row.parent], [`san:${clone}`, base]);
    for (const volname of [clone, plain(clone)]) {
      assertEquals((await place.must("volume_size_info", { volname })).size, 65536 * 1024);
      await place.must("activate_volume", { volname });
    }
  },
  RELEASES,
);

everywhere("names of clones count up from the first hole", async (place) => {
  const volname = await withSnapshot(place);
  await place.alloc(101);
  const first = await place.must("clone_image", { volname, vmid: 101, snapshot: "one" });
  const second = await place.must("clone_image", { volname, vmid: "101", snapshot: "one" });
  assertMatch(first, /vm-101-disk-1-/);
  assertMatch(second, /vm-101-disk-2-/);
});

everywhere("a clone costs as few writes as the release allows", async (place, release) => {
  const volname = await withSnapshot(place);
  place.calls.length = 0;
  await place.must("clone_image", { volname, vmid: 101, snapshot: "one" });
  // The clone call of 26 takes no marks: they are a write of their own there.
  const marking = release === "26" ? 1 : 0;
  assertEquals(writes(place).length, (place.transport === "iscsi" ? 3 : 2) + marking);
});

everywhere(
  "a snapshot that is missing, a base without its own and a source that is none are told apart",
  async (place) => {
    const volname = await place.alloc();
    const before = await arrayState(place);
    const missing = await place.ask("clone_image", { volname, vmid: 101, snapshot: "gone" });
    assertEquals(missing.error?.code, "not-found");
    assertStringIncludes(missing.error?.message ?? "", '"gone"');
    assertEquals((await place.ask("clone_image", { volname, vmid: 101 })).error?.code, "invalid");
    const stale = volname.replace(
      /(?:lun\d+|ns.*)$/,
      (tag) =>
        tag.startsWith("lun")
          ? `lun${(Number(tag.slice(3)) + 1) % 256}`
          : `ns${crypto.randomUUID()}`,
    );
    const other = await place.ask("clone_image", { volname: stale, vmid: 101, snapshot: "gone" });
    assertEquals(other.error?.code, "volume-replaced");
    assertEquals(await arrayState(place), before);
  },
);

everywhere("with each of its calls refused, a clone leaves the array as it was", async (place) => {
  const volname = await withSnapshot(place);
  const args = { volname, vmid: 101, snapshot: "one" };
  const run = () => place.ask("clone_image", args);
  place.calls.length = 0;
  const clone = await place.must("clone_image", args);
  const calls = [...place.calls];
  await place.must("free_image", { volname: clone, finish: true });
  await failEachCall(place, calls, run);
});

for (const what of ["done-then-drop", "cut"]) {
  everywhere(
    `a clone whose answer is lost (${what}) at any write is there once, or not at all`,
    async (place) => {
      const volname = await withSnapshot(place);
      const args = { volname, vmid: 101, snapshot: "one" };
      const before = await arrayState(place);
      place.calls.length = 0;
      const first = await place.must("clone_image", args);
      const calls = nthCalls(place.calls).filter((call) => isWrite(call.method));
      await place.must("free_image", { volname: first, finish: true });
      for (const call of calls) {
        await place.faults([{ ...call, do: what }]);
        const reply = await place.ask("clone_image", args);
        // What was done is found again, marks are set again, and nothing else is done twice.
        const isMarking = call.method === "pool.dataset.update";
        assertEquals([call, reply.ok], [call, isMarking || what === "done-then-drop"]);
        await place.faults([]);
        if (reply.ok) {
          assertEquals((await place.must("list_images", { vmid: 101 })).length, 1);
          await place.must("activate_volume", { volname: reply.result });
          await place.must("free_image", { volname: reply.result, finish: true });
        }
        assertEquals({ call, ...await arrayState(place) }, { call, ...before });
      }
    },
    ["25.04", ...RELEASES],
  );
}

everywhere("a clone whose caller has gone is taken back", async (place) => {
  const volname = await withSnapshot(place);
  const before = await arrayState(place);
  const method = place.transport === "iscsi"
    ? "iscsi.targetextent.create"
    : "nvmet.namespace.create";
  const reply = await place.askAndGiveUp({ method, nth: 1 }, "clone_image", {
    volname,
    vmid: 101,
    snapshot: "one",
  });
  assertEquals(reply.error?.code, "timeout");
  assertEquals(await arrayState(place), before);
});

everywhere(
  "a clone of a thick storage reserves its size, and is refused without room for it",
  async (place) => {
    const volname = await withSnapshot(place);
    const args = { volname, vmid: 101, snapshot: "one" };
    await place.must("clone_image", args);
    const clone = await place.must("clone_image", args, { config: { "tnb-sparse": 0 } });
    const zvols = (await place.objects()).zvols ?? [];
    const reserved = (number: number) =>
      zvols.find((zvol) => zvol.name.endsWith(`vm-101-disk-${number}`))?.refreservation;
    assertMatch(clone, /vm-101-disk-1-/);
    assertEquals([reserved(0), reserved(1)], [0, 65536 * 1024]);
  },
);

everywhere("a base with clones is not freed, and names them", async (place) => {
  const base = await withBase(place);
  await place.must("clone_image", { volname: base, vmid: 101 });
  const before = await arrayState(place);
  const reply = await place.ask("free_image", { volname: base, isBase: 1, finish: true });
  assertEquals(reply.error?.code, "has-dependents");
  assertStringIncludes(reply.error?.message ?? "", "vm-101-disk-0");
  assertEquals(await arrayState(place), before);
}, RELEASES);

everywhere("a clone whose answer reaches nobody is taken back", async (place) => {
  const volname = await withSnapshot(place);
  await place.must("deactivate_volume", { volname });
  const before = await disks(place);
  assertEquals(
    await askInVain(place, "clone_image", { volname, vmid: 101, snapshot: "one" }),
    true,
  );
  assertEquals(await disks(place), before);
  await place.must("activate_volume", { volname });
});

everywhere("a base whose clones are gone is freed", async (place) => {
  const base = await withBase(place);
  const clone = await place.must("clone_image", { volname: base, vmid: 101 });
  await place.must("free_image", { volname: clone, finish: true });
  await place.must("free_image", { volname: base, isBase: 1, finish: true });
  const { zvols = [], snapshots } = await place.objects();
  assertEquals(zvols.filter((zvol) => !isWeight({ name: String(zvol.name) })), []);
  assertEquals(snapshots, []);
}, RELEASES);

everywhere("a clone is freed with what is on it, and its base stays", async (place) => {
  const base = await withBase(place);
  const before = await arrayState(place);
  const clone = await place.must("clone_image", { volname: base, vmid: 101 });
  await place.must("activate_volume", { volname: clone });
  await place.must("free_image", { volname: clone, finish: true });
  assertEquals(await arrayState(place), before);
}, RELEASES);

everywhere(
  "on 25.04 a user without full rights is told what cloning needs",
  async (place) => {
    const volname = await place.alloc();
    await place.array((nas) =>
      nas.snapshots.create(`${place.simulator.ready.dataset}/vm-100-disk-0`, "one")
    );
    const before = await arrayState(place);
    const reply = await place.ask("clone_image", { volname, vmid: 101, snapshot: "one" });
    assertEquals(reply.error?.code, "denied");
    assertStringIncludes(reply.error?.message ?? "", "full administrators");
    assertEquals(await arrayState(place), before);
  },
  ["25.04"],
  {
    roles: [
      "READONLY_ADMIN",
      "DATASET_WRITE",
      "DATASET_DELETE",
      "SNAPSHOT_WRITE",
      "SNAPSHOT_DELETE",
      "SHARING_ISCSI_WRITE",
    ],
  },
);
