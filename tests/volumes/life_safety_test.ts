/** Ways to lose or mix up a guest's data, to leave an orphan or to stall a node: each must stay closed. */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import { readingName } from "../../src/volumes/reading.ts";
import type { Storage } from "../../src/volumes/storage.ts";
import { Place, type PlaceOptions, type Reply, TRANSPORTS } from "../support/place.ts";
import { contentOf, writeContent, zvolNames } from "./snapshot_support.ts";

const NODES = ["pve1", "pve2"];

function both(
  name: string,
  run: (place: Place) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, { release: "25.10", ...options });
      await run(place);
    });
  }
}

/** Asks the hook of the first node; the reply and the end of all work come apart. */
function asking(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  deadlineMs: number,
): { readonly reply: Promise<Reply>; readonly settled: Promise<unknown> } {
  const request = {
    protocol: 1,
    id: "t",
    method,
    storage: "san",
    config: place.config(),
    args,
    deadlineMs,
    node: "pve1",
    pveApi: 13,
  };
  const { reply, settled } = answer(JSON.stringify(request), {
    host: linuxHost({ root: place.directory }),
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
    onArrayCall: (call) => place.calls.push(call.method),
  });
  return { reply: reply.then(({ text }) => JSON.parse(text) as Reply), settled };
}

/** Puts a guest that runs on the second node into the cluster's configurations. */
async function runsElsewhere(place: Place, vmid: number, volname: string): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    const folder = `${directory}/etc/pve/nodes/pve2/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/${vmid}.conf`, `scsi0: san:${volname},size=64M\n`);
    const now = Math.floor(Date.now() / 1000);
    await Deno.writeTextFile(
      `${directory}/etc/pve/.rrd`,
      `pve-vm-9.0/${vmid}:3600:web:running:0:${now}:4:0:1:1\n`,
    );
  }
}

const zvolOf = (place: Place, name: string) => `${place.simulator.ready.dataset}/${name}`;

/** Where a volume's link leads on a node. */
const target = (place: Place, volname: string, node: string) =>
  Deno.realPath(place.linkOf(volname, node));

/** The multipath maps that a node has, by their WWID. */
async function mapsOf(place: Place, node: string): Promise<string[]> {
  const block = `${place.node(node).directory}/sys/block`;
  const found: string[] = [];
  for await (const { name } of Deno.readDir(block)) {
    if (!name.startsWith("dm-")) continue;
    found.push((await Deno.readTextFile(`${block}/${name}/dm/uuid`)).trim());
  }
  return found.sort();
}

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
      { method, nth: looks + 1, do: "delay", ms: 8000 },
    ]);
    const late = asking(place, "volume_snapshot_rollback", { volname, snapshot: "before" }, 2500);
    assertEquals((await late.reply).error?.code, "timeout");
    // PVE has told the user, who starts the guest on the other node.
    await runsElsewhere(place, 100, volname);
    await place.must("activate_volume", { volname }, { node: "pve2" });
    const file = place.linkOf(volname, "pve2");
    await Deno.writeTextFile(file, "newer", { create: false });
    await late.settled;
    assertEquals(await contentOf(place, volname, 5, undefined, "pve2"), "newer");
  },
  { nodes: NODES },
);

both(
  "the name that a volume had before it was reassigned reaches it no more",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    // Guest 100's configuration comes back from a backup and names the disk still.
    for (
      const [method, args] of [
        ["rename_volume", { volname, targetVmid: 300 }],
        ["create_base", { volname }],
      ] as const
    ) {
      const reply = await place.ask(method, args);
      assertEquals([method, reply.ok], [method, false]);
      assertEquals(await zvolNamesOf(place), ["vm-200-disk-0"]);
    }
    await place.must("activate_volume", { volname: renamed });
  },
);

async function zvolNamesOf(place: Place): Promise<string[]> {
  return (await zvolNames(place)).filter((name) => !name.startsWith("tnb-weight-"));
}

both(
  "a disk is not renamed by a former name while its guest runs on another node",
  async (place) => {
    const volname = await place.alloc();
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await runsElsewhere(place, 200, renamed);
    const reply = await place.ask("rename_volume", { volname, targetVmid: 300 });
    assertEquals(reply.ok, false);
    assertEquals(await zvolNamesOf(place), ["vm-200-disk-0"]);
  },
);

