import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { connectTrueNas } from "../../src/truenas/array.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { type ArrayEvent, openSession, type SessionOptions } from "../../src/truenas/session.ts";
import {
  answerLogin,
  type Script,
  type ScriptedArray,
  type ScriptedConnection,
  type ScriptedRequest,
  startScriptedArray,
  testCertificate,
} from "../support/scripted_array.ts";

const KEY = "7-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ01";

function options(array: ScriptedArray, more: Partial<SessionOptions> = {}): SessionOptions {
  return {
    addresses: [array.address],
    user: "tnblock",
    apiKey: KEY,
    trust: { kind: "fingerprint", sha256: array.fingerprint },
    clock: systemClock,
    ...more,
  };
}

/** Runs a test against a scripted array, and sees to it that the client leaves nothing open. */
async function withArray(
  script: Script,
  run: (array: ScriptedArray) => Promise<void>,
): Promise<void> {
  const array = await startScriptedArray(script);
  try {
    await run(array);
    await array.idle();
  } finally {
    await array.stop();
  }
}

/** Answers the login with this instead of SUCCESS. */
function loginAnswers(answer: unknown): Script {
  return {
    onRequest: (request, connection) => {
      if (request.method === "auth.login_ex") connection.result(request.id, answer);
      else answerLogin(request, connection);
    },
  };
}

async function loginError(script: Script, more: Partial<SessionOptions> = {}): Promise<ArrayError> {
  let failure: ArrayError | undefined;
  await withArray(script, async (array) => {
    const error = await assertRejects(() => openSession(options(array, more)));
    assertInstanceOf(error, ArrayError);
    failure = error;
  });
  assert(failure !== undefined);
  assertHoldsNoKey(failure);
  return failure;
}

/** Nothing that could be printed or logged holds the key or its secret part. */
function assertHoldsNoKey(value: unknown): void {
  const parts: string[] = [];
  const seen = new Set<unknown>();
  const walk = (inner: unknown) => {
    if (typeof inner === "string") parts.push(inner);
    if (typeof inner !== "object" || inner === null || seen.has(inner)) return;
    seen.add(inner);
    for (const key of Object.getOwnPropertyNames(inner)) {
      walk((inner as Record<string, unknown>)[key]);
    }
  };
  walk(value);
  parts.push(String(value), Deno.inspect(value, { depth: 20 }), JSON.stringify(value) ?? "");
  for (const part of parts) assert(!part.includes(KEY.slice(2)), "the key is in the value");
}

const methods = (connection: ScriptedConnection | undefined) =>
  connection?.requests.map((request) => request.method);

Deno.test("a session is one connection, one login and the release", async () => {
  await withArray({ onRequest: answerLogin2510 }, async (array) => {
    const session = await openSession(options(array, { dialect: "v25.10.0" }));
    assertEquals(array.upgrades, ["/api/v25.10.0"]);
    assertEquals(session.release.text, "25.10.6");
    assertEquals(session.address, array.address);
    const requests = array.connections[0]?.requests ?? [];
    assertEquals(requests.map((request) => request.method).toSorted(), [
      "auth.login_ex",
      "core.set_options",
      "system.version",
    ]);
    const login = requests.find((request) => request.method === "auth.login_ex");
    assertEquals<unknown>(login?.params, [{
      mechanism: "API_KEY_PLAIN",
      username: "tnblock",
      api_key: KEY,
      login_options: { user_info: false },
    }]);
    assertHoldsNoKey(session);
    session.close();
  });
});

function answerLogin2510(request: ScriptedRequest, connection: ScriptedConnection): void {
  answerLogin(request, connection);
}

Deno.test("the newest dialect that the server knows is taken", async () => {
  const table = [
    [["/api/v26.0.0", "/api/v25.10.0", "/api/current"], "26.0.0-BETA.3", "v26.0.0", 1],
    [["/api/v25.10.0", "/api/current"], "25.10.6", "v25.10.0", 2],
    [["/api/current"], "25.04.2.6", "current", 3],
  ] as const;
  for (const [paths, version, dialect, upgrades] of table) {
    await withArray({
      paths,
      onRequest: (request, connection) => answerLogin(request, connection, version),
    }, async (array) => {
      const session = await openSession(options(array));
      assertEquals([session.release.dialect, array.upgrades.length], [dialect, upgrades]);
      session.close();
    });
  }
});

