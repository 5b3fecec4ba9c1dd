/** Reading a snapshot: a hidden clone that belongs to one node, is seen by nobody else, and leaves nothing. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Place } from "../support/place.ts";
import {
  contentOf,
  exportCount,
  isAttached,
  over,
  snapshotNames,
  writeContent,
  writesOf,
  zvolNames,
} from "./snapshot_support.ts";

const NODES = { nodes: ["pve1", "pve2"] };

/** A volume that held "older" when its snapshot `s` was taken, and holds "newer". */
async function prepared(place: Place): Promise<string> {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await writeContent(place, volname, "older");
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await writeContent(place, volname, "newer");
  return volname;
}

over(
  "a snapshot is read while the volume goes on, and nothing is left of it afterwards",
  async (place, { release }) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    const path = await place.must("path", args);
    assertEquals(path.path, "/dev/tnblock/san/vm-100-disk-0@s");
    assertEquals(
      await writesOf(place, "activate_volume", args),
      // From 26 on a clone gets its marks by a second write.
      (place.transport === "iscsi" ? 3 : 2) + (release === "26" ? 1 : 0),
    );
    assertEquals(await contentOf(place, volname, 5, "s"), "older");
    assertEquals(await contentOf(place, volname, 5), "newer");
    assertEquals(
      await writesOf(place, "deactivate_volume", args),
      place.transport === "iscsi" ? 3 : 2,
    );
    assertEquals(await isAttached(place, volname, "s"), false);
    assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
    assertEquals(await exportCount(place), 1);
    assertEquals(await knownFiles(place), ["vm-100-disk-0.json"]);
    assertEquals(await contentOf(place, volname, 5), "newer");
  },
);

over("no listing and no search for a name sees the clone", async (place) => {
  const volname = await prepared(place);
  await place.must("activate_volume", { volname, snapshot: "s" });
  const rows = await place.must("list_images");
  assertEquals(rows.map((row: { volid: string }) => row.volid), [`san:${volname}`]);
  assertStringIncludes(await place.alloc(), "vm-100-disk-1");
});

over("activating again finds the same clone, also when half of it is gone", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  const clone = await zvolNames(place);
  assertEquals(await writesOf(place, "activate_volume", args), 0);
  // As if an administrator had removed its export.
  await place.must("deactivate_volume", { volname });
  await place.array(async (nas) => {
    const isClone = (zvol: string | undefined) => zvol?.includes("tnb-read-") ?? false;
    for (const extent of await nas.extents.all()) {
      if (isClone(extent.zvol)) await nas.extents.remove(extent.id, { force: true });
    }
    if (place.transport !== "nvme-tcp") return;
    for (const row of await nas.namespaces.all()) {
      if (isClone(row.zvol)) await nas.namespaces.remove(row.id);
    }
  });
  await place.must("list_images");
  assert(!place.log.some((line) => line.includes("nothing exports them")));
  await place.must("activate_volume", args);
  assertEquals(await zvolNames(place), clone);
  assertEquals(await contentOf(place, volname, 5, "s"), "older");
});

over("each node has a clone of its own, and lets go of its own only", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args, { node: "pve1" });
  await place.must("activate_volume", args, { node: "pve2" });
  assertEquals((await zvolNames(place)).length, 3);
  assertEquals(await contentOf(place, volname, 5, "s", "pve2"), "older");
  await place.must("deactivate_volume", args, { node: "pve1" });
  assertEquals((await zvolNames(place)).length, 2);
  assertEquals(await contentOf(place, volname, 5, "s", "pve2"), "older");
  await place.must("deactivate_volume", args, { node: "pve2" });
  assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
}, NODES);

over("a snapshot that another node reads is not deleted, and the node is named", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args, { node: "pve2" });
  const reply = await place.ask("volume_snapshot_delete", args, { node: "pve1" });
  assertEquals(reply.error?.code, "has-dependents");
  assertStringIncludes(reply.error?.message ?? "", "node pve2");
  assertEquals(await snapshotNames(place), ["s"]);
  assertEquals(await contentOf(place, volname, 5, "s", "pve2"), "older");
  // What this node reads stays too, as long as it could not be deleted anyway.
  await place.must("activate_volume", args, { node: "pve1" });
  assertEquals((await place.ask("volume_snapshot_delete", args)).error?.code, "has-dependents");
  assertEquals(await contentOf(place, volname, 5, "s"), "older");
}, NODES);