both(
  "a cloud-init volume that was reassigned is not what its name means on a node that had it attached",
  async (place) => {
    const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.alloc(100, 4096, "vm-100-cloudinit");
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("activate_volume", { volname: "vm-200-cloudinit" }, { node: "pve2" });
    const former = await target(place, "vm-200-cloudinit", "pve2");
    assertNotEquals(await target(place, volname, "pve2"), former);
  },
  { nodes: NODES },
);

both(
  "what a crashed node knew of a reassigned disk does not keep the old name's new disk from starting",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname }, { node: "pve2" });
    // The node dies and comes back: its links are gone, what it keeps on its disk is not.
    await Deno.remove(place.linkOf(volname, "pve2"));
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed }, { node: "pve2" });
    await using _guest = await holdOpen(place, renamed, "pve2");
    const today = await place.alloc(100, 65536, "vm-100-disk-0");
    await place.must("activate_volume", { volname: today }, { node: "pve2" });
    await place.must("deactivate_volume", { volname: today }, { node: "pve2" });
    await place.must("free_image", { volname: today, finish: true }, { node: "pve2" });
  },
  { nodes: NODES },
);

both(
  "letting a new disk of a former name in does not take the renamed one's paths away",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await Deno.remove(place.linkOf(volname, "pve2"));
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed }, { node: "pve2" });
    const today = await place.alloc(100, 65536, "vm-100-disk-0");
    await place.must("activate_volume", { volname: today }, { node: "pve2" });
    // Guest 200 is about to be started: its disk was activated a moment ago.
    await Deno.stat(place.linkOf(renamed, "pve2"));
  },
  { nodes: NODES },
);

/** Plays a process of a node that has the volume open. */
async function holdOpen(place: Place, volname: string, node: string): Promise<AsyncDisposable> {
  const root = place.node(node).directory;
  const device = await Deno.realPath(place.linkOf(volname, node));
  const proc = `${root}/proc/4711`;
  await Deno.mkdir(`${proc}/fd`, { recursive: true });
  await Deno.writeTextFile(`${proc}/comm`, "qemu-system-x86\n");
  await Deno.symlink(device.slice((await Deno.realPath(root)).length), `${proc}/fd/12`);
  return {
    [Symbol.asyncDispose]: async () => await Deno.remove(proc, { recursive: true }),
  };
}

both(
  "a template whose making was killed before the old snapshot went has none of the old content",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "old");
    await place.array((nas) => nas.snapshots.create(zvolOf(place, "vm-100-disk-0"), "__base__"));
    await writeContent(place, volname, "new");
    // Killed when disk and export have their new name, and nothing can be taken back.
    await place.faults([
      { method: "pool.snapshot.delete", do: "cut" },
      { method: "nvmet.namespace.update", nth: 3, do: "error", errno: 5 },
      { method: "pool.dataset.rename", nth: 2, do: "error", errno: 5 },
    ]);
    assertEquals((await place.ask("create_base", { volname })).ok, false);
    await place.faults([]);
    const base = await place.must("create_base", { volname });
    const clone = await place.must("clone_image", { volname: base, vmid: 101 });
    await place.must("activate_volume", { volname: clone });
    assertEquals(await contentOf(place, clone, 3), "new");
  },
);

Deno.test("iscsi: a cloud-init volume made anew leaves no map of the old one on a node", async () => {
  await using place = await Place.start("iscsi", { release: "25.10", nodes: NODES });
  const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
  const config = { "tnb-use-multipath": 1 };
  await place.must("activate_volume", { volname }, { node: "pve2", config });
  const before = await mapsOf(place, "pve2");
  assertEquals(before.length, 1);
  await place.must("free_image", { volname, finish: true });
  await place.alloc(100, 4096, "vm-100-cloudinit");
  await place.must("activate_volume", { volname }, { node: "pve2", config });
  const after = await mapsOf(place, "pve2");
  assertEquals(after.length, 1);
  assertNotEquals(after, before);
});

both(
  "a node that was killed between making and marking its clone reads the snapshot at the next try",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "vzdump" });
    const storage = { node: "pve1", settings: { dataset: place.simulator.ready.dataset } };
    const name = readingName(storage as Storage, "vm-100-disk-0", "vzdump");
    await place.array((nas) =>
      nas.snapshots.clone(`${zvolOf(place, "vm-100-disk-0")}@vzdump`, zvolOf(place, name))
    );
    // PVE deletes what a backup left before it makes the next one.
    await place.must("activate_volume", { volname, snapshot: "vzdump" });
    await place.must("volume_snapshot_delete", { volname, snapshot: "vzdump" });
    assertEquals(await zvolNamesOf(place), ["vm-100-disk-0"]);
  },
  { release: "26" },
);