Deno.test("a remembered dialect that is out of date is noticed, once", async () => {
  for (const dialect of ["v25.10.0", "current"] as const) {
    await withArray({
      onRequest: (request, connection) => answerLogin(request, connection, "26.0.0"),
    }, async (array) => {
      const session = await openSession(options(array, { dialect }));
      assertEquals(array.upgrades, [`/api/${dialect}`, "/api/v26.0.0"]);
      assert(session.release.can.zfsResourceWrites);
      session.close();
    });
  }
});

Deno.test("25.04 is not asked for job results in the answer, which it does not know", async () => {
  await withArray({
    paths: ["/api/current"],
    onRequest: (request, connection) => answerLogin(request, connection, "25.04.2.6"),
  }, async (array) => {
    const session = await openSession(options(array));
    assertEquals(methods(array.connections[0]), ["auth.login_ex", "system.version"]);
    session.close();
  });
});

Deno.test("a release before 25.04 is refused with its name", async () => {
  const error = await loginError({
    onRequest: (request, connection) => answerLogin(request, connection, "TrueNAS-SCALE-24.10.2.4"),
  });
  assertEquals(error.code, "unsupported");
  assertStringIncludes(error.message, "24.10.2.4");
});

Deno.test("what the login may answer is told apart, and is never tried again", async () => {
  const outcomes: string[][] = [];
  for (const type of ["AUTH_ERR", "EXPIRED", "DENIED", "OTP_REQUIRED", "SCRAM_RESPONSE"]) {
    let logins = 0;
    const error = await loginError({
      onRequest: (request, connection) => {
        if (request.method === "auth.login_ex") {
          logins++;
          connection.result(request.id, { response_type: type });
        } else answerLogin(request, connection);
      },
    });
    assertEquals(logins, 1);
    outcomes.push([type, error.code]);
  }
  assertEquals(outcomes, [
    ["AUTH_ERR", "auth"],
    ["EXPIRED", "auth"],
    ["DENIED", "denied"],
    ["OTP_REQUIRED", "unsupported"],
    ["SCRAM_RESPONSE", "unsupported"],
  ]);
});

Deno.test("a revoked key is told from a wrong one", async () => {
  const expired = await loginError(loginAnswers({ response_type: "EXPIRED" }));
  assertStringIncludes(expired.message, "expired or was revoked");
  const wrong = await loginError(loginAnswers({ response_type: "AUTH_ERR" }));
  assertStringIncludes(wrong.message, "is wrong");
});

Deno.test("too many logins are told as rate-limited, after one try", async () => {
  let logins = 0;
  const error = await loginError({
    onRequest: (request, connection) => {
      if (request.method !== "auth.login_ex") return;
      logins++;
      connection.error(request.id, {
        code: -32001,
        message: "Method call error",
        data: { error: 16, errname: "EBUSY", reason: "[EBUSY] Rate Limit Exceeded", extra: null },
      });
    },
  });
  assertEquals([error.code, logins], ["rate-limited", 1]);
});

Deno.test("the key is taken out of whatever the server repeats", async () => {
  const error = await loginError({
    onRequest: (request, connection) => {
      if (request.method !== "auth.login_ex") return void answerLogin(request, connection);
      connection.error(request.id, {
        code: -32602,
        message: "Invalid params",
        data: {
          error: 22,
          reason: `[EINVAL] login_data: ${KEY} is odd`,
          extra: [["login_data", `${KEY} is odd`, 22]],
        },
      });
    },
  });
  assertStringIncludes(error.message, "******** is odd");
});

Deno.test("without a user name, and where login_ex is missing, the older login is used", async () => {
  for (const user of [undefined, "tnblock"]) {
    await withArray({
      onRequest: (request, connection) => {
        if (request.method === "auth.login_with_api_key") {
          assertEquals<unknown>(request.params, [KEY]);
          connection.result(request.id, true);
        } else if (request.method === "auth.login_ex") {
          connection.error(request.id, { code: -32601, message: "Method does not exist" });
        } else answerLogin(request, connection);
      },
    }, async (array) => {
      const { user: _, ...rest } = options(array);
      const session = await openSession(user === undefined ? rest : { ...rest, user });
      session.close();
    });
  }
});

