import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { ArrayError } from "../../src/truenas/errors.ts";
import { Rpc, type RpcOptions } from "../../src/truenas/rpc.ts";
import type { Socket, SocketEvents } from "../../src/truenas/socket.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** The other end of an Rpc, without a network. */
class FakeSocket implements Socket {
  readonly sent: { id: number; method: string; params: unknown[] }[] = [];
  pings = 0;
  closes = 0;
  terminated = false;
  #events: SocketEvents | undefined;

  listen(events: SocketEvents): void {
    this.#events = events;
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  ping(): void {
    this.pings++;
  }
  close(): void {
    this.closes++;
  }
  terminate(): void {
    this.terminated = true;
  }
  text(text: string): void {
    this.#events?.onText(text);
  }
  pong(): void {
    this.#events?.onPong();
  }
  garbage(): void {
    this.#events?.onGarbage("a binary frame");
  }
  closed(): void {
    this.#events?.onClosed(
      new ArrayError("unreachable", "Cannot go on: cut", { outcome: "unknown" }),
    );
  }
  result(method: string, result: unknown): void {
    const request = this.sent.find((request) => request.method === method);
    this.text(JSON.stringify({ jsonrpc: "2.0", id: request?.id, result }));
  }
}

function start(options: Partial<RpcOptions> = {}) {
  const clock = new FakeClock();
  const socket = new FakeSocket();
  const rpc = new Rpc(socket, { clock, ...options });
  rpc.setAuthenticated();
  return { clock, socket, rpc };
}

async function failure(promise: Promise<unknown>): Promise<ArrayError> {
  const error = await assertRejects(() => promise);
  assertInstanceOf(error, ArrayError);
  return error;
}

const methods = (socket: FakeSocket) => socket.sent.map((request) => request.method);

Deno.test("answers reach their calls in whatever order they come", async () => {
  const { socket, rpc } = start();
  const calls = ["a", "b", "c"].map((method) => rpc.call(method, []));
  for (const method of ["c", "a", "b"]) socket.result(method, method.toUpperCase());
  assertEquals(await Promise.all(calls), ["A", "B", "C"]);
});

Deno.test("a request is JSON-RPC 2.0 with positional parameters", async () => {
  const { socket, rpc } = start();
  const call = rpc.call("pool.query", [[], { limit: 1 }]);
  assertEquals<unknown>(socket.sent[0], {
    jsonrpc: "2.0",
    id: 1,
    method: "pool.query",
    params: [[], { limit: 1 }],
  });
  socket.result("pool.query", null);
  assertEquals(await call, null);
});

Deno.test("at most eight calls are with the array, the others wait in their order", async () => {
  const { socket, rpc } = start();
  const calls = Array.from({ length: 20 }, (_, index) => rpc.call(`m${index}`, []));
  assertEquals(methods(socket), Array.from({ length: 8 }, (_, index) => `m${index}`));
  for (let index = 0; index < 20; index++) socket.result(`m${index}`, index);
  assertEquals(await Promise.all(calls), Array.from({ length: 20 }, (_, index) => index));
});

Deno.test("a read never waits behind queued writes, and six writes at most run at once", async () => {
  const { socket, rpc } = start();
  const writes = Array.from(
    { length: 8 },
    (_, index) => rpc.call(`write${index}`, [], { lane: "write" }),
  );
  assertEquals(socket.sent.length, 6);
  const read = rpc.call("read", []);
  assertEquals(methods(socket).at(-1), "read");
  for (let index = 0; index < 8; index++) socket.result(`write${index}`, true);
  socket.result("read", 1);
  assertEquals(await read, 1);
  assertEquals((await Promise.all(writes)).length, 8);
});

Deno.test("the 257th waiting call is refused as busy, and was not sent", async () => {
  const { socket, rpc } = start();
  const calls = Array.from({ length: 8 + 256 }, () => rpc.call("slow", []));
  const error = await failure(rpc.call("one.more", []));
  assertEquals([error.code, error.outcome], ["busy", "not-sent"]);
  socket.closed();
  await Promise.allSettled(calls);
});

Deno.test("a deadline that passes in the queue takes the call back", async () => {
  const { socket, rpc, clock } = start({ maxInFlight: 1 });
  const first = rpc.call("first", []);
  const second = failure(rpc.call("second", [], { deadlineMs: 1000 }));
  await clock.pass(1000);
  const error = await second;
  assertEquals([error.code, error.outcome], ["timeout", "not-sent"]);
  socket.result("first", 1);
  await first;
  assertEquals(methods(socket), ["first"]);
});