both(
  "a disk whose zvol an administrator renamed is not unexported under a guest that runs elsewhere",
  async (place) => {
    const volname = await place.alloc();
    await runsElsewhere(place, 100, volname);
    await place.array((nas) =>
      nas.zvols.rename(zvolOf(place, "vm-100-disk-0"), zvolOf(place, "kept"))
    );
    const reply = await place.ask("free_image", { volname, finish: true });
    const { extents = [], namespaces = [] } = await place.objects();
    assertEquals([reply.ok, extents.length + namespaces.length], [false, 1]);
  },
);

/** Stops a rename as a kill would, with the zvol at its new path and the export at the old one. */
async function stopRename(place: Place, volname: string, targetVmid: number): Promise<void> {
  const point = place.transport === "iscsi" ? "iscsi.extent.update" : "nvmet.namespace.update";
  await place.faults([
    { method: point, nth: place.transport === "iscsi" ? 1 : 2, do: "error", errno: 5 },
    { method: "pool.dataset.rename", nth: 2, do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("rename_volume", { volname, targetVmid })).ok, false);
  await place.faults([]);
  assertEquals(await zvolNamesOf(place), [`vm-${targetVmid}-disk-0`]);
}

const exports = async (place: Place) => {
  const { extents = [], namespaces = [] } = await place.objects();
  return [...extents.map((row) => row.naa), ...namespaces.map((row) => row.device_uuid)];
};

both(
  "a new volume does not take the export of one whose rename was killed half-way",
  async (place) => {
    const volname = await place.alloc();
    await stopRename(place, volname, 200);
    const [identity] = await exports(place);
    for (const name of [null, "vm-100-disk-0"]) {
      await place.ask("alloc_image", { vmid: 100, format: "raw", name, sizeKiB: 1024 });
      assert((await exports(place)).includes(identity), `alloc of ${name}`);
    }
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.must("activate_volume", { volname: renamed });
  },
);

both(
  "freeing by the old name what was half renamed frees the zvol, or says that it does not",
  async (place) => {
    const volname = await place.alloc();
    await stopRename(place, volname, 200);
    const reply = await place.ask("free_image", { volname, finish: true });
    assertEquals(
      [reply.ok, await zvolNamesOf(place), (await exports(place)).length],
      reply.ok ? [true, [], 0] : [false, ["vm-200-disk-0"], 1],
    );
  },
);

both(
  "a snapshot of a half renamed volume is not called gone while it is there",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await stopRename(place, volname, 200);
    const reply = await place.ask("volume_snapshot_delete", { volname, snapshot: "before" });
    const left = (await place.objects()).snapshots?.length ?? 0;
    assertEquals(reply.ok, left === 0);
  },
);

Deno.test("nvme-tcp: a volume starts under its old name after its rename was killed before the zvol's own", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const volname = await place.alloc();
  await place.faults([
    { method: "pool.dataset.rename", nth: 1, do: "error", errno: 5 },
    { method: "nvmet.namespace.update", nth: 2, do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("rename_volume", { volname, targetVmid: 200 })).ok, false);
  await place.faults([]);
  await place.must("activate_volume", { volname });
});

async function callCount(place: Place, method: string): Promise<number> {
  const { calls } = await place.stats() as unknown as { calls: Record<string, number> };
  return calls[method] ?? 0;
}

/** Waits until the array has been asked once more. */
async function reached(place: Place, method: string, before: number): Promise<void> {
  while (await callCount(place, method) === before) {
    await new Promise((done) => setTimeout(done, 20));
  }
}

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
    await place.faults([
      { method: slow, do: "delay", ms: 2000 },
      { method: "pool.snapshot.clone", nth: 2, do: "cut" },
    ]);
    const before = await callCount(place, slow);
    const clone = place.ask("clone_image", { volname: base, vmid: 101 });
    await reached(place, slow, before);
    await new Promise((done) => setTimeout(done, 700));
    await place.array((nas) => nas.snapshots.clone(snapshot, foreign));
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
    await place.faults([
      { method: remove, nth: 1, do: "delay", ms: 4000 },
      { method: create, nth: 1, do: "delay", ms: 7000 },
    ]);
    const before = await callCount(place, remove);
    const late = place.ask("free_image_finish", { token });
    await reached(place, remove, before);
    // Another node finishes it first, and the name is given out again.
    await place.must("free_image_finish", { token }, { node: "pve2" });
    const made = await place.ask(
      "alloc_image",
      { vmid: 100, format: "raw", name: "vm-100-disk-0", sizeKiB: 1024 },
      { node: "pve2" },
    );
    await late;
    assertEquals(made.error, undefined);
    assertEquals(await zvolNamesOf(place), ["vm-100-disk-0"]);
  },
  { nodes: NODES },
);

