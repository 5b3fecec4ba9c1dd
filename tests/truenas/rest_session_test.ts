/** The REST client against servers that are not well-behaved. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ArrayError } from "../../src/truenas/errors.ts";
import { bulkByHand } from "../../src/truenas/rest_jobs.ts";
import { openRestSession } from "../../src/truenas/rest_session.ts";
import {
  ANSWERS,
  at,
  failure,
  HEAD,
  KEY,
  MEGABYTE,
  onWrite,
  PING,
  withServer,
  WRITE,
} from "../support/rest_cases.ts";
import { type RestScript, startRestServer } from "../support/rest_server.ts";
import { testCertificate } from "../support/scripted_array.ts";

// Trust and login

Deno.test("a session opens with one request, and the key is in its header only", async () => {
  await withServer({}, async (session, server) => {
    await session.call(...WRITE);
    assertEquals(session.release.text, "25.10.6");
    assertEquals(server.requests.map(({ line }) => line), [
      "GET /api/v2.0/system/version",
      "POST /api/v2.0/pool/dataset",
    ]);
    for (const { authorization, line, body } of server.requests) {
      assertEquals(authorization, `Bearer ${KEY}`);
      assert(!line.includes(KEY) && !body.includes(KEY));
    }
  });
});

Deno.test("a server with another certificate than the pinned one is told nothing", async () => {
  await using server = await startRestServer();
  const other = await testCertificate("issued");
  const error = await failure(openRestSession(
    at(server, { trust: { kind: "fingerprint", sha256: other.fingerprint } }),
  ));
  assertEquals([error.code, error.outcome, server.requests.length], ["tls", "not-sent", 0]);
  assertStringIncludes(error.hint ?? "", server.fingerprint);
});

Deno.test("a certificate that nobody vouches for is not trusted, one of the given authority is", async () => {
  const certificate = await testCertificate("issued");
  await using server = await startRestServer({ certificate });
  const error = await failure(openRestSession(at(server, { trust: { kind: "verified" } })));
  assertEquals([error.code, server.requests.length], ["tls", 0]);
  const session = await openRestSession(at(server, { trust: { kind: "ca", pem: certificate.ca } }));
  session.close();
});

Deno.test("a server that does not speak TLS is told nothing", async () => {
  await using server = await startRestServer({ plain: true });
  const error = await failure(openRestSession(at(server)));
  assertEquals([error.code, server.requests.length], ["tls", 0]);
});

Deno.test("nobody there is unreachable, and the second address is tried", async () => {
  const gone = await startRestServer();
  await gone[Symbol.asyncDispose]();
  const error = await failure(openRestSession(at(gone)));
  assertEquals([error.code, error.outcome], ["unreachable", "not-sent"]);
  await using server = await startRestServer();
  const session = await openRestSession(
    at(server, { addresses: [gone.address, server.address] }),
  );
  assertEquals(session.address, server.address);
  session.close();
});

Deno.test("a key that could end the header's line is refused", async () => {
  await using server = await startRestServer();
  const error = await failure(openRestSession(at(server, { apiKey: "1-a\r\nX: y" })));
  assertEquals([error.code, server.connections], ["config", 0]);
});

const FIRST_ANSWERS: readonly (readonly [string, RestScript["onRequest"], string, RegExp])[] = [
  ["401", (_, reply) => reply.text(401, "text/plain", "Invalid API key"), "auth", /wrong/],
  // The number of the key is unknown: an exception of the real server.
  [
    "500 as text",
    (_, reply) => reply.text(500, "text/plain", "trouble"),
    "auth",
    /look the API key/,
  ],
  ["403", (_, reply) => reply.text(403, "text/plain", ""), "denied", /may not use the REST API/],
  ["404", (_, reply) => reply.text(404, "text/plain", "Not Found"), "unsupported", /release 26/],
  ["a web page", (_, reply) => reply.text(200, "text/html", "<html>"), "unsupported", /no JSON/],
  [
    "a redirect",
    (_, reply) => reply.text(302, "text/html", "", { location: "https://evil.example/" }),
    "config",
    /another address/,
  ],
  ["502", (_, reply) => reply.text(502, "text/html", ""), "unreachable", /not up/],
  ["504", (_, reply) => reply.text(504, "text/html", ""), "timeout", /gave up/],
  [
    "half a JSON",
    (_, reply) => reply.text(200, "application/json", '"25.1'),
    "unsupported",
    /JSON/,
  ],
  ["a number", (_, reply) => reply.json(25), "array-fault", /expected/],
  ["24.10", (_, reply) => reply.json("TrueNAS-SCALE-24.10.2"), "unsupported", /25.04 or newer/],
  ["26", (_, reply) => reply.json("26.0.0"), "unsupported", /removed it in release 26/],
];

for (const [what, onRequest, code, words] of FIRST_ANSWERS) {
  Deno.test(`a login that is answered with ${what} fails with ${code}`, async () => {
    await using server = await startRestServer({
      onRequest: (request, reply) => (onRequest?.(request, reply), true),
    });
    const error = await failure(openRestSession(at(server)));
    assertEquals(error.code, code);
    assertMatch(error.message, words);
    assertEquals(server.requests.length, 1);
    await server.idle();
  });
}

Deno.test("a key that the server repeats is in no error", async () => {
  const onRequest: RestScript["onRequest"] = ({ line }, reply) => {
    if (line.endsWith("version")) return false;
    reply.json({ [`field.${KEY}`]: [{ message: `bad ${KEY}`, errno: 22 }] }, 422);
    return true;
  };
  await withServer({ onRequest }, async (session) => {
    const error = await failure(session.call(...WRITE));
    const all = JSON.stringify([error.message, error.reason, error.field, error.findings]);
    assert(!all.includes(KEY), all);
    assertStringIncludes(all, "********");
  });
});

// Hostile and broken answers to a call

for (const [what, script, code, outcome] of ANSWERS) {
  Deno.test(`a write that is answered with ${what} is not repeated, and ${outcome}`, async () => {
    await withServer(script, async (session, server) => {
      const error = await failure(session.call(...WRITE, { lane: "write" }));
      assertEquals([error.code, error.outcome], [code, outcome], error.message);
      assertEquals(server.requests.filter(({ line }) => line.startsWith("POST")).length, 1);
      // The session goes on, on another connection where need be.
      assertEquals(await session.call("system.version", []), "25.10.6");
    });
  });
}

Deno.test("10 MB of JSON are an answer", async () => {
  const rows = onWrite((_, reply) => reply.json(Array.from({ length: 10 }, () => MEGABYTE)));
  await withServer(rows, async (session) => {
    assertEquals((await session.call(...PING) as string[]).length, 10);
  });
});

Deno.test("an answer from a server that dropped the body of a GET is not believed", async () => {
  const everything = [{ id: "tank/other", name: "tank/other", origin: { value: "" } }];
  const onRequest: RestScript["onRequest"] = ({ line }, reply) => {
    if (line.endsWith("version")) return false;
    reply.json(everything);
    return true;
  };
  await withServer({ onRequest }, async (session) => {
    for (
      const [filters, options] of [
        [[["id", "=", "tank/mine"]], {}],
        [[["id", "in", ["tank/mine"]]], {}],
        [[["id", "^", "tank/pve/"]], {}],
        [[["origin.value", "=", "x"]], {}],
        [[["OR", [["id", "=", "a"], ["id", "^", "b"]]]], {}],
        [[["dataset", "=", "tank/mine"]], { select: ["name"] }],
      ]
    ) {
      const error = await failure(session.call("pool.dataset.query", [filters, options]));
      assertEquals(error.code, "array-fault", JSON.stringify(filters));
      assertStringIncludes(error.hint ?? "", "proxy");
    }
    const [row] = await session.call("pool.dataset.query", [
      [["OR", [["id", "=", "tank/other"], ["id", "^", "b"]]], ["unseen", "=", 1]],
      { select: ["id", "name", "origin.value"] },
    ]) as unknown[];
    assertEquals(row, everything[0]);
  });
});

Deno.test("a session ends when the key is refused", async () => {
  let refused = false;
  const onRequest: RestScript["onRequest"] = (_, reply) => {
    if (refused) reply.text(401, "text/plain", "");
    return refused;
  };
  await withServer({ onRequest }, async (session) => {
    refused = true;
    assertEquals((await failure(session.call(...PING))).code, "auth");
    assertEquals(session.isOpen, false);
    assertEquals((await session.closed).code, "auth");
    const next = await failure(session.call(...PING));
    assertEquals([next.code, next.outcome], ["auth", "not-sent"]);
  });
});

Deno.test("a session ends when nobody is there any more", async () => {
  const server = await startRestServer();
  const session = await openRestSession(at(server));
  await server[Symbol.asyncDispose]();
  // The idle connection may only just be hearing of it.
  const first = await failure(session.call(...PING));
  assertEquals(first.code, "unreachable");
  if (first.outcome === "unknown") await failure(session.call(...PING));
  assertEquals(session.isOpen, false);
});

// Connections

Deno.test("calls one after another share one connection", async () => {
  await withServer({}, async (session, server) => {
    for (let index = 0; index < 5; index++) await session.call(...PING);
    assertEquals(server.connections, 1);
  });
});

Deno.test("an idle connection that the server has closed is not used again", async () => {
  await withServer({}, async (session, server) => {
    server.cutAll();
    // The client may be told only after it has begun to send: then it says so.
    await session.call(...PING).catch((error) => assertEquals(error.code, "unreachable"));
    await session.call(...PING);
    assertEquals(server.connections, 2);
  });
});

Deno.test("what a server says unasked ends the connection, and is no answer to the next request", async () => {
  await withServer({}, async (session, server) => {
    server.say(`${HEAD}Content-Length: 6\r\n\r\n"evil"`);
    await server.idle();
    assertEquals(await session.call("system.version", []), "25.10.6");
    assertEquals(server.connections, 2);
  });
});

// Places and deadlines

/** A server that answers when told. */
function holding(): {
  script: RestScript;
  held: (() => void)[];
  arrived(n: number): Promise<void>;
} {
  const held: (() => void)[] = [];
  let wake = () => {};
  return {
    held,
    script: {
      onRequest: ({ line }, reply) => {
        if (line.endsWith("version")) return false;
        held.push(() => reply.json(line));
        wake();
        return true;
      },
    },
    arrived: async (n) => {
      while (held.length < n) await new Promise<void>((resolve) => wake = resolve);
    },
  };
}

