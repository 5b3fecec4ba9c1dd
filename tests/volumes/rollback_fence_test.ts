/** The snapshot that keeps a rollback from coming late: where it is not needed there is none, nor when its time is over. */
import { assertEquals } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { askUntilDeath, openEntries, recover } from "../support/mortal.ts";
import type { Place } from "../support/place.ts";
import { askBeside, beginOn, pmxcfsHost } from "./cluster_support.ts";
import { comesLate, over, snapshotNames } from "./snapshot_support.ts";

const MINUTES = 60_000;

const fences = async (place: Place) =>
  (await snapshotNames(place)).filter((name) => name.startsWith("tnblock-rolled-back-"));

/** The first look of a daemon that has just started. */
const firstLook = (place: Place, node?: string) =>
  recover(place, { settleMs: 5 * MINUTES, seen: new Map() }, node);

async function snapshotted(place: Place) {
  const args = { volname: await place.alloc(), snapshot: "s" };
  await place.must("volume_snapshot", args);
  return args;
}

over("a rollback that the array refuses outright leaves none", async (place, { method }) => {
  const args = await snapshotted(place);
  await place.faults([{ method: method("rollback"), do: "error", errno: 5 }]);
  assertEquals((await place.ask("volume_snapshot_rollback", args)).ok, false);
  await place.faults([]);
  await firstLook(place);
  assertEquals(await fences(place), []);
});

over("however often the daemon starts, one is enough", async (place) => {
  const args = await snapshotted(place);
  const death = { nth: 1, when: "after" } as const;
  await askUntilDeath(place, "volume_snapshot_rollback", args, death);
  for (let start = 1; start <= 3; start++) await firstLook(place);
  assertEquals((await fences(place)).length, 1);
});

over(
  "a rollback succeeds while another node's recovery puts one on the volume",
  async (place, { method }) => {
    const args = await snapshotted(place);
    const death = { nth: 1, when: "after" } as const;
    await askUntilDeath(place, "volume_snapshot_rollback", args, death, "pve1");
    await place.faults([{ method: method("rollback"), nth: 1, do: "hold" }]);
    const second = askBeside(place, "pve2", "volume_snapshot_rollback", args);
    await place.held(method("rollback"));
    await firstLook(place, "pve1");
    await place.faults([]);
    assertEquals((await second).error, undefined);
  },
  { nodes: ["pve1", "pve2"] },
);

for (const minutes of [-9, 9]) {
  over(
    `a node whose clock is ${minutes} minutes off puts another in the place of the one it takes away`,
    async (place, { method }) => {
      const args = await snapshotted(place);
      await place.faults([{ method: method("rollback"), nth: 1, do: "done-then-drop" }]);
      await place.must("volume_snapshot_rollback", args);
      const [first] = await fences(place);
      const host = pmxcfsHost(place, "pve2");
      const off = { ...host, now: () => host.now() + minutes * MINUTES };
      const { reply, settled } = beginOn(place, off, "volume_snapshot_rollback", args, "pve2");
      assertEquals((await reply).error, undefined);
      await settled;
      const [second, ...more] = await fences(place);
      assertEquals([second !== undefined && second !== first, more], [true, []]);
    },
    { nodes: ["pve1", "pve2"] },
  );
}

for (const verb of ["rename_volume", "create_base"] as const) {
  over(`it goes in time when the volume has another name by ${verb}`, async (place, the) => {
    // 25.04 has no call that renames.
    if (the.release === "25.04") return;
    const args = await snapshotted(place);
    await place.faults([{ method: the.method("rollback"), nth: 1, do: "done-then-drop" }]);
    await place.must("volume_snapshot_rollback", args);
    assertEquals((await fences(place)).length, 1);
    await place.must("volume_snapshot_delete", args);
    await place.must(verb, { volname: args.volname, targetVmid: 200 });
    // Of the same name, but another volume.
    if (verb === "rename_volume") await place.alloc();
    await recover(place);
    const left = verb === "create_base" ? ["__base__"] : [];
    assertEquals([await openEntries(place), await snapshotNames(place)], [[], left]);
  });
}

over("it goes in time also when its process was killed right after making it", async (place) => {
  const args = await snapshotted(place);
  const kill = (nth: number) =>
    askUntilDeath(place, "volume_snapshot_rollback", args, { nth, when: "after" });
  await kill(1);
  await kill(2);
  assertEquals((await fences(place)).length, 1);
  await recover(place);
  assertEquals([await openEntries(place), await fences(place)], [[], []]);
});

over("what the array does not let be made is not kept to be removed", async (place, { method }) => {
  const args = await snapshotted(place);
  await place.faults([
    { method: method("rollback"), nth: 1, do: "done-then-drop" },
    { method: method("create"), do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("volume_snapshot_rollback", args)).ok, false);
  assertEquals((await openEntries(place)).map(({ details }) => details.op), ["rollback"]);
});

over(
  "after a node that lost its power in a rollback one keeps its call out",
  async (place, { method }) => {
    const volname = await place.alloc();
    const args = { volname, snapshot: "s" };
    await place.must("volume_snapshot", args);
    await place.faults([{ method: method("rollback"), nth: 1, do: "hold" }]);
    const death = { nth: 1, when: "under way" } as const;
    await askUntilDeath(place, "volume_snapshot_rollback", args, death, "pve1");
    await place.held(method("rollback"));
    assertEquals((await askBeside(place, "pve2", "volume_snapshot_rollback", args)).ok, true);
    const started = await askBeside(place, "pve2", "activate_volume", { volname });
    assertEquals(started.error, undefined);
    await Deno.writeTextFile(place.linkOf(volname, "pve2"), "guest", { create: false });
    await comesLate(place);
    assertEquals((await place.beginning(volname, "pve2")).slice(0, 5), "guest");
    // Nothing is kept of what is over.
    await recover(place, {}, "pve2");
    await recover(place, {}, "pve1");
    assertEquals([await snapshotNames(place), await noted(place)], [["s"], []]);
  },
  { nodes: ["pve1", "pve2"] },
);

over("a rollback that nothing can be noted of is done, with a warning", async (place) => {
  const args = await snapshotted(place);
  const folder = `${place.directory}/etc/pve/priv/tnblock`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/rolling-back`, "");
  await place.must("volume_snapshot_rollback", args);
  assertEquals(place.log.filter((line) => line.includes("rolled back is not kept")).length, 1);
  assertEquals(await snapshotNames(place), ["s"]);
});

over("of a rollback that was answered nothing is noted", async (place) => {
  await place.must("volume_snapshot_rollback", await snapshotted(place));
  assertEquals([await fences(place), await noted(place)], [[], []]);
});

/** Volumes that a node is rolling back, as all see it. */
async function noted(place: Place): Promise<string[]> {
  const { files } = linuxHost({ root: place.directory });
  return [...await files.list("/etc/pve/priv/tnblock/rolling-back/san") ?? []];
}