both(
  "a disk that shrank in a rollback has its size on another node that had it attached",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await place.must("volume_snapshot_rollback", { volname, snapshot: "before" });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    assertEquals((await Deno.stat(place.linkOf(volname, "pve2"))).size, 64 << 20);
  },
  { nodes: NODES },
);

both("names at their limits live a whole life", async (place) => {
  const name = `vm-999999999-A${"b:_.-c0Z9".repeat(7).slice(0, 60)}`;
  const snapshot = `s${"n".repeat(39)}`;
  const volname = await place.alloc(999999999, 1024, name);
  await place.must("activate_volume", { volname });
  await place.must("volume_snapshot", { volname, snapshot });
  await place.must("activate_volume", { volname, snapshot });
  await place.must("deactivate_volume", { volname, snapshot });
  await place.must("volume_snapshot_delete", { volname, snapshot });
  const base = await place.must("create_base", { volname });
  const clone = await place.must("clone_image", { volname: base, vmid: 999999998 });
  for (const own of [clone, base]) {
    await place.must("activate_volume", { volname: own });
    await place.must("free_image", { volname: own, finish: true });
  }
  assertEquals(await zvolNamesOf(place), []);
});

both("what is listed after a rename was killed half-way can be activated", async (place) => {
  await stopRename(place, await place.alloc(), 200);
  for (const { volid } of await place.must("list_images")) {
    await place.must("activate_volume", { volname: volid.slice("san:".length) });
  }
});

Deno.test("iscsi: a rollback that was killed with the extent off leaves it on after its repetition", async () => {
  await using place = await Place.start("iscsi", { release: "25.10" });
  const volname = await place.alloc();
  const rollback = { volname, snapshot: "before" };
  await place.must("volume_snapshot", rollback);
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  await place.faults([{ method: "iscsi.extent.update", nth: 2, do: "error", errno: 5 }]);
  assertEquals((await place.ask("volume_snapshot_rollback", rollback)).ok, false);
  await place.faults([]);
  await place.must("volume_snapshot_rollback", rollback);
  await place.must("activate_volume", { volname });
});

/** Each write of a verb is answered with `true` and not done, once: what the verb says must be so then. */
const TRUE_VERBS: readonly {
  readonly verb: string;
  readonly args: Record<string, unknown>;
  readonly before?: (place: Place, volname: string) => Promise<unknown>;
  readonly isDone: (place: Place, result: unknown) => Promise<boolean>;
}[] = [
  {
    verb: "volume_resize",
    args: { size: 128 << 20, running: 0 },
    isDone: async (place) => (await place.must("list_images"))[0]?.size === 128 << 20,
  },
  {
    verb: "volume_snapshot",
    args: { snapshot: "before" },
    isDone: async (place) => (await place.objects()).snapshots?.length === 1,
  },
  {
    verb: "volume_snapshot_delete",
    args: { snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place) => (await place.objects()).snapshots?.length === 0,
  },
  {
    verb: "rename_volume",
    args: { targetVmid: 200 },
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ),
  },
  {
    verb: "create_base",
    args: {},
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ) && (await place.objects()).snapshots?.length === 1,
  },
  {
    verb: "clone_image",
    args: { vmid: 101, snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ),
  },
  {
    verb: "free_image",
    args: { finish: true },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place) =>
      (await zvolNamesOf(place)).length === 0 && (await exports(place)).length === 0,
  },
  {
    verb: "update_volume_attribute",
    args: { attribute: "protected", value: 1 },
    isDone: async (place) => (await place.must("list_images"))[0]?.protected === 1,
  },
];