Deno.test("a call that times out after being sent keeps its place until it is answered", async () => {
  const { socket, rpc, clock } = start({ maxInFlight: 1 });
  const first = failure(rpc.call("first", [], { deadlineMs: 1000, doing: "Cannot do it" }));
  const second = rpc.call("second", []);
  await clock.pass(1000);
  const error = await first;
  assertEquals([error.code, error.outcome], ["timeout", "unknown"]);
  assertEquals(error.message, "Cannot do it: no answer within 1000 ms");
  assertEquals(methods(socket), ["first"]);
  socket.result("first", "too late");
  assertEquals(methods(socket), ["first", "second"]);
  socket.result("second", 2);
  assertEquals(await second, 2);
});

Deno.test("a caller may give up: before sending, in the queue, and after sending", async () => {
  const { socket, rpc } = start({ maxInFlight: 1 });
  const before = await failure(rpc.call("before", [], { signal: AbortSignal.abort() }));
  const sent = new AbortController();
  const queued = new AbortController();
  const first = failure(rpc.call("first", [], { signal: sent.signal }));
  const second = failure(rpc.call("second", [], { signal: queued.signal }));
  queued.abort();
  sent.abort();
  assertEquals([before.outcome, (await second).outcome, (await first).outcome], [
    "not-sent",
    "not-sent",
    "unknown",
  ]);
  assertEquals(methods(socket), ["first"]);
});

Deno.test("an error answer says that the call was answered", async () => {
  const { socket, rpc } = start();
  const call = failure(rpc.call("no.such", []));
  socket.text(`{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method does not exist"}}`);
  const error = await call;
  assertEquals([error.code, error.outcome, error.method], ["unsupported", "answered", "no.such"]);
});

Deno.test("requests over the array's limits are refused here", async () => {
  const clock = new FakeClock();
  const rpc = new Rpc(new FakeSocket(), { clock });
  const anonymous = await failure(rpc.call("m", ["x".repeat(8200)]));
  rpc.setAuthenticated();
  const sent = failure(rpc.call("m", ["x".repeat(8200)]));
  const long = await failure(rpc.call("m", ["x".repeat(65_536)]));
  assertEquals([anonymous.code, anonymous.outcome], ["invalid", "not-sent"]);
  assertEquals([long.code, long.outcome], ["invalid", "not-sent"]);
  assertStringIncludes(long.message, "65536");
  rpc.close();
  assertEquals((await sent).outcome, "unknown");
});

Deno.test("an answer to an unknown id is passed over", async () => {
  const { socket, rpc } = start();
  const call = rpc.call("m", []);
  socket.text(`{"jsonrpc":"2.0","id":4711,"result":1}`);
  socket.result("m", 2);
  assertEquals(await call, 2);
  assert(rpc.isOpen);
});