over(
  "after the backup of a container only the deletion of the snapshot comes: it removes the clone",
  async (place) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    await place.must("activate_volume", args);
    await place.must("volume_snapshot_delete", args);
    assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
    assertEquals(await snapshotNames(place), []);
    assertEquals(await exportCount(place), 1);
    assertEquals(await isAttached(place, volname, "s"), false);
  },
);

over("a snapshot that is read here is neither let go of nor deleted", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  await place.holdOpen("vm-100-disk-0@s");
  for (const method of ["deactivate_volume", "volume_snapshot_delete"]) {
    const reply = await place.ask(method, args);
    assertEquals([method, reply.error?.code], [method, "in-use"]);
    assertStringIncludes(reply.error?.message ?? "", "qemu-system-x86");
  }
  assertEquals(await contentOf(place, volname, 5, "s"), "older");
  assertEquals(await snapshotNames(place), ["s"]);
});

over("a snapshot that was deleted and taken again is read as it is now", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  await place.must("volume_snapshot_delete", args);
  await place.must("volume_snapshot", args);
  await place.must("activate_volume", args);
  assertEquals(await contentOf(place, volname, 5, "s"), "newer");
});

over("a clone under our name that is of another snapshot is made anew", async (place, { zvol }) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  await place.must("volume_snapshot", { volname, snapshot: "t" });
  const clone = (await zvolNames(place)).find((name) => name.startsWith("tnb-read-")) ?? "";
  const { dataset } = place.simulator.ready;
  await place.array(async (nas) => {
    const marks = (await nas.zvols.read(`${dataset}/${clone}`))?.userProperties ?? {};
    await place.must("deactivate_volume", args);
    // As tnblock clones: 26 takes the marks by a second write only.
    const named = { userProperties: marks };
    await nas.zvols.clone(`${zvol}@t`, `${dataset}/${clone}`, named, () => {});
  });
  await place.must("activate_volume", args);
  assertEquals(await contentOf(place, volname, 5, "s"), "older");
});

over("what somebody else made under the clone's name is not used, and stays", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  const clone = (await zvolNames(place)).find((name) => name.startsWith("tnb-read-")) ?? "";
  await place.must("deactivate_volume", args);
  await place.array((nas) =>
    nas.zvols.create({
      name: `${place.simulator.ready.dataset}/${clone}`,
      volsize: 1 << 20,
      volblocksize: "16K",
      sparse: true,
    })
  );
  assertEquals((await place.ask("activate_volume", args)).error?.code, "not-ours");
  await place.must("deactivate_volume", args);
  await place.must("volume_snapshot_delete", args);
  assertEquals(await zvolNames(place), [clone, "vm-100-disk-0"]);
});

over("a snapshot that is not there cannot be read", async (place) => {
  const volname = await place.alloc();
  const reply = await place.ask("activate_volume", { volname, snapshot: "s" });
  assertEquals(reply.error?.code, "not-found");
  assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
  await place.must("deactivate_volume", { volname, snapshot: "s" });
});

over(
  "a failure at any step of the activation leaves nothing",
  async (place, { method, release }) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    const marking = release === "26" ? ["pool.dataset.update"] : [];
    const steps = place.transport === "iscsi"
      ? [method("clone"), "iscsi.extent.create", "iscsi.targetextent.create"]
      : [method("clone"), "nvmet.namespace.create"];
    for (const step of [...marking, ...steps]) {
      await place.faults([{ method: step, do: "error", errno: 5 }]);
      assertEquals([step, (await place.ask("activate_volume", args)).ok], [step, false]);
      await place.faults([]);
      assertEquals([step, await zvolNames(place)], [step, ["vm-100-disk-0"]]);
      assertEquals(await exportCount(place), 1);
      assertEquals(await isAttached(place, volname, "s"), false);
    }
  },
);

over("an activation that nobody waits for is taken back", async (place, { method }) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  const reply = await place.askAndGiveUp(
    { method: method("clone"), nth: 1 },
    "activate_volume",
    args,
  );
  assertEquals(reply.error?.code, "timeout");
  assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
  assertEquals(await isAttached(place, volname, "s"), false);
});