Deno.test("at most eight calls run at once, six of them writes, and reads go first", async () => {
  const { script, held, arrived } = holding();
  await withServer(script, async (session, server) => {
    const calls = [
      ...Array.from({ length: 10 }, () => session.call(...WRITE, { lane: "write" })),
      ...Array.from({ length: 4 }, () => session.call(...PING)),
    ];
    await arrived(8);
    const verbs = () => server.requests.slice(1).map(({ line }) => line.includes("dataset"));
    assertEquals(verbs().filter((isWrite) => isWrite).length, 6);
    held[0]?.();
    await arrived(9);
    assertEquals(verbs().slice(8), [false]);
    for (let index = 1; index < 14; index++) {
      await arrived(index + 1);
      held[index]?.();
    }
    await Promise.all(calls);
    assert(server.connections <= 8);
  });
});

Deno.test("a call that waits for a place past its deadline is not sent", async () => {
  const { script, held, arrived } = holding();
  await withServer(script, async (session, server) => {
    const busy = Array.from({ length: 8 }, () => session.call(...PING));
    await arrived(8);
    const error = await failure(session.call(...PING, { deadlineMs: 20 }));
    assertEquals([error.code, error.outcome], ["timeout", "not-sent"]);
    held.forEach((answer) => answer());
    await Promise.all(busy);
    assertEquals(server.requests.length, 9);
  });
});