for (
  const [what, send] of [
    ["text that is no JSON", (socket: FakeSocket) => socket.text(`{"jsonrpc":`)],
    ["JSON that is no message", (socket: FakeSocket) => socket.text(`[1]`)],
    [
      "an error without an id",
      (socket: FakeSocket) =>
        socket.text(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}`),
    ],
    ["a binary frame", (socket: FakeSocket) => socket.garbage()],
  ] as const
) {
  Deno.test(`${what} ends the connection instead of leaving calls to wait`, async () => {
    const { socket, rpc, clock } = start({ maxInFlight: 1 });
    const sent = failure(rpc.call("sent", []));
    const queued = failure(rpc.call("queued", []));
    send(socket);
    assertEquals([(await sent).outcome, (await queued).outcome], ["unknown", "not-sent"]);
    assertEquals((await sent).code, "array-fault");
    assert(socket.terminated);
    await Promise.resolve();
    assertEquals(clock.pending, 0);
  });
}

Deno.test("when the connection ends, sent calls are unknown, waiting and later ones not sent", async () => {
  const { socket, rpc, clock } = start({ maxInFlight: 1 });
  const sent = failure(rpc.call("sent", []));
  const queued = failure(rpc.call("queued", []));
  socket.closed();
  const later = await failure(rpc.call("later", []));
  assertEquals([(await sent).outcome, (await queued).outcome, later.outcome], [
    "unknown",
    "not-sent",
    "not-sent",
  ]);
  assertEquals((await rpc.closed).code, "unreachable");
  assertEquals(clock.pending, 0);
});

Deno.test("closing says goodbye, ends all calls and leaves no timer", async () => {
  const { socket, rpc, clock } = start();
  const call = failure(rpc.call("m", []));
  rpc.close();
  assertEquals((await call).outcome, "unknown");
  assertEquals([socket.closes, clock.pending, rpc.isOpen], [1, 0, false]);
});

Deno.test("an answered call leaves no timer but that of the ping", async () => {
  const { socket, rpc, clock } = start();
  const call = rpc.call("m", [], { signal: new AbortController().signal });
  socket.result("m", 1);
  await call;
  await Promise.resolve();
  assertEquals(clock.pending, 1);
});

Deno.test("the connection is pinged every 25 s as long as pongs come", async () => {
  const { socket, rpc, clock } = start();
  for (let round = 1; round <= 4; round++) {
    await clock.pass(25_000);
    assertEquals(socket.pings, round);
    socket.pong();
  }
  assert(rpc.isOpen);
});

Deno.test("a connection that stays silent after a ping is given up", async () => {
  const { socket, rpc, clock } = start();
  const call = failure(rpc.call("m", [], { deadlineMs: 600_000 }));
  await clock.pass(50_000);
  const error = await call;
  assertEquals([error.code, error.outcome], ["unreachable", "unknown"]);
  assertStringIncludes(error.message, "silent");
  assert(socket.terminated);
});

Deno.test("a connection on which the answer to a read was lost is given up, but not under a write", async () => {
  const { rpc, socket, clock } = start();
  const read = rpc.call("a.query", [], { deadlineMs: 1_000 });
  const write = rpc.call("b.create", [], { lane: "write", deadlineMs: 600_000 });
  const pass = async (times: number) => {
    for (let tick = 0; tick < times; tick++) {
      await clock.pass(25_000);
      socket.pong();
    }
  };
  await clock.pass(1_000);
  await assertRejects(() => read, "no answer");
  await pass(4);
  assert(rpc.isOpen);
  socket.result("b.create", 1);
  await write;
  await pass(1);
  assertEquals([rpc.isOpen, socket.terminated], [false, true]);
});

Deno.test("the array's last word is whatever came from it, and nothing that we sent", async () => {
  const { socket, rpc, clock } = start();
  assertEquals(rpc.heardMs, 0);
  await clock.pass(25_000);
  assertEquals([socket.pings, rpc.heardMs], [1, 0]);
  socket.pong();
  assertEquals(rpc.heardMs, 25_000);
  await clock.pass(10_000);
  socket.text(`{"jsonrpc":"2.0","method":"collection_update","params":{}}`);
  assertEquals(rpc.heardMs, 35_000);
  rpc.close();
  await clock.pass(10_000);
  assertEquals(rpc.heardMs, 35_000);
});

Deno.test("notifications reach their listeners until these stop", () => {
  const { socket, rpc } = start();
  const heard: unknown[] = [];
  const stop = rpc.onNotification((method, params) => heard.push([method, params]));
  const event = `{"jsonrpc":"2.0","method":"collection_update","params":{"id":1}}`;
  socket.text(event);
  stop();
  socket.text(event);
  assertEquals(heard, [["collection_update", { id: 1 }]]);
});

Deno.test("a listener that fails ends the connection, not the process", async () => {
  const { socket, rpc } = start();
  rpc.onNotification(() => {
    throw new Error("a defect");
  });
  socket.text(`{"jsonrpc":"2.0","method":"collection_update","params":{}}`);
  assertEquals((await rpc.closed).code, "internal");
  assert(socket.terminated);
});

const FORGOTTEN = new ArrayError("auth", "Cannot call: Not authenticated", { outcome: "answered" });

Deno.test("a retired connection takes no calls, and ends when what was sent has been answered", async () => {
  const { clock, socket, rpc } = start({ maxInFlight: 2 });
  const [a, b] = [rpc.call("a", []), rpc.call("b", [], { lane: "write" })];
  const waiting = failure(rpc.call("c", []));
  rpc.retire(FORGOTTEN);
  assertEquals([rpc.isOpen, socket.closes], [false, 0]);
  const [refused, late] = [await waiting, await failure(rpc.call("d", []))];
  assertEquals([refused.code, refused.outcome], ["auth", "not-sent"]);
  assertEquals([late.code, late.outcome], ["auth", "not-sent"]);
  socket.result("b", "B");
  assertEquals([await b, socket.closes], ["B", 0]);
  socket.result("a", "A");
  assertEquals([await a, socket.closes, await rpc.closed], ["A", 1, FORGOTTEN]);
  assertEquals(clock.pending, 0);
});

Deno.test("a retired connection with nothing under way ends at once, one that is never answered in the end", async () => {
  const idle = start();
  idle.rpc.retire(FORGOTTEN);
  assertEquals([idle.socket.closes, idle.clock.pending], [1, 0]);
  const stuck = start({ pingEveryMs: 1_000_000 });
  const call = failure(stuck.rpc.call("a", [], { deadlineMs: 1_000_000 }));
  stuck.rpc.retire(FORGOTTEN);
  await stuck.clock.pass(300_000);
  assertEquals([(await call).outcome, stuck.socket.closes], ["unknown", 1]);
});
