/**
 * Destructive calls whose connection is lost while the array is at them: they come after the verb has repeated them,
 * was told of success, and the guest or another volume has gone on.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { askUntilDeath, openEntries, recover } from "../support/mortal.ts";
import type { Place, Reply } from "../support/place.ts";
import { askBeside, beginOn, pmxcfsHost } from "./cluster_support.ts";
import {
  type Case,
  comesLate,
  contentOf,
  over,
  snapshotNames,
  writeContent,
} from "./snapshot_support.ts";

const MINUTES = 60_000;

/** Where names are kept: for all nodes, and for one. */
const NOTES = ["etc/pve/priv/tnblock/doomed/san", "run/tnblock/doomed/san"] as const;

/** Cuts the connection while the array is at the first such write, which it holds until {@link comesLate}. */
async function cutDuring(
  place: Place,
  write: string,
  method: string,
  args: Record<string, unknown>,
): Promise<Reply> {
  await place.faults([{ method: write, nth: 1, do: "hold" }]);
  const { reply, settled } = place.begin(method, args);
  await place.held(write);
  place.simulator.cutConnections();
  const given = await reply;
  await settled;
  return given;
}

/** Those that a rollback left. */
const fences = async (place: Place) =>
  (await snapshotNames(place)).filter((name) => name.startsWith("tnblock-rolled-back-"));

/** A volume with content older than its snapshot `s`, and newer content on it. */
async function snapshotted(place: Place): Promise<string> {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "older");
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await writeContent(place, volname, "newer");
  return volname;
}

const rollBack = (place: Place, { method }: Case, volname: string) =>
  cutDuring(place, method("rollback"), "volume_snapshot_rollback", { volname, snapshot: "s" });

over(
  "a rollback that comes late takes nothing of what the guest wrote since",
  async (place, the) => {
    const volname = await snapshotted(place);
    assertEquals((await rollBack(place, the, volname)).error, undefined);
    assertEquals(await contentOf(place, volname, 5), "older");
    await writeContent(place, volname, "guest");
    await comesLate(place);
    assertEquals(await contentOf(place, volname, 5), "guest");
    // What kept it out goes once the array is surely done.
    assertEquals((await fences(place)).length, 1);
    await recover(place);
    assertEquals([await snapshotNames(place), await openEntries(place)], [["s"], []]);
    assertEquals(await contentOf(place, volname, 5), "guest");
  },
);

over("a rollback that was answered leaves nothing on the volume", async (place) => {
  const volname = await snapshotted(place);
  await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals([await snapshotNames(place), await openEntries(place)], [["s"], []]);
});

over(
  "what keeps a late rollback out bars no other one, and is renewed by it",
  async (place, the) => {
    const volname = await snapshotted(place);
    assertEquals((await rollBack(place, the, volname)).error, undefined);
    const [first] = await fences(place);
    await writeContent(place, volname, "guest");
    const args = { volname, snapshot: "s" };
    const possible = await place.must("volume_rollback_is_possible", args);
    assertEquals(possible, { possible: true, blockers: [] });
    await place.must("volume_snapshot_rollback", args);
    assertEquals(await contentOf(place, volname, 5), "older");
    const [second, ...more] = await fences(place);
    assert(second !== undefined && second !== first && more.length === 0);
    // One entry: the first one's went with it.
    assertEquals((await openEntries(place)).length, 1);
    await writeContent(place, volname, "again");
    await comesLate(place);
    assertEquals(await contentOf(place, volname, 5), "again");
  },
);

over(
  "a rollback that cannot be kept from coming late fails, and says what to do",
  async (place, the) => {
    const volname = await snapshotted(place);
    const args = { volname, snapshot: "s" };
    await place.faults([
      { method: the.method("rollback"), nth: 1, do: "done-then-drop" },
      { method: the.method("create"), do: "error", errno: 5 },
    ]);
    const reply = await place.ask("volume_snapshot_rollback", args);
    assertEquals(reply.ok, false);
    assertStringIncludes(reply.error?.message ?? "", "back once more");
    assertStringIncludes(reply.error?.hint ?? "", "Leave the guest stopped");
    // The entry says so to the next one, which puts it there.
    await place.faults([]);
    await place.must("volume_snapshot_rollback", args);
    assertEquals((await fences(place)).length, 1);
  },
);