Deno.test("the older login's refusal is an auth error too", async () => {
  let failure: unknown;
  await withArray({
    onRequest: (request, connection) => connection.result(request.id, false),
  }, async (array) => {
    const { user: _, ...rest } = options(array);
    failure = await assertRejects(() => openSession(rest));
  });
  assertInstanceOf(failure, ArrayError);
  assertEquals(failure.code, "auth");
  assertHoldsNoKey(failure);
});

Deno.test("a redirect to the other controller is followed once", async () => {
  const active = await startScriptedArray({
    onRequest: (request, connection) => void answerLogin(request, connection),
  });
  try {
    const redirect = loginAnswers({
      response_type: "REDIRECT",
      urls: [`https://127.0.0.1:${active.port}`],
    });
    await withArray(redirect, async (array) => {
      const session = await openSession(options(array));
      assertEquals(session.address, active.address);
      session.close();
    });
    await active.idle();
  } finally {
    await active.stop();
  }
});

Deno.test("a redirect in circles ends, as unreachable", async () => {
  let port = 0;
  await withArray({
    onRequest: (request, connection) => {
      if (request.method !== "auth.login_ex") return void answerLogin(request, connection);
      const urls = [`https://127.0.0.1:${port}`];
      connection.result(request.id, { response_type: "REDIRECT", urls });
    },
  }, async (array) => {
    port = array.port;
    const error = await assertRejects(() => openSession(options(array)));
    assertInstanceOf(error, ArrayError);
    assertEquals([error.code, array.connections.length], ["unreachable", 2]);
  });
});

Deno.test("the second address is tried when the first cannot be reached", async () => {
  const gone = await startScriptedArray();
  await gone.stop();
  await withArray({ onRequest: answerLogin2510 }, async (array) => {
    const session = await openSession(
      options(array, { addresses: [gone.address, array.address] }),
    );
    assertEquals(session.address, array.address);
    session.close();
  });
});

Deno.test("when no address can be reached, each is named with its reason", async () => {
  const gone = await startScriptedArray();
  await gone.stop();
  const error = await assertRejects(() =>
    openSession(options(gone, { addresses: [gone.address, "nas.invalid"] }))
  );
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.outcome], ["unreachable", "not-sent"]);
  assertStringIncludes(error.message, `"${gone.address}": connection refused`);
  assertStringIncludes(error.message, `"nas.invalid:443": the host name is not known`);
});

Deno.test("a wrong key at the first address is not tried at the second", async () => {
  await withArray(loginAnswers({ response_type: "AUTH_ERR" }), async (array) => {
    await assertRejects(() =>
      openSession(options(array, { addresses: [array.address, array.address] }))
    );
    assertEquals(array.connections.length, 1);
  });
});

Deno.test("the login budget is drawn on before the key is sent, and may refuse", async () => {
  await withArray({ onRequest: answerLogin2510 }, async (array) => {
    const refusal = new TnblockError("rate-limited", "Cannot log in: the budget is used up");
    const error = await assertRejects(() =>
      openSession(options(array, { loginBudget: () => Promise.reject(refusal) }))
    );
    assertEquals(error, refusal);
    assertEquals(methods(array.connections[0]), []);
  });
});

Deno.test("addresses in clear and keys that cannot be keys are configuration errors", async () => {
  const base = { clock: systemClock, apiKey: KEY, addresses: ["nas.invalid"] };
  for (
    const wrong of [
      { ...base, addresses: ["ws://nas.invalid"] },
      { ...base, addresses: ["http://nas.invalid"] },
      { ...base, addresses: [] },
      { ...base, apiKey: "" },
      { ...base, apiKey: `${KEY}\n` },
    ]
  ) {
    const error = await assertRejects(() => openSession(wrong));
    assertInstanceOf(error, ArrayError);
    assertEquals(error.code, "config");
    assertHoldsNoKey(error);
  }
});

Deno.test("a self-signed certificate does not get the key without being pinned", async () => {
  const array = await startScriptedArray();
  const { trust: _, ...rest } = options(array);
  const error = await assertRejects(() => openSession(rest));
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, array.upgrades.length], ["tls", 0]);
  await array.idle();
  await array.stop();
});

Deno.test("a session over a certificate of the configured authority works", async () => {
  const certificate = await testCertificate("issued");
  await withArray({ certificate, onRequest: answerLogin2510 }, async (array) => {
    const session = await openSession(
      options(array, { trust: { kind: "ca", pem: certificate.ca } }),
    );
    session.close();
  });
});

