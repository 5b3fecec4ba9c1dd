/** Growing a volume: on the array, on this node online and offline, and on a node that comes later. */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { planGrowth } from "../../src/volumes/size.ts";
import { both } from "../support/both.ts";
import { Place } from "../support/place.ts";

const MIB = 1024 * 1024;

/** Bytes that the kernel of a node knows the volume's disk to have. */
async function sizeHere(place: Place, volname: string, node?: string): Promise<number> {
  const root = node === undefined ? place.directory : place.node(node).directory;
  const name = (await Deno.realPath(place.linkOf(volname, node))).split("/").at(-1);
  return 512 * Number(await Deno.readTextFile(`${root}/sys/class/block/${name}/size`));
}

/** Bytes that each iSCSI path of the node is known to have. */
async function pathSizes(place: Place): Promise<number[]> {
  const sizes = [];
  for await (const { name } of Deno.readDir(`${place.directory}/sys/block`)) {
    if (!name.startsWith("sd")) continue;
    sizes.push(
      512 * Number(await Deno.readTextFile(`${place.directory}/sys/block/${name}/size`)),
    );
  }
  return sizes;
}

async function sizeOnArray(place: Place, volname: string): Promise<number> {
  return (await place.must("volume_size_info", { volname })).size;
}

function writes(place: Place): string[] {
  return place.calls.filter((method) => /\.(create|update|delete|destroy|rename)$/.test(method));
}

/** The names under which the volume's zvol and its namesakes go on the array. */
function pathOf(place: Place, zvol = "vm-100-disk-0"): string {
  return `${place.simulator.ready.dataset}/${zvol}`;
}

for (const running of [0, 1]) {
  both(
    `an attached volume grows in one write, and the node has its size on return (running ${running})`,
    async (place) => {
      const volname = await place.alloc();
      await place.must("activate_volume", { volname });
      if (running === 1) await place.holdOpen(volname);
      await Deno.writeTextFile(place.linkOf(volname), "the guest's data", { create: false });
      place.calls.length = 0;
      await place.must("volume_resize", { volname, size: 96 * MIB, running });
      assertEquals(writes(place), ["pool.dataset.update"]);
      assertEquals(await sizeHere(place, volname), 96 * MIB);
      assertEquals((await Deno.stat(place.linkOf(volname))).size, 96 * MIB);
      assertEquals(
        await pathSizes(place),
        place.transport === "iscsi" ? [96 * MIB, 96 * MIB] : [],
      );
      assertEquals(await sizeOnArray(place, volname), 96 * MIB);
      const read = (await Deno.readTextFile(place.linkOf(volname))).slice(0, 16);
      assertEquals(read, "the guest's data");
    },
  );
}

both("what is attached stays active without an array call after it grew", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 0 });
  place.calls.length = 0;
  await place.must("activate_volume", { volname });
  assertEquals(place.calls, []);
});

both("a volume that is not attached here grows on the array, and nothing else", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.must("deactivate_volume", { volname });
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 0 });
  assertEquals(await sizeOnArray(place, volname), 96 * MIB);
  assertEquals(await pathSizes(place), []);
  assertEquals(await Deno.stat(place.linkOf(volname)).then(() => true, () => false), false);
});

both("a guest that is said to run where the volume is not attached is a warning", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 1 });
  assert(place.log.some((line) => /^warning:.*said to run/.test(line)), place.log.join("\n"));
});

both("repeating a resize writes nothing", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 0 });
  place.calls.length = 0;
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 0 });
  assertEquals(writes(place), []);
});

both("a size in between is aligned up, and then is there already", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_resize", { volname, size: 96 * MIB - 5000, running: 0 });
  assertEquals(await sizeOnArray(place, volname), 96 * MIB);
  place.calls.length = 0;
  await place.must("volume_resize", { volname, size: 96 * MIB - 5000, running: 0 });
  assertEquals(writes(place), []);
});

both("a smaller size is refused, and nothing is written", async (place) => {
  const volname = await place.alloc();
  place.calls.length = 0;
  const reply = await place.ask("volume_resize", { volname, size: 32 * MIB, running: 0 });
  assertEquals(reply.error?.code, "invalid");
  assertStringIncludes(reply.error?.message ?? "", "Cannot shrink");
  assertEquals(writes(place), []);
  assertEquals(await sizeOnArray(place, volname), 64 * MIB);
});