for (const how of ["done-then-drop", "cut"]) {
  over(`lost answers (${how}) leave no second clone and no half one`, async (place, { method }) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    const exporting = place.transport === "iscsi"
      ? "iscsi.extent.create"
      : "nvmet.namespace.create";
    for (const step of [method("clone"), exporting]) {
      await place.faults([{ method: step, nth: 1, do: how }]);
      const reply = await place.ask("activate_volume", args);
      await place.faults([]);
      if (!reply.ok) {
        assertEquals([step, await zvolNames(place)], [step, ["vm-100-disk-0"]]);
        continue;
      }
      assertEquals(await contentOf(place, volname, 5, "s"), "older");
      await place.must("deactivate_volume", args);
      assertEquals([step, await zvolNames(place)], [step, ["vm-100-disk-0"]]);
    }
    const removing = place.transport === "iscsi"
      ? "iscsi.targetextent.delete"
      : "nvmet.namespace.delete";
    await place.must("activate_volume", args);
    await place.faults([{ method: removing, nth: 1, do: how }]);
    await place.must("deactivate_volume", args);
    assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
    assertEquals(await exportCount(place), 1);
  });
}

over(
  "with the API away the node lets go, and the deletion of the snapshot does the rest",
  async (place) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    await place.must("activate_volume", args);
    const reply = await place.ask("deactivate_volume", args, {
      config: { "tnb-api-port": 1, "tnb-api-retry-max": 0 },
    });
    assertEquals(reply.error, undefined);
    assertEquals(await isAttached(place, volname, "s"), false);
    assert(place.log.some((line) => line.startsWith("warning:") && line.includes("for now")));
    await place.must("volume_snapshot_delete", args);
    assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
  },
);

over("a clone that TrueNAS's own task has snapshotted goes with that snapshot", async (place) => {
  const volname = await prepared(place);
  const args = { volname, snapshot: "s" };
  await place.must("activate_volume", args);
  const clone = (await zvolNames(place)).find((name) => name.startsWith("tnb-read-")) ?? "";
  await place.array((nas) =>
    nas.snapshots.create(`${place.simulator.ready.dataset}/${clone}`, "auto")
  );
  await place.must("deactivate_volume", args);
  assertEquals(await zvolNames(place), ["vm-100-disk-0"]);
  assertEquals(await snapshotNames(place), ["s"]);
});

over(
  "a volume is freed with what this node read of it, and not while another node reads",
  async (place) => {
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    await place.must("activate_volume", args, { node: "pve1" });
    await place.must("activate_volume", args, { node: "pve2" });
    const reply = await place.ask("free_image", { volname, isBase: 0, finish: true });
    assertEquals(reply.error?.code, "has-dependents");
    assertStringIncludes(reply.error?.message ?? "", "node pve2");
    await place.must("deactivate_volume", args, { node: "pve2" });
    await place.must("free_image", { volname, isBase: 0, finish: true });
    assertEquals(await zvolNames(place), []);
    assertEquals(await exportCount(place), 0);
    assertEquals(await isAttached(place, volname, "s"), false);
  },
  NODES,
);

over(
  "an extent of another's on the clone stops its removal, and stays",
  async (place, { transport }) => {
    if (transport !== "iscsi") return;
    const volname = await prepared(place);
    const args = { volname, snapshot: "s" };
    await place.must("activate_volume", args);
    const clone = (await zvolNames(place)).find((name) => name.startsWith("tnb-read-")) ?? "";
    const zvol = `${place.simulator.ready.dataset}/${clone}`;
    await place.array(async (nas) => {
      const [extent] = await nas.extents.byZvol(zvol);
      await nas.extents.remove(extent?.id ?? 0, { force: true });
      await nas.extents.create({ name: "mine", zvol, blocksize: 512, comment: "do not touch" });
    });
    for (const verb of ["deactivate_volume", "volume_snapshot_delete"]) {
      assertEquals([verb, (await place.ask(verb, args)).error?.code], [verb, "in-use"]);
    }
    assertEquals(await snapshotNames(place), ["s"]);
  },
);

/** What this node remembers of its disks. */
async function knownFiles(place: Place): Promise<string[]> {
  const folder = Deno.readDir(`${place.directory}/var/lib/tnblock/san`);
  return (await Array.fromAsync(folder)).map((entry) => entry.name).sort();
}