over(
  "a rollback that was killed takes nothing either once another one was told of",
  async (place, the) => {
    const volname = await snapshotted(place);
    const args = { volname, snapshot: "s" };
    await place.faults([{ method: the.method("rollback"), nth: 1, do: "hold" }]);
    const death = { nth: 1, when: "under way" } as const;
    await askUntilDeath(place, "volume_snapshot_rollback", args, death);
    await place.held(the.method("rollback"));
    await place.must("volume_snapshot_rollback", args);
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "guest");
    await comesLate(place);
    assertEquals(await contentOf(place, volname, 5), "guest");
    await recover(place);
    assertEquals([await snapshotNames(place), await openEntries(place)], [["s"], []]);
  },
);

over(
  "nobody gets the name of a volume while its destruction may come yet",
  async (place, { release }) => {
    const volname = await place.alloc();
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const args = { volname, isBase: 0, finish: true };
    assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
    assertStringIncludes(await place.alloc(), "vm-100-disk-1");
    const asked = { vmid: 100, format: "raw", name: "vm-100-disk-0", sizeKiB: 1024 };
    const { error } = await place.ask("alloc_image", asked);
    assertEquals(error?.code, "busy");
    assertStringIncludes(error?.message ?? "", `"vm-100-disk-0": the array may still be about to`);
    assertStringIncludes(error?.hint ?? "", "try again in 5 minutes");
    await comesLate(place);
    assertEquals((await place.objects()).zvols?.length, 1);
    // In time the name is there again, and nothing is kept of it.
    await pass(place, "vm-100-disk-0", 5 * MINUTES);
    await place.must("alloc_image", asked);
    await pass(place, "vm-100-disk-0", 60 * MINUTES);
    assertStringIncludes(await place.alloc(), "vm-100-disk-2");
    assertEquals(await doomed(place), []);
  },
);

over(
  "a cloud-init volume waits for its name when that comes soon enough",
  async (place, { release }) => {
    const asked = { vmid: 100, format: "raw", name: "vm-100-cloudinit", sizeKiB: 4096 };
    const volname = await place.must("alloc_image", asked);
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const args = { volname, isBase: 0, finish: true };
    assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
    await comesLate(place);
    await pass(place, "vm-100-cloudinit", 5 * MINUTES - 1_000);
    await place.must("alloc_image", asked);
  },
);

over("a destruction that is seen to be done keeps no name", async (place, { release }) => {
  const volname = await place.alloc();
  const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
  await place.faults([{ method: destroys, nth: 1, do: "done-then-drop" }]);
  await place.must("free_image", { volname, isBase: 0, finish: true });
  assertEquals(await doomed(place), []);
  assertStringIncludes(await place.alloc(), "vm-100-disk-0");
});

over("another node does not give out the name either", async (place, { release }) => {
  const volname = await place.alloc();
  const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
  const args = { volname, isBase: 0, finish: true };
  assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
  const asked = { vmid: 100, format: "raw", name: null, sizeKiB: 1024 };
  const { result } = await askBeside(place, "pve2", "alloc_image", asked);
  assertStringIncludes(result, "vm-100-disk-1");
}, { nodes: ["pve1", "pve2"] });

for (const minutes of [-9, 9]) {
  over(
    `a node whose clock is ${minutes} minutes off gives out no name that another one keeps`,
    async (place, { release }) => {
      const volname = await place.alloc();
      const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
      const args = { volname, isBase: 0, finish: true };
      assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
      const host = pmxcfsHost(place, "pve2");
      const off = { ...host, now: () => host.now() + minutes * MINUTES };
      const asked = { vmid: 100, format: "raw", name: null, sizeKiB: 1024 };
      const { reply, settled } = beginOn(place, off, "alloc_image", asked, "pve2");
      const { result } = await reply;
      await settled;
      assertStringIncludes(result, "vm-100-disk-1");
      assertEquals(await doomed(place), ["vm-100-disk-0"]);
    },
    { nodes: ["pve1", "pve2"] },
  );
}