both("a growth that has no room is refused before the write", async (place) => {
  const volname = await place.alloc();
  place.calls.length = 0;
  const reply = await place.ask("volume_resize", { volname, size: 2 ** 50, running: 0 });
  assertEquals(reply.error?.code, "no-space");
  assertEquals(writes(place), []);
});

both("what the array says of lacking space is no-space", async (place) => {
  const volname = await place.alloc();
  await place.faults([{ method: "pool.dataset.update", nth: 1, do: "error", errno: 28 }]);
  const reply = await place.ask("volume_resize", { volname, size: 96 * MIB, running: 0 });
  assertEquals(reply.error?.code, "no-space");
  assertEquals(await sizeOnArray(place, volname), 64 * MIB);
});

both("a name that means another disk, or a missing one, is refused", async (place) => {
  const stale = await place.alloc();
  await place.must("free_image", { volname: stale, isBase: 0, finish: true });
  const gone = await place.ask("volume_resize", { volname: stale, size: 96 * MIB, running: 0 });
  assertEquals(gone.error?.code, "not-found");
  const named = await place.replaced();
  const reply = await place.ask("volume_resize", {
    volname: named.stale,
    size: 96 * MIB,
    running: 0,
  });
  assertEquals(reply.error?.code, "volume-replaced");
});

both("an unmarked namesake is not grown", async (place) => {
  const volname = await place.alloc();
  await place.array((nas) =>
    nas.zvols.setUserProperties(pathOf(place), { "tnblock:storage": "other" })
  );
  const reply = await place.ask("volume_resize", { volname, size: 96 * MIB, running: 0 });
  assertEquals(reply.error?.code, "not-ours");
});

for (const fault of ["done-then-drop", "cut"]) {
  both(`a lost answer (${fault}) ends in the new size, here too`, async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await place.faults([{ method: "pool.dataset.update", nth: 1, do: fault }]);
    await place.must("volume_resize", { volname, size: 96 * MIB, running: 1 });
    assertEquals(await sizeOnArray(place, volname), 96 * MIB);
    assertEquals(await sizeHere(place, volname), 96 * MIB);
  });
}

both("a caller who is gone leaves a resize that is finished, here too", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.faults([{ method: "pool.dataset.update", nth: 1, do: "delay", ms: 1500 }]);
  const reply = await place.ask("volume_resize", { volname, size: 96 * MIB, running: 1 }, {
    deadlineMs: 900,
  });
  assertEquals(reply.error?.code, "timeout");
  assertStringIncludes(
    reply.error?.message ?? "",
    `; the array was told to grow "vm-100-disk-0" to ${96 * MIB} bytes, and it goes on`,
  );
  assertStringIncludes(reply.error?.hint ?? "", "repeat the resize");
  assertEquals(await sizeHere(place, volname), 96 * MIB);
});

both(
  "a fault at any array call leaves the old size or the new one, and a repeat ends well",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await place.must("volume_resize", { volname, size: 65 * MIB, running: 1 });
    const methods = [...new Set(place.calls)].filter((method) => !method.startsWith("auth"));
    let size = 65 * MIB;
    for (const method of methods) {
      size += MIB;
      await place.faults([{ method, nth: 1, do: "error", errno: 5 }]);
      const reply = await place.ask("volume_resize", { volname, size, running: 1 });
      await place.faults([]);
      const now = await sizeOnArray(place, volname);
      assert(now === size - MIB || now === size, `${method}: ${now}`);
      if (reply.ok) assertEquals(now, size);
      await place.must("volume_resize", { volname, size, running: 1 });
      assertEquals([method, await sizeHere(place, volname)], [method, size]);
    }
  },
);