Deno.test("a call that was sent has an unknown outcome when its deadline passes, and keeps its place", async () => {
  const { script, held, arrived } = holding();
  await withServer(script, async (session) => {
    const late = failure(session.call(...WRITE, { lane: "write", deadlineMs: 100 }));
    await arrived(1);
    const error = await late;
    assertEquals([error.code, error.outcome], ["timeout", "unknown"]);
    const others = Array.from({ length: 6 }, () => session.call(...WRITE, { lane: "write" }));
    await arrived(6);
    assertEquals(held.length, 6);
    held[0]?.();
    await arrived(7);
    for (const answer of held.slice(1)) answer();
    await Promise.all(others);
  });
});

Deno.test("a signal ends the wait, and the session goes on", async () => {
  const { script, held, arrived } = holding();
  await withServer(script, async (session) => {
    const controller = new AbortController();
    const given = failure(session.call(...WRITE, { lane: "write", signal: controller.signal }));
    await arrived(1);
    controller.abort();
    const error = await given;
    assertEquals([error.code, error.outcome], ["timeout", "unknown"]);
    held[0]?.();
    assertEquals(await session.call("system.version", []), "25.10.6");
    const before = await failure(session.call(...PING, { signal: controller.signal }));
    assertEquals(before.outcome, "not-sent");
  });
});