for (const transport of TRANSPORTS) {
  for (const { verb, args, before, isDone } of TRUE_VERBS) {
    Deno.test(`${transport}, 26: ${verb} does not believe an answer to a write that was not done`, async () => {
      const calls = await onPlace(transport, async (place, volname) => {
        await before?.(place, volname);
        place.calls.length = 0;
        await place.must(verb, { volname, ...args });
        return place.calls.filter((call) =>
          /\.(create|update|delete|destroy|clone|rename|rollback)$/.test(call)
        );
      });
      assert(calls.length > 0);
      const counts = new Map<string, number>();
      const wrong: unknown[] = [];
      for (const method of calls) {
        const nth = (counts.get(method) ?? 0) + 1;
        counts.set(method, nth);
        await onPlace(transport, async (place, volname) => {
          await before?.(place, volname);
          await place.faults([{ method, nth, do: "result", result: true }]);
          const reply = await place.ask(verb, { volname, ...args }, { deadlineMs: 20_000 });
          await place.faults([]);
          if (reply.ok && !await isDone(place, reply.result)) wrong.push([method, nth]);
        });
      }
      assertEquals(wrong, []);
    });
  }
}

async function onPlace<T>(
  transport: typeof TRANSPORTS[number],
  work: (place: Place, volname: string) => Promise<T>,
): Promise<T> {
  const place = await Place.start(transport, { release: "26" });
  try {
    return await work(place, await place.alloc());
  } finally {
    // The answers that were made up break the schema.
    await place[Symbol.asyncDispose]().catch(() => {});
  }
}

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

Deno.test("iscsi: a shrinking rollback that an administrator did in TrueNAS is told with its remedy", async () => {
  await using place = await Place.start("iscsi");
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  const snapshot = `${zvolOf(place, "vm-100-disk-0")}@before`;
  await place.array((nas) => nas.session.call("pool.snapshot.rollback", [snapshot, {}]));
  const reply = await place.ask("activate_volume", { volname });
  assertEquals(reply.error?.code, "host-fault");
  assertStringIncludes(reply.error?.hint ?? "", "switch the extent off and on");
});

both(
  "a periodic snapshot taken while a rollback's answer was lost does not leave the disk with a wrong size",
  async (place) => {
    const volname = await place.alloc();
    const rollback = { volname, snapshot: "before" };
    await place.must("volume_snapshot", rollback);
    await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    const before = await callCount(place, "pool.snapshot.rollback");
    await place.faults([
      { method: "pool.snapshot.rollback", nth: 1, do: "done-then-drop" },
      { method: "pool.snapshot.rollback", nth: 2, do: "delay", ms: 1500 },
    ]);
    const late = place.ask("volume_snapshot_rollback", rollback);
    while (await callCount(place, "pool.snapshot.rollback") < before + 2) {
      await new Promise((done) => setTimeout(done, 20));
    }
    await place.array((nas) =>
      nas.snapshots.create(zvolOf(place, "vm-100-disk-0"), "auto-2026-11-22_09-00")
    );
    await late;
    await place.must("activate_volume", { volname });
    assertEquals((await Deno.stat(place.linkOf(volname))).size, 64 << 20);
  },
);

both(
  "what forces a free forces neither a rollback nor a rename under a guest that runs elsewhere",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await runsElsewhere(place, 100, volname);
    const options = { config: { "tnb-force-free": 1 } };
    for (
      const [method, args] of [
        ["volume_snapshot_rollback", { volname, snapshot: "before" }],
        ["rename_volume", { volname, targetVmid: 200 }],
        ["create_base", { volname }],
      ] as const
    ) {
      const reply = await place.ask(method, args, options);
      assertEquals([method, reply.error?.code], [method, "in-use"]);
    }
  },
);

both(
  "a disk that one node rolls back while another one has it open is left alone",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    await place.must("activate_volume", { volname }, { node: "pve2" });
    await writeOn(place, volname, "pve2", "newer");
    await using _guest = await holdOpen(place, volname, "pve2");
    await runsElsewhere(place, 100, volname);
    const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "before" });
    assertEquals(reply.error?.code, "in-use");
    assertEquals(await contentOf(place, volname, 5, undefined, "pve2"), "newer");
  },
  { nodes: NODES },
);

async function writeOn(place: Place, volname: string, node: string, text: string) {
  await Deno.writeTextFile(place.linkOf(volname, node), text, { create: false });
}