both("a volume grown on another node is repaired here by activation", async (place) => {
  const volname = await place.alloc();
  const on = (node: string) => ({ node });
  await place.must("activate_volume", { volname }, on("pve1"));
  await place.must("activate_volume", { volname }, on("pve2"));
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 1 }, on("pve1"));
  assertEquals(await sizeHere(place, volname, "pve1"), 96 * MIB);
  await place.must("activate_volume", { volname }, on("pve2"));
  assertEquals(await sizeHere(place, volname, "pve2"), 96 * MIB);
}, { nodes: ["pve1", "pve2"] });

both("a volume grown elsewhere is attached with the API away", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.array((nas) => nas.zvols.grow(pathOf(place), 96 * MIB));
  const reply = await place.ask("activate_volume", { volname }, {
    config: { "tnb-api-port": 9, "tnb-api-retry-max": 0 },
  });
  assertEquals(reply.error, undefined);
  assertEquals(await sizeHere(place, volname), 96 * MIB);
});

Deno.test("iscsi: the block size of the extent counts, not what the storage is set to by now", async () => {
  await using place = await Place.start("iscsi");
  const small = await place.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 528 });
  const at = (await place.array((nas) => nas.zvols.read(pathOf(place))))?.volblocksize;
  assertEquals(at, 16384);
  const volname = String(
    (await place.ask("alloc_image", { vmid: 200, format: "raw", sizeKiB: 4 }, {
      config: { "tnb-extent-blocksize": 4096, "tnb-zvol-blocksize": "16K" },
    })).result,
  );
  const block = await place.array((nas) => nas.zvols.read(pathOf(place, "vm-200-disk-0")));
  assertEquals(block?.volblocksize, 4096);
  // Now the storage says 512, as is the default.
  await place.must("volume_resize", { volname, size: 8192 + 512, running: 0 });
  assertEquals(await sizeOnArray(place, volname), 12288);
  await place.must("volume_resize", { volname: small, size: 528 * 1024 + 512, running: 0 });
  assertEquals(await sizeOnArray(place, small), 544 * 1024);
});

Deno.test(
  "iscsi: a node that cannot follow is told apart from the array, and a repeat brings it up",
  async () => {
    await using place = await Place.start("iscsi");
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    const portals = place.simulator.ready.portals.iscsi.map((text) => {
      const at = text.lastIndexOf(":");
      return [text.slice(0, at), Number(text.slice(at + 1))] as const;
    });
    for (const portal of portals) await place.player.setPortalUp(...portal, false);
    const reply = await place.ask("volume_resize", { volname, size: 96 * MIB, running: 1 });
    assertMatch(
      reply.error?.message ?? "",
      /on this node: it has 100663296 bytes on the array, but/,
    );
    assertStringIncludes(reply.error?.hint ?? "", "repeat the resize");
    assertEquals(await sizeOnArray(place, volname), 96 * MIB);
    for (const portal of portals) await place.player.setPortalUp(...portal, true);
    place.calls.length = 0;
    await place.must("volume_resize", { volname, size: 96 * MIB, running: 1 });
    assertEquals(writes(place), []);
    assertEquals(await sizeHere(place, volname), 96 * MIB);
  },
);

Deno.test("a volume of an odd size has its size already, and grows to a multiple", () => {
  const odd = { zvol: "vm-1-disk-0", size: 3 * MIB + 512, blockSize: 16384, sector: 512 };
  assertEquals(planGrowth(odd, 3 * MIB + 512), undefined);
  assertEquals(planGrowth(odd, 3 * MIB + 100), undefined);
  assertEquals(planGrowth(odd, 3 * MIB + 513), 3 * MIB + 16384);
  assertThrows(() => planGrowth(odd, 3 * MIB), "Cannot shrink");
  for (const none of [0, -1, NaN, Infinity, 2 ** 53]) assertThrows(() => planGrowth(odd, none));
});

both("a thick volume stays thick as it grows, also where ZFS does not see to it", async (place) => {
  const reply = await place.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 }, {
    config: { "tnb-sparse": 0 },
  });
  const path = pathOf(place);
  // As TrueNAS makes thick zvols: the bare size, without the room for metadata.
  await place.array((nas) => nas.zvols.reserve(path, 64 * MIB));
  await place.must("volume_resize", { volname: reply.result, size: 128 * MIB, running: 0 });
  assert((await place.array((nas) => nas.zvols.read(path)))?.reserved === 128 * MIB);
});
