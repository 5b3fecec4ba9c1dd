/** Rolling back: only to the newest snapshot, with nothing of the newer content left anywhere on the node. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Place } from "../support/place.ts";
import {
  contentOf,
  isAttached,
  over,
  snapshotNames,
  writeContent,
  writesOf,
  zvolNames,
} from "./snapshot_support.ts";

over(
  "a rollback brings the old content back, in one write, and the disk stays attached",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "older");
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await writeContent(place, volname, "newer");
    assertEquals(await place.must("volume_rollback_is_possible", { volname, snapshot: "s" }), {
      possible: true,
      blockers: [],
    });
    assertEquals(await writesOf(place, "volume_snapshot_rollback", { volname, snapshot: "s" }), 1);
    assertEquals(await contentOf(place, volname, 5), "older");
    assertEquals(await snapshotNames(place), ["s"]);
  },
);

over("a volume that was not attached is not attached by a rollback", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "older");
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await writeContent(place, volname, "newer");
  await place.must("deactivate_volume", { volname });
  await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals(await isAttached(place, volname), false);
  await place.must("activate_volume", { volname });
  assertEquals(await contentOf(place, volname, 5), "older");
});

over(
  "newer snapshots bar the way, and are named oldest first, TrueNAS's own too",
  async (place, { zvol }) => {
    const volname = await place.alloc();
    for (const snapshot of ["s", "zz", "aa"]) {
      await place.must("volume_snapshot", { volname, snapshot });
    }
    await place.array(async (nas) => {
      await nas.snapshots.create(zvol, "auto-2026-11-22_00-00");
      await nas.snapshots.clone(`${zvol}@aa`, "tank/mine");
    });
    const answer = await place.must("volume_rollback_is_possible", { volname, snapshot: "s" });
    assertEquals([answer.possible, answer.blockers], [
      false,
      ["zz", "aa", "auto-2026-11-22_00-00"],
    ]);
    const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(
      reply.error?.message ?? "",
      "zz, aa (on it: clone tank/mine), auto-2026-11-22_00-00",
    );
    assertEquals((await snapshotNames(place)).length, 4);
  },
);

over("a snapshot that is not there is not found", async (place) => {
  const volname = await place.alloc();
  for (const method of ["volume_rollback_is_possible", "volume_snapshot_rollback"]) {
    const reply = await place.ask(method, { volname, snapshot: "s" });
    assertEquals([method, reply.error?.code], [method, "not-found"]);
  }
});

over("a disk that is used on this node is not rolled back", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "newer");
  await place.holdOpen(volname);
  const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals(reply.error?.code, "in-use");
  assertStringIncludes(reply.error?.message ?? "", "qemu-system-x86");
  assertEquals(await contentOf(place, volname, 5), "newer");
});

over("a rollback takes the size back, too, and every path shows it", async (place, { zvol }) => {
  const volname = await place.alloc();
  const small = 65536 * 1024;
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.array((nas) => nas.zvols.grow(zvol, 2 * small));
  await place.must("activate_volume", { volname });
  assertEquals(await sizeOnNode(place, volname), 2 * small);
  await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals((await place.must("volume_size_info", { volname })).size, small);
  assertEquals(await sizeOnNode(place, volname), small);
  // The identity stayed: the same name is activated again.
  await place.must("deactivate_volume", { volname });
  await place.must("activate_volume", { volname });
  assertEquals(await sizeOnNode(place, volname), small);
});

for (const how of ["done-then-drop", "cut"]) {
  over(`a rollback whose answer is lost (${how}) is done`, async (place, { method }) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "older");
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await writeContent(place, volname, "newer");
    await place.faults([{ method: method("rollback"), nth: 1, do: how }]);
    await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
    assertEquals(await contentOf(place, volname, 5), "older");
  });
}

over(
  "a rollback whose caller is gone is finished, with the disk attached again",
  async (place, { method }) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "older");
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await writeContent(place, volname, "newer");
    await place.faults([{ method: method("rollback"), nth: 1, do: "delay", ms: 2500 }]);
    const args = { volname, snapshot: "s" };
    const reply = await place.ask("volume_snapshot_rollback", args, { deadlineMs: 2000 });
    assertEquals(reply.error?.code, "timeout");
    assertStringIncludes(reply.error?.message ?? "", "the array is told to roll it back");
    assertStringIncludes(reply.error?.hint ?? "", "Roll back once more");
    assertEquals(await contentOf(place, volname, 5), "older");
  },
);

over(
  "a rollback that the array refuses changes nothing, and the disk is attached as before",
  async (place, { method }) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await place.must("activate_volume", { volname });
    await writeContent(place, volname, "newer");
    await place.faults([{ method: method("rollback"), do: "error", errno: 5 }]);
    const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
    assertEquals(reply.ok, false);
    assertEquals(await contentOf(place, volname, 5), "newer");
  },
);

over(
  "a snapshot that somebody takes at the last moment stops the rollback",
  async (place, { method, zvol }) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "s" });
    await place.faults([{ method: method("rollback"), nth: 1, do: "delay", ms: 1000 }]);
    const late = place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
    while (place.simulator.stats().calls[method("rollback")] === undefined) await pause();
    await place.array((nas) => nas.snapshots.create(zvol, "auto"));
    assertEquals((await late).error?.code, "has-dependents");
    assertEquals(await snapshotNames(place), ["auto", "s"]);
  },
);

over("a rollback of one volume leaves others alone", async (place) => {
  const volname = await place.alloc();
  const other = await place.alloc(200);
  for (const one of [volname, other]) {
    await place.must("activate_volume", { volname: one });
    await writeContent(place, one, "older");
    await place.must("volume_snapshot", { volname: one, snapshot: "s" });
    await writeContent(place, one, "newer");
  }
  await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals(await contentOf(place, other, 5), "newer");
  assertEquals(await zvolNames(place), ["vm-100-disk-0", "vm-200-disk-0"]);
});

over("a volume whose guest may run on another node is not rolled back", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "newer");
  const folder = `${place.directory}/etc/pve/nodes/pve9/qemu-server`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/100.conf`, `scsi0: san:${volname},size=64M\n`);
  const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals(reply.error?.code, "in-use");
  assertStringIncludes(reply.error?.message ?? "", "pve9");
  assertEquals(await contentOf(place, volname, 5), "newer");
});

Deno.test("iscsi, 25.04: without a full administrator's key a rollback says which right is missing", async () => {
  await using place = await Place.start("iscsi", {
    release: "25.04",
  });
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.faults([
    { method: "zfs.snapshot.rollback", do: "error", errno: 13, message: "Not authorized" },
  ]);
  const reply = await place.ask("volume_snapshot_rollback", { volname, snapshot: "s" });
  assertEquals(reply.error?.code, "denied");
  assertStringIncludes(reply.error?.message ?? "", "full administrators only");
  assertStringIncludes(reply.error?.hint ?? "", "25.10");
});

/** What the node takes the disk's size for. */
async function sizeOnNode(place: Place, volname: string): Promise<number> {
  const node = (await Deno.realPath(place.linkOf(volname))).split("/").at(-1) ?? "";
  const sectors = await Deno.readTextFile(`${place.directory}/sys/class/block/${node}/size`);
  return Number(sectors.trim()) * 512;
}

/** Lets the simulator go on, which runs in this process. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
