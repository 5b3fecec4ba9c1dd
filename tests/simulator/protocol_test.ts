/** The wire: endpoints, dialects, limits, time-outs, jobs and events. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { request } from "node:https";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { Client } from "./client.ts";
import type { Any } from "./client.ts";
import { makeZvol, onStage } from "./world.ts";

function get(port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    request({ host: "127.0.0.1", port, path, rejectUnauthorized: false }, (response) => {
      let body = "";
      response.on("data", (chunk) => body += chunk);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    }).on("error", reject).end();
  });
}

Deno.test("the 21st call at once is refused and each call holds its slot until it ends", async () => {
  await onStage({}, async ({ simulator, client }) => {
    simulator.setFaults([{ method: "system.ready", do: "delay", ms: 40 }]);
    const answers = await Promise.all(
      Array.from({ length: 23 }, () => client.send("system.ready")),
    );
    const refused = answers.filter((answer) => answer.error?.code === -32000);
    assertEquals(refused.length, 3);
    assertEquals(refused[0].error.data, undefined);
    assertEquals(await client.call("core.ping"), "pong");
  });
});

Deno.test("answers come in the order of completion", async () => {
  await onStage({}, async ({ simulator, client }) => {
    simulator.setFaults([{ method: "system.ready", do: "delay", ms: 40 }]);
    const order: string[] = [];
    await Promise.all([
      client.send("system.ready").then(() => order.push("slow")),
      client.send("core.ping").then(() => order.push("quick")),
    ]);
    assertEquals(order, ["quick", "slow"]);
  });
});

Deno.test("a connection on which the server says nothing is cut without a close frame", async () => {
  await onStage({ idleMs: 30 }, async ({ client }) => {
    assertEquals((await client.closed).close_code, 1006);
  });
});

Deno.test("a wrong key is a result, and the 21st login in a minute an error", async () => {
  const simulator = await startSimulator({});
  const client = await Client.open(simulator.ready.port);
  const login = { mechanism: "API_KEY_PLAIN", username: "tnblock", api_key: "1-wrong" };
  try {
    for (let call = 1; call <= 20; call += 1) {
      const { result } = await client.send("auth.login_ex", [login]);
      assertEquals(result, { response_type: "AUTH_ERR" });
    }
    const { error } = await client.send("auth.login_ex", [login]);
    assertEquals([error.code, error.data.error, error.data.reason], [
      -32001,
      16,
      "[EBUSY] Rate Limit Exceeded",
    ]);
  } finally {
    client.close();
    await simulator.stop();
  }
});

Deno.test("a login limit of 0 is none", async () => {
  const simulator = await startSimulator({ loginLimit: 0 });
  const client = await Client.open(simulator.ready.port);
  try {
    for (let call = 1; call <= 25; call += 1) {
      const answer = await client.send("auth.login_with_api_key", ["1-wrong"]);
      assertEquals(answer.result, false);
    }
  } finally {
    client.close();
    await simulator.stop();
  }
});

Deno.test("versions and boot id are told without a login", async () => {
  await onStage({ release: "25.10" }, async ({ simulator }) => {
    const versions = JSON.parse((await get(simulator.ready.port, "/api/versions")).body);
    assert(versions.includes("v25.10.0") && versions.includes("v25.04.2"));
    assertMatch((await get(simulator.ready.port, "/api/boot_id")).body, /^"[0-9a-f-]{36}"$/);
    assertEquals((await get(simulator.ready.port, "/api/v2.0/system/version")).status, 401);
  });
});

Deno.test("an unknown dialect is refused at the upgrade", async () => {
  await onStage({ release: "25.04" }, async ({ simulator }) => {
    const outcome = await Client.open(simulator.ready.port, "/api/v25.10.0").then(
      () => "opened",
      (error: Error) => error.message,
    );
    assertMatch(outcome, /404/);
  });
});

Deno.test("a 25.04 dialect on a newer server has lost its storage methods", async () => {
  await onStage({ release: "25.10" }, async ({ simulator }) => {
    const old = await Client.open(simulator.ready.port, "/api/v25.04.2");
    try {
      await old.login(simulator.ready.user, simulator.ready.apiKey);
      const { error } = await old.send("pool.dataset.create", [{}]);
      assertEquals([error.code, error.data.error], [-32001, 201]);
      assertEquals(error.data.reason, "[ENOMETHOD] Method 'create' not found in 'pool.dataset'");
      assertEquals(await old.call("iscsi.extent.query"), []);
    } finally {
      old.close();
    }
  });
});

Deno.test("an older dialect does not see what a newer release added", async () => {
  await onStage({ release: "26" }, async ({ simulator, client }) => {
    const zvol = await makeZvol(client, "a");
    const made = await client.call("nvmet.namespace.create", {
      subsys_id: 1,
      device_type: "ZVOL",
      device_path: `zvol/${zvol}`,
    });
    assert("relative_path" in made);
    const old = await Client.open(simulator.ready.port, "/api/v25.10.0");
    try {
      await old.login(simulator.ready.user, simulator.ready.apiKey);
      const [row] = await old.call("nvmet.namespace.query");
      assert(!("relative_path" in row));
    } finally {
      old.close();
    }
  });
});

Deno.test("methods that have gone private answer only a full administrator", async () => {
  await onStage({ release: "26" }, async ({ simulator, client }) => {
    assertEquals(await client.call("service.start", "nvmet"), true);
    assertEquals((await client.send("zfs.snapshot.query")).error.code, -32601);
    simulator.world.users.set("small", {
      name: "small",
      apiKey: "9-small",
      apiKeyId: 9,
      roles: ["SERVICE_WRITE"],
    });
    const small = await Client.open(simulator.ready.port);
    try {
      await small.login("small", "9-small");
      assertEquals((await small.send("service.start", ["nvmet"])).error.data.error, 13);
    } finally {
      small.close();
    }
  });
});

Deno.test("a job answers with its number, and with its result where that was chosen", async () => {
  await onStage({ release: "25.10" }, async ({ client }) => {
    const ping: Any[] = ["core.ping", [[], []]];
    assertEquals(await client.call("core.bulk", ...ping), 1);
    await client.call("core.set_options", { legacy_jobs: false });
    const results = await client.call("core.bulk", ...ping);
    assertEquals(results.map((entry: Any) => entry.result), ["pong", "pong"]);
  });
});

Deno.test("who subscribed hears of changes, and of nothing after logging out", async () => {
  await onStage({}, async ({ client, another }) => {
    const listener = await another();
    await listener.call("core.subscribe", "pool.dataset.query");
    const zvol = await makeZvol(client, "a");
    const event = await listener.event((params) => params.id === zvol);
    assertEquals([event.msg, event.collection], ["added", "pool.dataset.query"]);
    await listener.call("auth.logout");
    await makeZvol(client, "b");
    assertEquals(listener.notifications.length, 1);
  });
});

Deno.test("rows that a cascade removed raise no event", async () => {
  await onStage({}, async ({ client }) => {
    await client.call("core.subscribe", "*");
    const zvol = await makeZvol(client, "a");
    await client.call("iscsi.extent.create", { name: "a", disk: `zvol/${zvol}` });
    await client.call("pool.dataset.delete", zvol);
    await client.event((params) =>
      params.collection === "pool.dataset.query" && params.msg === "removed"
    );
    const extents = client.notifications.filter(({ params }) =>
      params.collection === "iscsi.extent.query"
    );
    assertEquals(extents.map(({ params }) => params.msg), ["added"]);
  });
});

Deno.test("an event can come before the answer or after it", async () => {
  await onStage({}, async ({ simulator, client }) => {
    await client.call("core.subscribe", "pool.dataset.query");
    await makeZvol(client, "early");
    assertEquals(client.notifications.length, 1);
    simulator.setFaults([{ method: "event.pool.dataset.query", do: "delay", ms: 30 }]);
    const zvol = await makeZvol(client, "late");
    assertEquals(client.notifications.length, 1);
    assertEquals((await client.event((params) => params.id === zvol)).msg, "added");
  });
});
