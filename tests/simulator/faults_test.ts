/** Faults on demand, through the same control endpoint that a test of the product uses. */

import { assert, assertEquals } from "@std/assert";
import { Client } from "./client.ts";
import { makeLun, makeZvol, onStage, until } from "./world.ts";

async function post(url: string, body: unknown): Promise<number> {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  await response.body?.cancel();
  return response.status;
}

const zvol = { name: "tank/pve/a", type: "VOLUME", volsize: 1 << 30, sparse: true };

Deno.test("a fault hits the call that it names and no other", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const fault = { method: "pool.dataset.create", nth: 2, do: "error", errno: 28 };
    assertEquals(await post(`${simulator.ready.control}/faults`, [fault]), 200);
    await makeZvol(client, "x");
    const { error } = await client.send("pool.dataset.create", [zvol]);
    assertEquals([error.code, error.data.error, error.data.errname], [-32001, 28, "ENOSPC"]);
    await makeZvol(client, "a");
    assertEquals(simulator.objects().zvols.length, 2);
  });
});

Deno.test("a dropped reply leaves the work done and the connection up", async () => {
  await onStage({}, async ({ simulator, client }) => {
    simulator.setFaults([{ method: "pool.dataset.create", nth: 1, do: "drop-reply" }]);
    client.send("pool.dataset.create", [zvol]).catch(() => {});
    await until(() => simulator.objects().zvols.length === 1);
    assertEquals(await client.call("core.ping"), "pong");
  });
});

Deno.test("the connection can go after the work or before it", async () => {
  for (const [kind, zvols] of [["done-then-drop", 1], ["cut", 0]] as const) {
    await onStage({}, async ({ simulator, client }) => {
      simulator.setFaults([{ method: "pool.dataset.create", nth: 1, do: kind }]);
      assert("closed" in await client.send("pool.dataset.create", [zvol]));
      assertEquals(simulator.objects().zvols.length, zvols);
    });
  }
});

Deno.test("a held call is done once the faults are set anew without it, and no other is held", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const hold = { method: "pool.dataset.create", nth: 1, do: "hold" } as const;
    simulator.setFaults([hold]);
    const held = client.call("pool.dataset.create", zvol);
    await simulator.held("pool.dataset.create");
    await makeZvol(client, "other");
    simulator.setFaults([hold, { method: "core.ping", do: "error", errno: 5 }]);
    assertEquals((await client.send("core.ping")).error.data.error, 5);
    assertEquals(simulator.objects().zvols.map(({ name }) => name), ["tank/pve/other"]);
    simulator.setFaults([]);
    await held;
    assertEquals(simulator.objects().zvols.length, 2);
  });
});

Deno.test("a login can be answered as expired", async () => {
  await onStage({}, async ({ simulator }) => {
    const result = { response_type: "EXPIRED" };
    simulator.setFaults([{ method: "auth.login_ex", do: "result", result }]);
    const client = await Client.open(simulator.ready.port);
    try {
      assertEquals(await client.login("tnblock", simulator.ready.apiKey), result);
    } finally {
      client.close();
    }
  });
});

Deno.test("a call whose connection goes is finished on 25.x and left half done on 26", async () => {
  for (const [release, offered] of [["25.10", 1], ["26", 0]] as const) {
    await onStage({ release }, async ({ simulator, client, another }) => {
      const doomed = await another();
      const path = `zvol/${await makeZvol(client, "a")}`;
      const extent = await client.call("iscsi.extent.create", { name: "a", disk: path });
      simulator.setFaults([{ method: "iscsi.targetextent.create", do: "delay", ms: 40 }]);
      doomed.send("iscsi.targetextent.create", [{ target: 1, extent: extent.id }]).catch(() => {});
      await until(() => simulator.stats().calls["iscsi.targetextent.create"] === 1);
      doomed.close();
      await until(() => simulator.objects().mappings.length === 1);
      // Another write of the same service waits behind a reload of the first, if there was one.
      await client.call("core.ping");
      assertEquals(simulator.exports().iscsi.targets[0]?.luns.length, offered);
    });
  }
});

Deno.test("the control endpoint counts, shows and forgets", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const { control } = simulator.ready;
    const read = async (path: string) => await (await fetch(`${control}/${path}`)).json();
    await makeLun(client, "a");
    const stats = await read("stats");
    assertEquals(stats.calls["iscsi.extent.create"], 1);
    assertEquals([stats.logins, stats.connections], [1, 1]);
    assert(stats.bytesIn > 0 && stats.bytesOut > stats.bytesIn);
    const objects = await read("objects");
    assertEquals(objects.zvols[0].name, "tank/pve/a");
    assertEquals([objects.extents.length, objects.mappings.length], [1, 1]);
    await post(`${control}/reset`, {});
    assertEquals((await read("stats")).calls, {});
    assertEquals(await post(`${control}/faults`, { not: "a list" }), 400);
  });
});

Deno.test("a login can be forgotten with the connection left open: 207 from then on, what runs goes on", async () => {
  await onStage({}, async ({ simulator, client }) => {
    const hold = { method: "pool.dataset.create", nth: 1, do: "hold" } as const;
    simulator.setFaults([hold, { method: "pool.query", nth: 1, do: "expire" }]);
    const held = client.call("pool.dataset.create", zvol);
    await simulator.held("pool.dataset.create");
    for (const method of ["pool.query", "auth.me"]) {
      const { error } = await client.send(method);
      assertEquals([error.code, error.data.error], [-32001, 207]);
    }
    simulator.setFaults([]);
    await held;
    assertEquals(simulator.objects().zvols.length, 1);
  });
});

Deno.test("an array that was down comes back with its world, another boot id, and the release that it is given", async () => {
  await onStage({ release: "25.10" }, async ({ simulator, client, another }) => {
    await makeZvol(client, "a");
    const { bootId } = simulator.world;
    const up = await simulator.goDown();
    await client.closed;
    await up("26");
    assert(simulator.world.bootId !== bootId);
    const next = await another();
    assert(String(await next.call("system.version")).includes("26"));
    assertEquals(simulator.objects().zvols.length, 1);
  });
});