both(
  "a snapshot is not deleted while its clone for reading comes into being on another node",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "before" });
    const create = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    const before = await callCount(place, create);
    await place.faults([{ method: create, nth: 1, do: "delay", ms: 2000 }]);
    const reading = place.ask("activate_volume", { volname, snapshot: "before" }, { node: "pve2" });
    await reached(place, create, before);
    const reply = await place.ask("volume_snapshot_delete", { volname, snapshot: "before" });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(reply.error?.message ?? "", "pve2");
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
    const before = await callCount(place, clone);
    await place.faults([{ method: clone, nth: 1, do: "delay", ms: 1500 }]);
    const reading = place.ask("activate_volume", { volname, snapshot: "before" }, { node: "pve2" });
    await reached(place, clone, before);
    const freed = await place.ask("free_image", { volname, finish: true });
    const read = await reading;
    // One of them comes first, and nothing is left half done.
    assert(freed.ok !== read.ok, JSON.stringify([freed, read]));
    if (freed.ok) assertEquals([await zvolNamesOf(place), (await exports(place)).length], [[], 0]);
    else await place.must("activate_volume", { volname });
  },
  { nodes: NODES },
);

/** Verbs that are killed at each write, before and after it was done, and then asked for again. */
const KILLED: readonly {
  readonly verb: string;
  readonly args: Record<string, unknown>;
  readonly before?: (place: Place, volname: string) => Promise<unknown>;
  /** The volume that must be attachable in the end; none when it was freed. */
  readonly after: (volname: string, result: unknown) => string | undefined;
}[] = [
  { verb: "rename_volume", args: { targetVmid: 200 }, after: (_, result) => String(result) },
  { verb: "create_base", args: {}, after: (_, result) => String(result) },
  {
    verb: "volume_snapshot_delete",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("activate_volume", { volname, snapshot: "before" });
    },
    after: (volname) => volname,
  },
  {
    verb: "volume_snapshot_rollback",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    },
    after: (volname) => volname,
  },
  {
    verb: "volume_resize",
    args: { size: 128 << 20, running: 0 },
    after: (volname) => volname,
  },
  {
    verb: "activate_volume",
    args: { snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    after: (volname) => volname,
  },
  {
    verb: "deactivate_volume",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("activate_volume", { volname, snapshot: "before" });
    },
    after: (volname) => volname,
  },
  {
    verb: "free_image",
    args: { finish: true },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    after: () => undefined,
  },
];

const KILL_COLUMNS = [["iscsi", "25.10"], ["nvme-tcp", "25.10"]] as const;

for (const [transport, release] of KILL_COLUMNS) {
  for (const { verb, args, before, after } of KILLED) {
    Deno.test(`${transport}, ${release}: ${verb} that is killed at any write is finished by asking again`, async () => {
      const end = async (place: Place) => {
        const { snapshots = [] } = await place.objects();
        return [
          await zvolNamesOf(place),
          snapshots.map((one) => one.name),
          (await exports(place)).length,
        ];
      };
      const config = { "tnb-api-retry-max": 0 };
      let clean: unknown;
      const calls: string[] = [];
      {
        await using place = await Place.start(transport, { release });
        const volname = await place.alloc();
        await before?.(place, volname);
        place.calls.length = 0;
        await place.must(verb, { volname, ...args });
        calls.push(
          ...place.calls.filter((call) =>
            /\.(create|update|delete|destroy|clone|rename|rollback)$|core\.bulk/.test(call)
          ),
        );
        assert(calls.length > 0);
        clean = await end(place);
      }
      const counts = new Map<string, number>();
      const wrong: unknown[] = [];
      for (const method of calls) {
        const nth = (counts.get(method) ?? 0) + 1;
        counts.set(method, nth);
        for (const how of ["cut", "done-then-drop"]) {
          await using place = await Place.start(transport, { release });
          const volname = await place.alloc();
          await before?.(place, volname);
          const logins = Array.from({ length: 40 }, (_, at) => at + 2).flatMap((at) =>
            ["auth.login_ex", "auth.login_with_api_key"].map((login) => ({
              method: login,
              nth: at,
              do: "error",
              errno: 5,
            }))
          );
          await place.faults([{ method, nth, do: how }, ...logins]);
          await place.ask(verb, { volname, ...args }, { deadlineMs: 15_000, config });
          await place.faults([]);
          const again = await place.ask(verb, { volname, ...args });
          const name = after(volname, again.result);
          const use = name === undefined || !again.ok
            ? undefined
            : await place.ask("activate_volume", { volname: name });
          const now = await end(place);
          const problem = again.error?.message ?? use?.error?.message ??
            (JSON.stringify(now) === JSON.stringify(clean) ? undefined : now);
          if (problem !== undefined) wrong.push([method, nth, how, problem]);
        }
      }
      assertEquals(wrong, []);
    });
  }
}