Deno.test("close code 1008 instead of a login answer is denied", async () => {
  const error = await loginError({ onConnect: (connection) => connection.close(1008, "no") });
  assertEquals(error.code, "denied");
});

Deno.test("answers out of order over a real connection reach their calls", async () => {
  const held: ScriptedRequest[] = [];
  await withArray({
    onRequest: (request, connection) => {
      if (answerLogin(request, connection)) return;
      held.push(request);
      if (held.length < 8) return;
      for (const { id, method } of held.reverse()) connection.result(id, method);
    },
  }, async (array) => {
    const session = await openSession(options(array));
    const names = Array.from({ length: 8 }, (_, index) => `call${index}`);
    assertEquals(await Promise.all(names.map((name) => session.call(name, []))), names);
    session.close();
  });
});

/** Opens a session, makes one call, and gives the error that the array's behaviour causes. */
async function callError(behave: (connection: ScriptedConnection) => void): Promise<ArrayError> {
  let failure: unknown;
  await withArray({
    onRequest: (request, connection) => {
      if (!answerLogin(request, connection)) behave(connection);
    },
  }, async (array) => {
    const session = await openSession(options(array));
    failure = await assertRejects(() => session.call("pool.query", []));
    assertEquals((await session.closed).code, (failure as ArrayError).code);
    assert(!session.isOpen);
  });
  assertInstanceOf(failure, ArrayError);
  assertEquals(failure.outcome, "unknown");
  return failure;
}

Deno.test("a frame that announces more than 64 MiB ends the connection", async () => {
  // A text frame of 65 MiB: only its head is ever sent.
  const head = new Uint8Array([0x81, 0x7f, 0, 0, 0, 0, 0x04, 0x10, 0, 0]);
  const error = await callError((connection) => connection.raw(head));
  assertEquals(error.code, "array-fault");
});

Deno.test("half a frame and then the end of the connection is an unknown outcome", async () => {
  const error = await callError((connection) => {
    connection.raw(new Uint8Array([0x81, 0x10, 0x7b, 0x22]));
    connection.cut();
  });
  assertEquals(error.code, "unreachable");
});

Deno.test("bytes that are no frame end the connection", async () => {
  const error = await callError((connection) => connection.raw(new Uint8Array([0xff, 0xff, 0, 1])));
  assertEquals(error.outcome, "unknown");
});

Deno.test("a binary frame ends the connection", async () => {
  const error = await callError((connection) => connection.binary(new Uint8Array([1, 2])));
  assertEquals(error.code, "array-fault");
});

Deno.test("an orderly goodbye in the middle of a call is an unknown outcome", async () => {
  const error = await callError((connection) => connection.close(1001, "restart"));
  assertEquals(error.code, "unreachable");
  assertStringIncludes(error.message, "restart");
});

Deno.test("a server that does not answer pings is given up", async () => {
  await withArray({ pongs: false, onRequest: answerLogin2510 }, async (array) => {
    const session = await openSession(options(array, { pingEveryMs: 40 }));
    const error = await Promise.race([session.closed, systemClock.wait(5000)]);
    assertInstanceOf(error, ArrayError);
    assertStringIncludes(error.message, "silent");
  });
});

Deno.test("a server that answers pings is kept", async () => {
  await withArray({ onRequest: answerLogin2510 }, async (array) => {
    const session = await openSession(options(array, { pingEveryMs: 20 }));
    // Longer than two rounds without a pong would last.
    const first = await Promise.race([session.closed, systemClock.wait(150)]);
    assertEquals(first, undefined);
    session.close();
  });
});

Deno.test("an array that has forgotten the login ends the session", async () => {
  await withArray({
    onRequest: (request, connection) => {
      if (answerLogin(request, connection)) return;
      const data = { error: 207, reason: "[ENOTAUTHENTICATED] Not authenticated", extra: null };
      connection.error(request.id, { code: -32001, message: "Method call error", data });
    },
  }, async (array) => {
    const session = await openSession(options(array));
    const error = await assertRejects(() => session.call("pool.query", []));
    assertInstanceOf(error, ArrayError);
    assertEquals([error.code, error.outcome, session.isOpen], ["auth", "answered", false]);
  });
});