over(
  "the name is kept too when the first process was killed, and the free is repeated",
  async (place, { release, transport }) => {
    const volname = await place.alloc();
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const args = { volname, isBase: 0, finish: true };
    await place.faults([{ method: destroys, nth: 1, do: "hold" }]);
    const death = { nth: transport === "iscsi" ? 3 : 2, when: "under way" } as const;
    await askUntilDeath(place, "free_image", args, death);
    await place.held(destroys);
    await place.must("free_image", args);
    assertEquals(await doomed(place), ["vm-100-disk-0"]);
    assertStringIncludes(await place.alloc(), "vm-100-disk-1");
    await comesLate(place);
    assertEquals((await place.objects()).zvols?.length, 1);
  },
);

over(
  "a free that the array refuses, and that is repeated, keeps no name",
  async (place, { release }) => {
    const volname = await place.alloc();
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    await place.faults([{ method: destroys, nth: 1, do: "error", errno: 5 }]);
    const args = { volname, isBase: 0, finish: true };
    assertEquals((await place.ask("free_image", args)).ok, false);
    await place.must("free_image", args);
    assertEquals(await doomed(place), []);
    assertStringIncludes(await place.alloc(), "vm-100-disk-0");
  },
);

over("a snapshot's deletion that is seen to be done keeps no name", async (place, { method }) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.faults([{ method: method("delete"), nth: 1, do: "done-then-drop" }]);
  await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
  assertEquals(await doomed(place), []);
});

over("by the daemon: late calls find nothing to destroy", async (place, the) => {
  const volname = await snapshotted(place);
  assertEquals((await rollBack(place, the, volname)).error, undefined);
  // The daemon lets go of what nobody uses.
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "guest");
  await comesLate(place);
  assertEquals(await contentOf(place, volname, 5), "guest");
  const other = await place.alloc(200);
  const destroys = the.release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
  const args = { volname: other, isBase: 0, finish: true };
  assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
  assertStringIncludes(await place.alloc(200), "vm-200-disk-1");
  await comesLate(place);
  assertEquals((await place.objects()).zvols?.length, 2);
}, { through: "daemon" });

over(
  "nobody takes a snapshot under a name whose deletion may come yet",
  async (place, { method }) => {
    const volname = await place.alloc();
    const args = { volname, snapshot: "s" };
    await place.must("volume_snapshot", args);
    const given = await cutDuring(place, method("delete"), "volume_snapshot_delete", args);
    assertEquals(given.error, undefined);
    const { error } = await place.ask("volume_snapshot", args);
    assertEquals(error?.code, "busy");
    assertStringIncludes(error?.message ?? "", `"vm-100-disk-0@s"`);
    await place.must("volume_snapshot", { volname, snapshot: "other" });
    await comesLate(place);
    assertEquals(await snapshotNames(place), ["other"]);
    await pass(place, "vm-100-disk-0@s", 5 * MINUTES);
    await place.must("volume_snapshot", args);
  },
);

over(
  "a volume does not get the name of one whose destruction may come yet",
  async (place, { release }) => {
    // 25.04 has no call that renames.
    if (release === "25.04") return;
    const volname = await place.alloc();
    const other = await place.alloc(200);
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const args = { volname, isBase: 0, finish: true };
    assertEquals((await cutDuring(place, destroys, "free_image", args)).error, undefined);
    const wanted = { volname: other, targetVmid: 100, targetName: "vm-100-disk-0" };
    assertEquals((await place.ask("rename_volume", wanted)).error?.code, "busy");
    const renamed = await place.must("rename_volume", { volname: other, targetVmid: 100 });
    assertStringIncludes(JSON.stringify(renamed), "vm-100-disk-1");
    await comesLate(place);
    assertEquals((await place.objects()).zvols?.length, 1);
  },
);

over(
  "a rollback that was killed takes nothing from a guest that is started without another one",
  async (place, the) => {
    const volname = await snapshotted(place);
    const args = { volname, snapshot: "s" };
    await place.faults([{ method: the.method("rollback"), nth: 1, do: "hold" }]);
    const death = { nth: 1, when: "under way" } as const;
    await askUntilDeath(place, "volume_snapshot_rollback", args, death);
    await place.held(the.method("rollback"));
    // The daemon's first look at what was stopped.
    await recover(place, { settleMs: 5 * MINUTES });
    assertEquals((await fences(place)).length, 1);
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "guest");
    await comesLate(place);
    assertEquals(await contentOf(place, volname, 5), "guest");
    await recover(place);
    assertEquals([await snapshotNames(place), await openEntries(place)], [["s"], []]);
  },
);