Deno.test("a call whose caller goes while it connects is not sent", async () => {
  const { script, held, arrived } = holding();
  await withServer(script, async (session, server) => {
    const first = session.call(...PING);
    await arrived(1);
    const controller = new AbortController();
    const second = failure(session.call(...WRITE, { lane: "write", signal: controller.signal }));
    controller.abort();
    assertEquals((await second).outcome, "not-sent");
    held[0]?.();
    await first;
    // Both connections are there by now, whichever of them is taken.
    const others = [session.call(...PING), session.call(...PING)];
    await arrived(3);
    for (const answer of held.slice(1)) answer();
    await Promise.all(others);
    assertEquals(server.requests.filter(({ line }) => line.includes("dataset")), []);
  });
});

Deno.test("closing ends what is under way, and no connection is left", async () => {
  const { script, arrived } = holding();
  await using server = await startRestServer(script);
  const session = await openRestSession(at(server));
  const calls = Array.from({ length: 9 }, () => failure(session.call(...PING)));
  await arrived(8);
  session.close();
  const outcomes = (await Promise.all(calls)).map(({ outcome }) => outcome);
  assertEquals(outcomes.filter((outcome) => outcome === "unknown").length, 8);
  assertEquals(outcomes.at(-1), "not-sent");
  await server.idle();
});

Deno.test("a request that is longer than TrueNAS takes is not sent", async () => {
  await withServer({}, async (session, server) => {
    const error = await failure(session.call("pool.dataset.create", [{ name: MEGABYTE }]));
    assertEquals([error.code, error.outcome, server.requests.length], ["invalid", "not-sent", 1]);
  });
});

// Jobs that a well-behaved array does not have

function jobServer(rows: unknown[]): RestScript {
  return {
    onRequest: ({ line }, reply) => {
      if (line.startsWith("POST")) reply.json(7);
      else if (line.includes("get_jobs")) reply.json(rows.length > 1 ? [rows.shift()] : rows);
      else return false;
      return true;
    },
  };
}

const JOB = ["service.control", ["START", "iscsitarget", {}]] as const;

Deno.test("a job is asked for until it has ended", async () => {
  const row = (state: string) => ({ id: 7, state, result: state === "SUCCESS" ? "done" : null });
  const script = jobServer([row("WAITING"), row("RUNNING"), row("SUCCESS")]);
  await withServer(script, async (session, server) => {
    assertEquals(await session.callJob(...JOB), "done");
    assertEquals(server.requests.filter(({ line }) => line.includes("get_jobs")).length, 3);
  });
});

Deno.test("a job that does not end in time has an unknown outcome", async () => {
  await withServer(jobServer([{ id: 7, state: "RUNNING" }]), async (session) => {
    const error = await failure(session.callJob(...JOB, { deadlineMs: 400 }));
    assertEquals([error.code, error.outcome], ["timeout", "unknown"]);
  });
});

Deno.test("a job that the array has forgotten has an unknown outcome", async () => {
  await withServer(jobServer([]), async (session) => {
    const error = await failure(session.callJob(...JOB));
    assertEquals([error.code, error.outcome], ["array-fault", "unknown"]);
  });
});

Deno.test("many calls in one go on past a refusal, and have an unknown outcome when broken off", async () => {
  const refused = (outcome: "answered" | "not-sent") =>
    Promise.reject(new ArrayError("busy", "Cannot do it", { outcome, reason: "held" }));
  const answers = [
    () => Promise.resolve(true),
    () => refused("answered"),
    () => refused("not-sent"),
  ];
  const call = () => answers.shift()?.() ?? Promise.resolve(true);
  const ids = (count: number) => Array.from({ length: count }, (_, index) => [`a@${index}`, {}]);
  assertEquals(await bulkByHand(["pool.snapshot.delete", ids(2)], call), [
    { result: true, error: null },
    { result: null, error: "held" },
  ]);
  // Nothing was done yet.
  assertEquals((await failure(bulkByHand(["x", ids(2)], call))).outcome, "not-sent");
  answers.push(() => Promise.resolve(true), () => refused("not-sent"));
  assertEquals((await failure(bulkByHand(["x", ids(3)], call))).outcome, "unknown");
});

Deno.test("many calls in one, broken off half-way, have an unknown outcome", async () => {
  let deletions = 0;
  const onRequest: RestScript["onRequest"] = ({ line }, reply) => {
    if (!line.startsWith("DELETE")) return false;
    if (++deletions === 2) reply.cut();
    else reply.json(true);
    return true;
  };
  await withServer({ onRequest }, async (session) => {
    const lists = ["a@1", "a@2", "a@3"].map((id) => [id, {}]);
    const error = await failure(session.callJob("core.bulk", ["pool.snapshot.delete", lists]));
    assertEquals([error.code, error.outcome, deletions], ["unreachable", "unknown", 2]);
  });
});
