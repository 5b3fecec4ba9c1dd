/** iSCSI: numbers, reloads, sessions and what deleting does. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Client } from "./client.ts";
import { makeLun, makeZvol, onStage, playedDataSide } from "./world.ts";

Deno.test("two mappings at once without a number may get the same LUN", async () => {
  await onStage({}, async ({ simulator, client, another }) => {
    const other = await another();
    const ids: number[] = [];
    for (const name of ["a", "b"]) {
      const zvol = await makeZvol(client, name);
      ids.push((await client.call("iscsi.extent.create", { name, disk: `zvol/${zvol}` })).id);
    }
    // Both are checked before either is written, because each lets the other run in between.
    const rows = await Promise.all([
      client.call("iscsi.targetextent.create", { target: 1, extent: ids[0] }),
      other.call("iscsi.targetextent.create", { target: 1, extent: ids[1] }),
    ]);
    const luns = rows.map((row) => row.lunid);
    assert(luns[0] === luns[1] || luns[0] + luns[1] === 1, `LUNs ${luns}`);
    assertEquals(simulator.objects().mappings.length, 2);
  });
});

Deno.test("the database refuses a second extent of one name and takes a second one of one zvol", async () => {
  await onStage({ release: "25.04" }, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    const disk = `zvol/${zvol}`;
    await client.call("iscsi.extent.create", { name: "one", disk });
    await client.call("iscsi.extent.create", { name: "two", disk });
    await assertRejects(
      () => client.call("iscsi.extent.create", { name: "two", disk }),
      "Extent name must be unique",
    );
    assertEquals(simulator.objects().extents.length, 2);
  });
});

Deno.test("reloads of one service wait for each other", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const ids: number[] = [];
    for (const name of ["a", "b"]) {
      const zvol = await makeZvol(client, name);
      ids.push((await client.call("iscsi.extent.create", { name, disk: `zvol/${zvol}` })).id);
    }
    // The first reload is held up; the second write, quick by itself, must not overtake it.
    simulator.setFaults([{ method: "reload.iscsitarget", nth: 1, do: "delay", ms: 60 }]);
    const order: number[] = [];
    await Promise.all([
      client.call("iscsi.targetextent.create", { target: 1, extent: ids[0], lunid: 1 })
        .then(() => order.push(1)),
      client.call("iscsi.targetextent.create", { target: 1, extent: ids[1], lunid: 2 })
        .then(() => order.push(2)),
    ]);
    assertEquals(order, [1, 2]);
    assertEquals(simulator.exports().iscsi.targets[0]?.luns.length, 2);
  });
});

Deno.test("a failed reload leaves its row behind", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    const extent = await client.call("iscsi.extent.create", { name: "a", disk: `zvol/${zvol}` });
    const mapping = { target: 1, extent: extent.id };
    simulator.setFaults([{ method: "reload.iscsitarget", nth: 1, do: "error" }]);
    const { error } = await client.send("iscsi.targetextent.create", [mapping]);
    assertEquals([error.data.error, error.data.reason], [
      202,
      "[ESERVICESTARTFAILURE] The iscsitarget service failed to start",
    ]);
    const again = await client.send("iscsi.targetextent.create", [mapping]);
    assertEquals(again.error.data.extra[0][1], "Extent is already in use.");
  });
});

Deno.test("a mapping under a session goes only with force", async () => {
  let iqn = "";
  const dataSide = playedDataSide({
    sessions: () => ({ iscsi: [{ iqn, initiator: "iqn.x", address: "127.0.0.1" }], nvmet: [] }),
  });
  await onStage({ dataSide }, async ({ simulator, client }) => {
    iqn = simulator.ready.targetIqn;
    const { mapping } = await makeLun(client, "a");
    const { error } = await client.send("iscsi.targetextent.delete", [mapping]);
    assertEquals(error.data.reason, `[EFAULT] Associated target ${iqn} is in use.`);
    assertEquals(await client.call("iscsi.targetextent.delete", mapping, true), true);
  });
});

Deno.test("a target whose initiator group is deleted is open to everybody", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const group = await client.call("iscsi.initiator.create", { initiators: ["iqn.host"] });
    const [target] = await client.call("iscsi.target.query");
    const groups = target.groups.map((entry: object) => ({ ...entry, initiator: group.id }));
    await client.call("iscsi.target.update", target.id, { groups });
    assertEquals(simulator.exports().iscsi.targets[0]?.initiators, ["iqn.host"]);
    await client.call("iscsi.initiator.delete", group.id);
    assertEquals(simulator.exports().iscsi.targets[0]?.initiators, []);
  });
});

Deno.test("a deleted portal leaves every target, and portal tags close up", async () => {
  await onStage({}, async ({ client }) => {
    const [first] = await client.call("iscsi.portal.query");
    await client.call("iscsi.portal.delete", first.id);
    const [target] = await client.call("iscsi.target.query");
    assertEquals(target.groups.length, 1);
    assertEquals((await client.call("iscsi.portal.query"))[0].tag, 1);
  });
});

Deno.test("naa and serial are the server's and random, ids grow", async () => {
  await onStage({}, async ({ client }) => {
    const made = [];
    for (const name of ["a", "b"]) {
      const zvol = await makeZvol(client, name);
      made.push(await client.call("iscsi.extent.create", { name, disk: `zvol/${zvol}` }));
    }
    assertMatch(made[0].naa, /^0x6589cfc000000[0-9a-f]{19}$/);
    assertMatch(made[0].serial, /^[0-9a-f]{15}$/);
    assert(made[0].naa !== made[1].naa && made[0].serial !== made[1].serial);
    await client.call("iscsi.extent.delete", made[1].id);
    const again = await client.call("iscsi.extent.create", { name: "b", disk: "zvol/tank/pve/b" });
    assertEquals([made[0].id, made[1].id, again.id], [1, 2, 3]);
  });
});

Deno.test("with the service stopped every write succeeds and nothing is offered", async () => {
  await onStage({}, async ({ simulator, client }) => {
    await simulator.setService("iscsitarget", false);
    await makeLun(client, "a");
    assertEquals(simulator.exports().iscsi.targets[0]?.luns, []);
    await client.call("service.start", "iscsitarget");
    assertEquals(simulator.exports().iscsi.targets[0]?.luns.length, 1);
  });
});

Deno.test("a disabled or locked extent is listed and not offered", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const { extent } = await makeLun(client, "a");
    await client.call("iscsi.extent.update", extent, { enabled: false });
    assertEquals(simulator.exports().iscsi.targets[0]?.luns, []);
    await client.call("iscsi.extent.update", extent, { enabled: true });
    assertEquals(simulator.exports().iscsi.targets[0]?.luns.length, 1);
    const dataset = simulator.world.zfs.datasets.get("tank/pve/a");
    if (dataset !== undefined) dataset.locked = true;
    const [row] = await client.call("iscsi.extent.query");
    assertEquals(row.locked, true);
    const unasked = { extra: { retrieve_locked_info: false } };
    assertEquals((await client.call("iscsi.extent.query", [], unasked))[0].locked, null);
  });
});

Deno.test("extent names clash once flattened, on 25.10 and later", async () => {
  for (const [release, clashes] of [["25.04", false], ["25.10", true]] as const) {
    await onStage({ release }, async ({ client }) => {
      const names = ["a.b/c", "a_b-c"];
      const outcomes = [];
      for (const [index, name] of names.entries()) {
        const zvol = await makeZvol(client, `v${index}`);
        outcomes.push(await client.send("iscsi.extent.create", [{ name, disk: `zvol/${zvol}` }]));
      }
      assertEquals(outcomes[1].error !== undefined, clashes);
    });
  }
});

Deno.test("secrets are masked for a reader", async () => {
  await onStage({}, async ({ simulator, client }) => {
    await client.call("iscsi.auth.create", { tag: 1, user: "u", secret: "secret123456" });
    simulator.world.users.set("reader", {
      name: "reader",
      apiKey: "8-reader",
      apiKeyId: 8,
      roles: ["SHARING_ISCSI_READ"],
    });
    const reader = await Client.open(simulator.ready.port);
    try {
      await reader.login("reader", "8-reader");
      assertEquals((await reader.call("iscsi.auth.query"))[0].secret, "********");
    } finally {
      reader.close();
    }
    assertEquals((await client.call("iscsi.auth.query"))[0].secret, "secret123456");
  });
});