over(
  "a snapshot's taking back that comes late destroys no snapshot taken since",
  async (place, { method }) => {
    const volname = await place.alloc();
    await takenBackLate(place, method, "volume_snapshot", { volname, snapshot: "s" });
    const again = await place.ask("volume_snapshot", { volname, snapshot: "s" });
    assertEquals(again.error?.code, "busy");
    await comesLate(place);
    assertEquals(await snapshotNames(place), []);
  },
);

over(
  "a base's taking back that comes late leaves the next one whole",
  async (place, { method, release }) => {
    // 25.04 has no call that renames.
    if (release === "25.04") return;
    const volname = await place.alloc();
    await takenBackLate(place, method, "create_base", { volname });
    assertEquals((await place.ask("create_base", { volname })).error?.code, "busy");
    await comesLate(place);
    await pass(place, "base-100-disk-0@__base__", 5 * MINUTES);
    await recover(place);
    const base = await place.must("create_base", { volname });
    assertEquals(await snapshotNames(place), ["__base__"]);
    await place.must("clone_image", { volname: base, vmid: 101 });
  },
);

over(
  "recovery's removal of a snapshot that comes late destroys no snapshot taken since",
  async (place, { method }) => {
    const volname = await place.alloc();
    const args = { volname, snapshot: "s" };
    await askUntilDeath(place, "volume_snapshot", args, { nth: 1, when: "after" });
    await place.faults([{ method: method("delete"), nth: 1, do: "hold" }]);
    const first = recover(place);
    await place.held(method("delete"));
    place.simulator.cutConnections();
    await first;
    await recover(place);
    assertEquals((await place.ask("volume_snapshot", args)).error?.code, "busy");
    await comesLate(place);
    await pass(place, "vm-100-disk-0@s", 5 * MINUTES);
    await place.must("volume_snapshot", args);
  },
);

over(
  "a destruction of a node that lost its power takes nothing that another node made since",
  async (place, { release, transport }) => {
    const volname = await place.alloc();
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const args = { volname, isBase: 0, finish: true };
    await place.faults([{ method: destroys, nth: 1, do: "hold" }]);
    const death = { nth: transport === "iscsi" ? 3 : 2, when: "under way" } as const;
    await askUntilDeath(place, "free_image", args, death, "pve1");
    await place.held(destroys);
    assertEquals((await askBeside(place, "pve2", "free_image", args)).error, undefined);
    const asked = { vmid: 100, format: "raw", name: null, sizeKiB: 1024 };
    const { result } = await askBeside(place, "pve2", "alloc_image", asked);
    assertStringIncludes(result, "vm-100-disk-1");
    await comesLate(place);
    assertEquals((await place.objects()).zvols?.length, 1);
  },
  { nodes: ["pve1", "pve2"] },
);

/** Asks for what takes a snapshot, gives up, and loses the connection while the array is at the taking back. */
async function takenBackLate(
  place: Place,
  snapshot: Case["method"],
  method: string,
  args: Record<string, unknown>,
): Promise<void> {
  await place.faults([{ method: snapshot("create"), nth: 1, do: "hold" }]);
  const { reply, giveUp, settled } = place.begin(method, args);
  await place.held(snapshot("create"));
  giveUp();
  assertEquals((await reply).ok, false);
  await place.faults([{ method: snapshot("delete"), nth: 1, do: "hold" }]);
  await place.held(snapshot("delete"));
  place.simulator.cutConnections();
  await settled;
}

/** The names that are kept from everybody, in the cluster or on this node. */
async function doomed(place: Place): Promise<string[]> {
  const { files } = linuxHost({ root: place.directory });
  const names = await Promise.all(NOTES.map((folder) => files.list(`/${folder}`)));
  return [...new Set(names.flatMap((found) => found ?? []))];
}

/** Lets time pass for a name that is kept. */
async function pass(place: Place, name: string, ms: number): Promise<void> {
  for (const folder of NOTES) {
    const file = `${place.directory}/${folder}/${name}`;
    const note = JSON.parse(await Deno.readTextFile(file));
    await Deno.writeTextFile(file, JSON.stringify({ ...note, sinceMs: note.sinceMs - ms }));
  }
}
