/** The simulated REST API, by hand: it shares nothing with the product's client. */
import { Buffer } from "node:buffer";
import { Agent, request } from "node:https";
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Simulator, SimulatorOptions } from "../../src/simulator/simulator.ts";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { schemaChecker } from "../support/schema_check.ts";
import { inTime } from "./client.ts";

interface Answer {
  readonly status: number;
  readonly type: string;
  // deno-lint-ignore no-explicit-any
  readonly body: any;
}

/** A simulator and a way to ask it. */
async function onRest(
  options: SimulatorOptions,
  work: (
    ask: (line: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>,
    simulator: Simulator,
  ) => Promise<void>,
): Promise<void> {
  const schema = schemaChecker();
  const simulator = await startSimulator({ onExchange: schema.onExchange, ...options });
  const agent = new Agent({ rejectUnauthorized: false, keepAlive: true });
  const ask = (line: string, body?: unknown, headers?: Record<string, string>) => {
    const [method, path] = line.split(" ");
    const bytes = body === undefined
      ? undefined
      : Buffer.from(typeof body === "string" && body.startsWith("!") ? body : JSON.stringify(body));
    const answer = new Promise<Answer>((resolve, reject) => {
      const sent = request({
        agent,
        host: "127.0.0.1",
        port: simulator.ready.port,
        method: method ?? "",
        path: `/api/v2.0/${path}`,
        headers: {
          authorization: `Bearer ${simulator.ready.apiKey}`,
          ...(bytes === undefined ? {} : { "content-length": bytes.length }),
          ...headers,
        },
      }, (response) => {
        let text = "";
        response.on("data", (chunk) => text += chunk);
        response.on("end", () => {
          const type = response.headers["content-type"] ?? "";
          resolve({
            status: response.statusCode ?? 0,
            type,
            body: type.startsWith("application/json") ? JSON.parse(text) : text,
          });
        });
      });
      sent.on("error", reject);
      sent.end(bytes);
    });
    return inTime(answer, line);
  };
  try {
    await work(ask, simulator);
    assertEquals(schema.resultProblems(), []);
  } finally {
    agent.destroy();
    await simulator.stop();
  }
}

const DISK = { name: "tank/pve/a", type: "VOLUME", volsize: 1 << 30, sparse: true };

for (const release of ["25.04", "25.10.0", "25.10"] as const) {
  const snapshot = release === "25.04" ? "zfs/snapshot" : "pool/snapshot";

  Deno.test(`${release}: rows are made, changed, found and deleted at the paths of their services`, async () => {
    await onRest({ release }, async (ask) => {
      const made = await ask("POST pool/dataset", DISK);
      assertEquals([made.status, made.body.id], [200, "tank/pve/a"]);
      const grown = await ask("PUT pool/dataset/id/tank%2Fpve%2Fa", { volsize: 2 ** 31 });
      assertEquals(grown.body.volsize.parsed, 2 ** 31);
      const extent = (await ask("POST iscsi/extent", {
        name: "a",
        type: "DISK",
        disk: "zvol/tank/pve/a",
      })).body;
      const row = (await ask("POST iscsi/targetextent", { target: 1, extent: extent.id })).body;
      assertEquals((await ask(`GET iscsi/targetextent/id/${row.id}`)).body.lunid, row.lunid);
      assertEquals((await ask(`DELETE iscsi/targetextent/id/${row.id}`, true)).body, true);
      assertEquals(
        (await ask(`DELETE iscsi/extent/id/${extent.id}`, { remove: false, force: true })).body,
        true,
      );
      assertEquals((await ask("DELETE pool/dataset/id/tank%2Fpve%2Fa", {})).body, true);
      assertEquals((await ask("GET pool/dataset?id=tank/pve/a")).body, []);
    });
  });

  Deno.test(`${release}: a query takes filters from the query string, and all of them from a body`, async () => {
    await onRest({ release, volumes: 3 }, async (ask) => {
      const names = ({ body }: Answer) => body.map(({ name }: { name: string }) => name).sort();
      const all = names(await ask("GET iscsi/extent"));
      assertEquals(all.length, 3);
      assertEquals(names(await ask(`GET iscsi/extent?name=${all[1]}`)), [all[1]]);
      assertEquals((await ask("GET iscsi/extent?limit=2")).body.length, 2);
      const filters = [["name", "in", all.slice(1)]];
      const query = {
        "query-filters": filters,
        "query-options": { select: ["name"], force_sql_filters: true },
      };
      assertEquals((await ask("GET iscsi/extent", query)).body.length, 2);
      assertEquals(Object.keys((await ask("GET iscsi/extent", query)).body[0]), ["name"]);
    });
  });

  Deno.test(`${release}: parameters of other methods come by name, a single one bare`, async () => {
    await onRest({ release }, async (ask) => {
      await ask("POST pool/dataset", DISK);
      await ask(`POST ${snapshot}`, { dataset: "tank/pve/a", name: "s" });
      const rolled = await ask(`POST ${snapshot}/rollback`, { id: "tank/pve/a@s", options: {} });
      assertEquals([rolled.status, rolled.body], [200, null]);
      const cloned = await ask(`POST ${snapshot}/clone`, {
        snapshot: "tank/pve/a@s",
        dataset_dst: "tank/pve/b",
      });
      assertEquals(cloned.body, true);
      assertEquals((await ask("POST pool/dataset/id/tank%2Fpve%2Fb/promote")).status, 200);
      assertEquals((await ask("POST service/started", "iscsitarget")).body, true);
      assertEquals((await ask("GET iscsi/global")).body.listen_port > 0, true);
      assertMatch((await ask("GET system/version")).body, /^25\./);
      const missing = await ask(`POST ${snapshot}/rollback`, { options: {} });
      assertEquals([missing.status, missing.body.message], [400, "id attribute expected."]);
      const odd = await ask(`POST ${snapshot}/rollback`, { id: "x", nonsense: 1 });
      assertMatch(odd.body.message, /not expected: nonsense/);
      const bare = await ask(`POST ${snapshot}/rollback`, "x");
      assertMatch(bare.body.message, /object\/dict expected/);
      assertEquals((await ask("POST pool/dataset", "!no json")).status, 400);
    });
  });

  Deno.test(`${release}: errors are 422 with their number, 404 without a hit, 500 when nobody foresaw them`, async () => {
    await onRest({ release }, async (ask) => {
      await ask("POST pool/dataset", DISK);
      const again = await ask("POST pool/dataset", DISK);
      assertEquals([again.status, again.body.errno], [422, 14]);
      assertMatch(again.body.message, /^Failed to create dataset/);
      const odd = await ask("POST pool/dataset", { ...DISK, name: "tank/pve/b", volsize: 12345 });
      assertEquals(odd.status, 422);
      assertEquals(odd.body["pool_dataset_create.volsize"][0].errno, 22);
      const none = await ask("DELETE iscsi/extent/id/99", { remove: false, force: false });
      assertEquals([none.status, none.body.null[0].errno], [422, 2]);
      assertEquals((await ask("GET iscsi/extent/id/99")).status, 404);
      const orphan = await ask("POST iscsi/targetextent", { target: 1, extent: 99 });
      assertEquals(orphan.status, 500);
      assertMatch(orphan.body.message, /FOREIGN KEY/);
      assert("traceback" in orphan.body);
    });
  });

  Deno.test(`${release}: what needs a WebSocket, another release or another verb is not there`, async () => {
    await onRest({ release }, async (ask) => {
      for (
        const line of [
          "POST core/bulk",
          "POST core/subscribe",
          "POST core/set_options",
          "GET auth/me",
          "POST auth/login_ex",
          "GET nonsense",
          "POST zfs/resource/destroy",
          ...(release === "25.04"
            ? ["POST pool/dataset/rename", "GET pool/snapshot", "POST zfs/resource/query"]
            : ["GET zfs/snapshot"]),
        ]
      ) {
        const { status, type, body } = await ask(line, {});
        assertEquals([line, status, type, body], [
          line,
          404,
          "text/plain; charset=utf-8",
          "404: Not Found",
        ]);
      }
      assertEquals((await ask("DELETE iscsi/extent")).status, 405);
      assertEquals((await ask("PUT system/version")).status, 405);
    });
  });
}

Deno.test("25.10: the query of ZFS resources is a POST", async () => {
  await onRest({ release: "25.10" }, async (ask) => {
    const { body } = await ask("POST zfs/resource/query", {
      paths: ["tank/pve"],
      properties: ["guid"],
    });
    assertMatch(body[0].properties.guid.raw, /^\d+$/);
  });
});

Deno.test("a job method answers with the job's number, and the job can be asked for", async () => {
  await onRest({ release: "25.10" }, async (ask) => {
    const { body: id } = await ask("POST service/control", {
      verb: "STOP",
      service: "iscsitarget",
    });
    assert(Number.isInteger(id));
    let state = "";
    for (let look = 0; state !== "SUCCESS" && look < 100; look++) {
      state =
        (await ask("GET core/get_jobs", { "query-filters": [["id", "=", id]] })).body[0].state;
    }
    assertEquals(state, "SUCCESS");
  });
});

Deno.test("each request brings its key; a wrong one is 401, one with an unknown number 500", async () => {
  await onRest({ release: "25.10", loginLimit: 1 }, async (ask, simulator) => {
    const status = async (authorization: string) =>
      (await ask("GET system/version", undefined, { authorization })).status;
    const { apiKey } = simulator.ready;
    const number = apiKey.split("-")[0];
    assertEquals(await status(""), 401);
    assertEquals(await status("Basic YTpi"), 401);
    assertEquals(await status("Bearer nonsense"), 401);
    assertEquals(await status(`Bearer ${number}-${"x".repeat(64)}`), 401);
    assertEquals(await status(`Bearer 4711-${"x".repeat(64)}`), 500);
    // No limit on logins applies here, and the user's name is not asked for.
    for (let time = 0; time < 5; time++) assertEquals(await status(`Bearer ${apiKey}`), 200);
    assertEquals(simulator.stats().logins, 5);
    assertEquals(simulator.stats().calls["system.version"], 5);
  });
});

Deno.test("REST is for full administrators only", async () => {
  const roles = ["DATASET_WRITE", "SHARING_ISCSI_WRITE", "READONLY_ADMIN"];
  await onRest({ release: "25.10", roles }, async (ask, simulator) => {
    const { status, body } = await ask("GET system/version");
    assertEquals([status, body, simulator.stats().calls], [403, "", {}]);
  });
});

Deno.test("26 has no REST: whatever is asked is not found, and is no JSON", async () => {
  await onRest({ release: "26" }, async (ask) => {
    for (const line of ["GET system/version", "POST pool/dataset", "GET nonsense"]) {
      const { status, type, body } = await ask(line);
      assertEquals([status, type, body], [404, "text/plain; charset=utf-8", "404: Not Found"]);
    }
  });
});

Deno.test("calls are counted under their method, connections once", async () => {
  await onRest({ release: "25.10" }, async (ask, simulator) => {
    await ask("POST pool/dataset", DISK);
    await ask("GET pool/dataset?id=tank");
    await ask("GET pool/dataset", { "query-filters": [], "query-options": {} });
    const { calls, connections, bytesIn, bytesOut } = simulator.stats();
    assertEquals(calls, { "pool.dataset.create": 1, "pool.dataset.query": 2 });
    assertEquals(connections, 1);
    assert(bytesIn > 0 && bytesOut > 0);
  });
});

Deno.test("faults are those of the methods", async () => {
  await onRest({ release: "25.10", idleMs: 300 }, async (ask, simulator) => {
    const method = "pool.dataset.create";
    const zvols = () => simulator.objects().zvols.length;
    const create = (name: string) =>
      ask("POST pool/dataset", { ...DISK, name: `tank/pve/${name}` });
    simulator.setFaults([{ method, do: "error", errno: 16, message: "busy" }]);
    assertEquals((await create("a")).body, { message: "busy", errno: 16 });
    assertEquals(zvols(), 0);
    for (const [act, done] of [["cut", 0], ["done-then-drop", 1]] as const) {
      simulator.setFaults([{ method, do: act }]);
      assertEquals(await create("b").then(() => "answered", () => "cut"), "cut");
      assertEquals(zvols(), done);
    }
    // Nobody answers; then the proxy in front does.
    simulator.setFaults([{ method, do: "drop-reply" }]);
    const { status, type, body } = await create("c");
    assertEquals([status, type, zvols()], [504, "text/html", 2]);
    assertMatch(body, /Gateway Time-out/);
    simulator.setFaults([{ method, do: "delay", ms: 20 }]);
    assertEquals((await create("d")).status, 200);
  });
});

Deno.test("a body of more than 1 MiB is refused", async () => {
  await onRest({ release: "25.10" }, async (ask) => {
    assertEquals((await ask("POST pool/dataset", { name: "x".repeat(1 << 20) })).status, 413);
  });
});

Deno.test("cut connections are cut", async () => {
  await onRest({ release: "25.10" }, async (ask, simulator) => {
    simulator.setFaults([{ method: "pool.dataset.create", do: "drop-reply" }]);
    const pending = ask("POST pool/dataset", DISK).then(() => "answered", () => "cut");
    while (simulator.objects().zvols.length === 0) await new Promise((go) => setImmediate(go));
    simulator.cutConnections();
    assertEquals(await pending, "cut");
  });
});