Deno.test("changes of a collection reach their listener, and only those", async () => {
  await withArray({
    onRequest: (request, connection) => {
      if (answerLogin(request, connection)) return;
      if (request.method === "core.subscribe") {
        // An event may overtake the answer.
        connection.notify({ msg: "added", collection: "pool.dataset.query", id: "tank/a" });
        connection.notify({ msg: "added", collection: "service.query", id: 1 });
        connection.result(request.id, "subscription-1");
      } else {
        connection.notify({ msg: "removed", collection: "pool.dataset.query", id: "tank/a" });
        connection.result(request.id, null);
      }
    },
  }, async (array) => {
    const session = await openSession(options(array));
    const heard: ArrayEvent[] = [];
    const stop = await session.subscribe("pool.dataset.query", (event) => heard.push(event));
    await session.call("pool.dataset.delete", ["tank/a"]);
    await stop();
    assertEquals(heard.map((event) => [event.kind, event.id]), [["added", "tank/a"], [
      "removed",
      "tank/a",
    ]]);
    assertEquals(methods(array.connections[0])?.at(-1), "core.unsubscribe");
    session.close();
  });
});

/** A 25.04 whose jobs end as told, before or after the answer with the job's number. */
function jobsOf2504(
  order: "before" | "after" | "never",
  fields: Readonly<Record<string, unknown>>,
): Script {
  return {
    paths: ["/api/current"],
    onRequest: (request, connection) => {
      if (answerLogin(request, connection, "25.04.2.6")) return;
      if (request.method === "core.subscribe") return connection.result(request.id, "s");
      const tell = (state: string) =>
        connection.notify({
          msg: "changed",
          collection: "core.get_jobs",
          id: 9,
          fields: { id: 9, ...fields, state },
        });
      tell("RUNNING");
      if (order === "before") tell(String(fields["state"]));
      connection.result(request.id, 9);
      if (order === "after") tell(String(fields["state"]));
    },
  };
}

Deno.test("on 25.04 a job's result comes by its event, before or after its number", async () => {
  for (const order of ["before", "after"] as const) {
    await withArray(jobsOf2504(order, { state: "SUCCESS", result: [1] }), async (array) => {
      const session = await openSession(options(array));
      assertEquals(await session.callJob("core.bulk", ["m", [[]]], { deadlineMs: 5000 }), [1]);
      assertEquals(await session.callJob("core.bulk", ["m", [[]]], { deadlineMs: 5000 }), [1]);
      const subscriptions = methods(array.connections[0])?.filter((m) => m === "core.subscribe");
      assertEquals(subscriptions?.length, 1);
      session.close();
    });
  }
});

Deno.test("on 25.04 a failed job is its error, and one that does not end is unknown", async () => {
  const failed = { state: "FAILED", error: "[EBUSY] it is busy", exc_info: { errno: 16 } };
  await withArray(jobsOf2504("after", failed), async (array) => {
    const session = await openSession(options(array));
    const error = await assertRejects(() => session.callJob("core.bulk", []));
    assertInstanceOf(error, ArrayError);
    assertEquals([error.code, error.outcome], ["busy", "answered"]);
    session.close();
  });
  await withArray(jobsOf2504("never", {}), async (array) => {
    const session = await openSession(options(array));
    const error = await assertRejects(() => session.callJob("core.bulk", [], { deadlineMs: 200 }));
    assertInstanceOf(error, ArrayError);
    assertEquals([error.code, error.outcome], ["timeout", "unknown"]);
    session.close();
  });
});

Deno.test("from 25.10 on a job's answer is its result", async () => {
  await withArray({
    onRequest: (request, connection) => {
      if (!answerLogin(request, connection)) connection.result(request.id, [{ error: null }]);
    },
  }, async (array) => {
    const session = await openSession(options(array));
    assertEquals(await session.callJob("core.bulk", ["m", [[]]]), [{ error: null }]);
    session.close();
  });
});

Deno.test("a connected TrueNAS offers its resources and holds no key", async () => {
  await withArray({
    onRequest: (request, connection) => {
      if (answerLogin(request, connection)) return;
      assertEquals(request.method, "service.started");
      connection.result(request.id, true);
    },
  }, async (array) => {
    const nas = await connectTrueNas(options(array));
    assertEquals(await nas.services.isRunning("nvmet"), true);
    assertHoldsNoKey(nas);
    nas.session.close();
  });
});
