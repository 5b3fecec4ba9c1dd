/** Datasets, zvols and snapshots: the rules, the races and the releases' ways to delete. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ZvolBusyError } from "../../src/simulator/exports.ts";
import { latencyProfile } from "../../src/simulator/latency.ts";
import { releaseOf } from "../../src/simulator/release.ts";
import { Zfs } from "../../src/simulator/zfs.ts";
import { makeLun, makeZvol, onStage, playedDataSide } from "./world.ts";

Deno.test("a new zvol's device node comes after the answer", async () => {
  let node = false;
  await onStage({ dataSide: playedDataSide({ hasNode: () => node }) }, async ({ client }) => {
    const zvol = await makeZvol(client, "a");
    const extent = { name: "a", disk: `zvol/${zvol}` };
    const space = { subsys_id: 1, device_type: "ZVOL", device_path: `zvol/${zvol}` };
    await assertRejects(() => client.call("iscsi.extent.create", extent), "does not exist");
    await assertRejects(() => client.call("nvmet.namespace.create", space), "block device");
    node = true;
    assertEquals((await client.call("iscsi.extent.create", extent)).id, 1);
  });
});

Deno.test("deleting a zvol takes its shares, and a target left empty, before the zvol itself", async () => {
  const dataSide = playedDataSide({ destroyZvol: () => Promise.reject(new ZvolBusyError()) });
  await onStage({ release: "25.10", dataSide }, async ({ simulator, client }) => {
    await makeLun(client, "a");
    const { error } = await client.send("pool.dataset.delete", ["tank/pve/a"]);
    assertEquals([error.data.error, error.data.reason], [
      16,
      "[EBUSY] Failed to delete dataset: cannot destroy 'tank/pve/a': dataset is busy",
    ]);
    const left = simulator.objects();
    assertEquals([left.zvols.length, left.extents, left.mappings, left.targets], [1, [], [], []]);
  });
});

Deno.test("26 answers true although a busy zvol is still there", async () => {
  const dataSide = playedDataSide({ destroyZvol: () => Promise.reject(new ZvolBusyError()) });
  await onStage({ release: "26", dataSide }, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    assertEquals(await client.call("pool.dataset.delete", zvol), true);
    assertEquals(simulator.objects().zvols.length, 1);
    await assertRejects(() => client.call("zfs.resource.destroy", { path: zvol }), "EZFS_BUSY");
  });
});

Deno.test("a zvol that the kernel lets go later can be deleted later", async () => {
  let busy = true;
  const dataSide = playedDataSide({
    destroyZvol: () => busy ? Promise.reject(new ZvolBusyError()) : Promise.resolve(),
  });
  await onStage({ release: "25.10", dataSide }, async ({ client }) => {
    const zvol = await makeZvol(client, "a");
    await assertRejects(() => client.call("pool.dataset.delete", zvol), "EBUSY");
    busy = false;
    assertEquals(await client.call("pool.dataset.delete", zvol), true);
  });
});

Deno.test("a snapshot with a clone stays listed until the clone goes", async () => {
  await onStage({ release: "25.10" }, async ({ client }) => {
    const zvol = await makeZvol(client, "a");
    await client.call("pool.snapshot.create", { dataset: zvol, name: "s" });
    const clone = { snapshot: `${zvol}@s`, dataset_dst: "tank/pve/c" };
    await client.call("pool.snapshot.clone", clone);
    await assertRejects(() => client.call("pool.snapshot.delete", `${zvol}@s`), "dependent clones");
    assertEquals(await client.call("pool.snapshot.delete", `${zvol}@s`, { defer: true }), true);
    const listed = () =>
      client.call("pool.snapshot.query", [["dataset", "=", zvol]], { count: true });
    assertEquals(await listed(), 1);
    await client.call("pool.dataset.delete", "tank/pve/c");
    assertEquals(await listed(), 0);
  });
});

Deno.test("26 tells of clones and holds in its own way", async () => {
  await onStage({ release: "26" }, async ({ client }) => {
    const zvol = await makeZvol(client, "a");
    await client.call("pool.snapshot.create", { dataset: zvol, name: "s" });
    await client.call("pool.snapshot.hold", `${zvol}@s`);
    const held = await client.send("pool.snapshot.delete", [`${zvol}@s`]);
    assertEquals([held.error.code, held.error.data.extra[0][2]], [-32602, 16]);
    assertMatch(held.error.data.extra[0][1], /has the following holds: truenas/);
    const whole = await client.send("pool.dataset.delete", [zvol]);
    assertMatch(whole.error.data.extra[0][1], /has snapshots/);
  });
});

Deno.test("recursive on 26 takes clones and holds with it", async () => {
  await onStage({ release: "26" }, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    await client.call("pool.snapshot.create", { dataset: zvol, name: "s" });
    await client.call("pool.snapshot.hold", `${zvol}@s`);
    await client.call("zfs.resource.snapshot.clone", {
      snapshot: `${zvol}@s`,
      dataset: "tank/pve/c",
    });
    assertEquals(await client.call("pool.dataset.delete", zvol, { recursive: true }), true);
    assertEquals(simulator.objects().zvols, []);
  });
});

Deno.test("sizes follow the rules for zvols", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const refused = async (size: number, message: string) => {
      const fields = { name: "tank/pve/x", type: "VOLUME", volsize: size };
      await assertRejects(() => client.call("pool.dataset.create", fields), message);
    };
    await refused((1 << 30) + 1, "multiple of volume block size");
    await refused(2 ** 47, "80% of your available space");
    await makeZvol(client, "a", { sparse: false });
    const [zvol] = simulator.objects().zvols;
    assert(Number(zvol?.refreservation) > 1 << 30);
    assertEquals(zvol?.volblocksize, 16_384);
    const shrink = { volsize: 1 << 29 };
    await assertRejects(() => client.call("pool.dataset.update", "tank/pve/a", shrink), "shrink");
  });
});

Deno.test("a grown zvol shows its size without a reload", async () => {
  await onStage({}, async ({ simulator, client }) => {
    await makeLun(client, "a");
    await client.call("pool.dataset.update", "tank/pve/a", { volsize: 2 ** 31 });
    assertEquals(simulator.exports().iscsi.targets[0]?.luns[0]?.size, 2 ** 31);
  });
});

Deno.test("types are strict, unknown keys are refused, long texts too", async () => {
  await onStage({ release: "25.10" }, async ({ client }) => {
    const refused = async (fields: object, message: string) =>
      await assertRejects(() => client.call("iscsi.extent.create", fields), message);
    await refused({ name: "a", blocksize: "512" }, "Input should be 512, 1024, 2048 or 4096");
    await refused({ name: "a", nosuch: 1 }, "Extra inputs are not permitted");
    await refused({ name: "a", comment: "x".repeat(1025) }, "at most 1024 characters");
  });
});

Deno.test("what is not there is a validation error with the number only inside", async () => {
  await onStage({}, async ({ client }) => {
    const { error } = await client.send("iscsi.extent.get_instance", [7]);
    assertEquals([error.code, error.data.error, error.data.extra[0][2]], [-32602, 22, 2]);
  });
});

Deno.test("dates, transaction groups and properties have the API's own forms", async () => {
  await onStage({ release: "25.10" }, async ({ client }) => {
    const zvol = await makeZvol(client, "a");
    const snapshot = await client.call("pool.snapshot.create", { dataset: zvol, name: "s" });
    assertEquals(typeof snapshot.createtxg, "string");
    assertEquals(snapshot.properties.creation.parsed.$date % 1000, 0);
    const entry = await client.call("pool.dataset.get_instance", zvol);
    assertEquals(entry.volsize, {
      parsed: 1 << 30,
      rawvalue: String(1 << 30),
      value: "1 GiB",
      source: "LOCAL",
      source_info: null,
    });
  });
});

Deno.test("the walk over all datasets grows with their number since 25.10", () => {
  const lan = latencyProfile("lan");
  const time = (release: "25.04" | "25.10", count: number) => lan.walk(count, releaseOf(release));
  assert(time("25.10", 10_000) > 5 * time("25.10", 1000));
  assertEquals(time("25.04", 10_000), time("25.04", 10));
});

Deno.test("a promoted clone takes the older snapshots with it", async () => {
  await onStage({ release: "25.10" }, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    await client.call("pool.snapshot.create", { dataset: zvol, name: "s" });
    await client.call("pool.snapshot.clone", { snapshot: `${zvol}@s`, dataset_dst: "tank/pve/c" });
    await client.call("pool.dataset.promote", "tank/pve/c");
    assertEquals(simulator.objects().snapshots.map(({ name }) => name), ["tank/pve/c@s"]);
    const origin = simulator.world.zfs.datasets.get(zvol)?.origin;
    assertEquals(origin, "tank/pve/c@s");
  });
});

Deno.test("user properties are inherited from the dataset above", async () => {
  await onStage({ release: "25.10" }, async ({ client }) => {
    const owner = [{ key: "tnblock:owner", value: "san" }];
    await client.call("pool.dataset.update", "tank/pve", { user_properties_update: owner });
    const zvol = await makeZvol(client, "a");
    const entry = await client.call("pool.dataset.get_instance", zvol);
    assertEquals(entry.user_properties["tnblock:owner"].source, "INHERITED");
    const [bare] = await client.call("zfs.resource.query", {
      paths: [zvol],
      get_user_properties: true,
    });
    assertEquals(bare.user_properties["tnblock:owner"], "san");
  });
});

Deno.test("space becomes free a while after the zvol is gone", () => {
  let now = 0;
  const zfs = new Zfs(() => now);
  zfs.addPool("tank", 2 ** 40);
  const before = zfs.free("tank");
  zfs.create("tank/a", "VOLUME", { volsize: 2 ** 30, refreservation: 2 ** 30 });
  zfs.remove("tank/a", 500);
  assertEquals([zfs.datasets.has("tank/a"), before - zfs.free("tank")], [false, 2 ** 30]);
  now = 500;
  assertEquals(zfs.free("tank"), before);
});
