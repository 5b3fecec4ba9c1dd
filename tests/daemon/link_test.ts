import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { LoginsUsedUp } from "../../src/pve/login_budget.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import type { Session } from "../../src/truenas/session.ts";
import { FakeArray, forgotten, turns } from "./support/fake_array.ts";

const AWAY = new ArrayError("unreachable", "Cannot connect: connection refused", {
  outcome: "not-sent",
});
const WRONG_KEY = new ArrayError("auth", "Cannot log in: the API key is wrong", {
  outcome: "answered",
  hint: "Make a new key",
});

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => work);
  assertInstanceOf(error, TnblockError);
  return error.code;
}

Deno.test("those who come together wait for one login, and those who come later use it", async () => {
  const array = new FakeArray();
  array.connectMs = 100;
  const all = [1, 2, 3].map(() => array.link.session(array.deadline()));
  await turns();
  assertEquals(array.link.state().kind, "connecting");
  await array.pass(100);
  const [first, second] = await Promise.all(all);
  assertEquals([first === second, array.tries.length], [true, 1]);
  await array.link.session(array.deadline());
  const { kind, sessions, logins, release, address } = array.link.state();
  assertEquals([kind, sessions, logins, release, address], ["up", 1, 1, "25.10.6", "nas:443"]);
  array.link.close();
  await turns();
  assertEquals(array.clock.pending, 0);
});

Deno.test("a deadline ends the wait of the one whose it is, not the opening", async () => {
  const array = new FakeArray();
  array.connectMs = 2_000;
  const short = codeOf(array.link.session(array.deadline(500)));
  const long = array.link.session(array.deadline());
  await array.pass(500);
  assertEquals(await short, "timeout");
  await array.pass(1_500);
  assert((await long).isOpen);
  assertEquals(array.tries.length, 1);
  array.link.close();
});

Deno.test("a session that was lost is opened again by itself as long as somebody needs it", async () => {
  const array = new FakeArray();
  const release = array.link.keepUp();
  await turns();
  array.last.drop();
  await turns();
  assertEquals(array.link.state().kind, "down");
  await array.pass(250);
  assertEquals([array.link.state().kind, array.sessions.length], ["up", 2]);
  release();
  array.link.close();
});

Deno.test("an array that is away is tried at 0.25, 0.5, 1 … 30 s, and told of once", async () => {
  const array = new FakeArray();
  array.random = 0.9999;
  array.failure = AWAY;
  const down: string[] = [];
  array.link.onDown((error) => down.push(error.code));
  array.link.keepUp();
  await array.pass(200_000, 50);
  const gaps = array.tries.slice(1).map((at, index) => at - (array.tries[index] ?? 0));
  const near = gaps.map((gap) => Math.round(gap / 50) * 50);
  assertEquals(near.slice(0, 9), [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  assertEquals(down, ["unreachable"]);
  assertEquals(array.log.filter((line) => line.includes("refused")).length, 1);
  array.failure = undefined;
  await array.pass(31_000, 50);
  assertEquals(array.link.state().kind, "up");
  assertEquals(array.link.state().error, undefined);
  array.link.close();
});

Deno.test("a session that does not last goes on with the back-off; one that lasted begins anew", async () => {
  const array = new FakeArray();
  array.random = 0.9999;
  array.link.keepUp();
  await turns();
  for (let flap = 0; flap < 6; flap++) {
    array.last.drop();
    await turns();
    await array.pass((array.link.state().nextTryMs ?? 0) - array.clock.monotonicMs() + 1);
  }
  const gaps = array.tries.slice(1)
    .map((at, index) => Math.round((at - (array.tries[index] ?? 0)) / 10) * 10);
  assertEquals(gaps, [500, 1000, 2000, 4000, 8000, 16_000]);
  await array.pass(30_000);
  array.last.drop();
  await array.pass(250);
  assertEquals(array.sessions.length, 8);
  array.link.close();
});

Deno.test("while it is away a request is told the reason at once, or waits for a try that comes in time", async () => {
  const array = new FakeArray();
  array.failure = new ArrayError("unreachable", "Cannot connect: no route", {
    outcome: "not-sent",
    hint: "Look at the cable",
  });
  array.link.keepUp();
  await array.pass(40_000);
  // The next try is seconds away.
  const before = array.clock.monotonicMs();
  const error = await assertRejects(() => array.link.session(array.deadline(2_000)));
  assertInstanceOf(error, TnblockError);
  assertEquals(
    [error.code, error.hint, array.clock.monotonicMs() - before],
    ["unreachable", "Look at the cable", 0],
  );
  // Right before it.
  const next = (array.link.state().nextTryMs ?? 0) - array.clock.monotonicMs();
  await array.pass(next - 500);
  array.failure = undefined;
  const waiting = array.link.session(array.deadline(2_000));
  await array.pass(600);
  assert((await waiting).isOpen);
  array.link.close();
});

Deno.test("nobody waits longer than 5 s for an array that is known not to answer", async () => {
  const array = new FakeArray();
  array.failure = AWAY;
  array.connectMs = 10_000;
  const first = codeOf(array.link.session(array.deadline()));
  await array.pass(10_000);
  assertEquals(await first, "unreachable");
  await array.pass(300);
  assertEquals(array.link.state().kind, "connecting");
  const second = codeOf(array.link.session(array.deadline()));
  const began = array.clock.monotonicMs();
  let toldAfter = 0;
  second.then(() => toldAfter = array.clock.monotonicMs() - began);
  await array.pass(6_000);
  assertEquals([await second, Math.round(toldAfter / 100)], ["unreachable", 50]);
  array.link.close();
});

Deno.test("a wrong key is not tried in a loop, and everybody is told of it with what helps", async () => {
  const array = new FakeArray();
  array.failure = WRONG_KEY;
  array.link.keepUp();
  await array.pass(30_000);
  const error = await assertRejects(() => array.link.session(array.deadline()));
  assertInstanceOf(error, TnblockError);
  assertEquals([error.code, error.hint], ["auth", "Make a new key"]);
  assertEquals(array.link.state().error, {
    code: "auth",
    message: WRONG_KEY.message,
    hint: "Make a new key",
  });
  await array.pass(29_000);
  assertEquals(array.tries.length, 1);
  // An hour: 60, 120, 240, 300, 300 … seconds.
  await array.pass(3_540_000, 1_000);
  assert(array.tries.length <= 15, String(array.tries.length));
  array.link.close();
});

Deno.test("what was changed is tried at once when somebody says so", async () => {
  const array = new FakeArray();
  array.failure = WRONG_KEY;
  array.link.keepUp();
  await array.pass(10_000);
  array.failure = undefined;
  array.link.retryNow();
  await turns();
  assertEquals([array.link.state().kind, array.tries.length], ["up", 2]);
  array.link.close();
});

Deno.test("a used-up budget is a state with the time of the next try, and nobody tries before", async () => {
  const array = new FakeArray();
  array.failure = new LoginsUsedUp("Cannot log in: used up", "Wait", 4_000);
  array.link.keepUp();
  await turns();
  const state = array.link.state();
  assertEquals([state.kind, state.error?.code, state.nextTryMs], ["down", "rate-limited", 4_000]);
  const all = await Promise.all(
    [1, 2, 3].map(() => codeOf(array.link.session(array.deadline(3_000)))),
  );
  assertEquals(all, ["rate-limited", "rate-limited", "rate-limited"]);
  await array.pass(3_999);
  assertEquals(array.tries.length, 1);
  array.failure = undefined;
  await array.pass(2);
  assertEquals(array.link.state().kind, "up");
  array.link.close();
});

Deno.test("a lock-out by the array is waited out for its whole window", async () => {
  const array = new FakeArray();
  array.failure = new ArrayError("rate-limited", "Cannot log in: Rate Limit Exceeded", {
    outcome: "answered",
  });
  array.link.keepUp();
  await array.pass(59_900);
  assertEquals(array.tries.length, 1);
  await array.pass(200);
  assertEquals(array.tries.length, 2);
  array.link.close();
});

Deno.test("a silent session is asked once a minute, one that is used never", async () => {
  const array = new FakeArray();
  array.link.keepUp();
  await array.pass(600_000, 1_000);
  assertEquals(array.calls.filter((method) => method === "auth.me").length, 10);
  array.calls = [];
  const session = await array.link.session(array.deadline());
  for (let minute = 0; minute < 10; minute++) {
    await array.pass(59_000, 1_000);
    await session.call("pool.query", [], { lane: "read" });
  }
  assertEquals(array.calls.filter((method) => method === "auth.me").length, 0);
  assertEquals(array.link.state().logins, 1);
  array.link.close();
});

Deno.test("a session that has expired in silence is found by the question, and replaced at once", async () => {
  const array = new FakeArray();
  array.answer = (method, session) =>
    session === array.sessions[0] ? Promise.reject(forgotten()) : Promise.resolve(method);
  array.link.keepUp();
  await array.pass(61_000, 1_000);
  assertEquals([array.sessions.length, array.link.state().kind], [2, "up"]);
  array.link.close();
});

Deno.test("thirty days are one login, the expiry of the session one more", async () => {
  const array = new FakeArray();
  const day = 24 * 3_600_000;
  const born = new Map<unknown, number>();
  array.answer = (method, session) => {
    const at = born.get(session) ?? array.clock.monotonicMs();
    born.set(session, at);
    return array.clock.monotonicMs() - at >= 30 * day
      ? Promise.reject(forgotten())
      : Promise.resolve(method);
  };
  array.link.keepUp();
  await array.pass(30 * day, 60_000);
  assertEquals(array.link.state().logins, 1);
  await array.pass(180_000, 60_000);
  assertEquals([array.link.state().logins, array.link.state().kind], [2, "up"]);
  // A question a minute and no more.
  assert(array.calls.length <= 30 * 1440 + 5, String(array.calls.length));
  array.link.close();
});

Deno.test("a question that is not answered does not end a session on which other calls are", async () => {
  const array = new FakeArray();
  array.answer = (method) =>
    method === "auth.me"
      ? Promise.reject(new ArrayError("timeout", "no answer", { outcome: "unknown" }))
      : Promise.resolve(method);
  array.link.keepUp();
  const session = await array.link.session(array.deadline());
  for (let minute = 0; minute < 20; minute++) {
    await array.pass(61_000, 1_000);
    await session.call("pool.query", [], { lane: "read" });
  }
  assertEquals(array.sessions.length, 1);
  // Nothing at all any more: the connection is made anew after three questions.
  await array.pass(240_000, 1_000);
  assert(array.sessions.length > 1);
  array.link.close();
});

Deno.test("when the array has forgotten us there is one login for all, and each call is done once, writes too", async () => {
  const array = new FakeArray();
  const done: string[] = [];
  array.answer = (method, session) => {
    if (session === array.sessions[0]) return Promise.reject(forgotten());
    done.push(method);
    return Promise.resolve(method);
  };
  const session = await array.link.session(array.deadline());
  await array.pass(31_000);
  const answers = await Promise.all([
    session.call("pool.dataset.query", [], { lane: "read" }),
    session.call("zfs.resource.query", []),
    session.call("iscsi.targetextent.create", [], { lane: "write" }),
    session.call("nvmet.namespace.create", [], { lane: "write" }),
    session.callJob("core.bulk", ["pool.snapshot.delete", []], { lane: "write" }),
  ]);
  assertEquals(answers.length, 5);
  assertEquals(done.sort(), [
    "core.bulk",
    "iscsi.targetextent.create",
    "nvmet.namespace.create",
    "pool.dataset.query",
    "zfs.resource.query",
  ]);
  assertEquals([array.sessions.length, array.link.state().logins], [2, 2]);
  array.link.close();
});

Deno.test("a subscription finds out as well, and is made by its listener on the next session", async () => {
  const array = new FakeArray();
  array.answer = (method, session) =>
    session === array.sessions[0] ? Promise.reject(forgotten()) : Promise.resolve(method);
  const outcomes: string[] = [];
  array.link.onSession((session) => {
    session.subscribe("pool.dataset.query", () => {}).then(
      () => outcomes.push("subscribed"),
      (error) => outcomes.push(error.code),
    );
  });
  array.link.keepUp();
  await turns();
  await array.pass(1_000);
  assertEquals([outcomes, array.sessions.length], [["auth", "subscribed"], 2]);
  array.link.close();
});

Deno.test("an array that forgets us again at once is not asked for ever", async () => {
  const array = new FakeArray();
  array.answer = () => Promise.reject(forgotten());
  const session = await array.link.session(array.deadline());
  const call = codeOf(session.call("pool.query", [], { lane: "read" }));
  await array.pass(10_000);
  assertEquals(await call, "auth");
  assert(array.sessions.length <= 3, String(array.sessions.length));
  array.link.close();
});

Deno.test("a write whose answer was lost is never repeated", async () => {
  const array = new FakeArray();
  array.answer = () => new Promise(() => {});
  const session = await array.link.session(array.deadline());
  const write = assertRejects(() =>
    session.call("iscsi.targetextent.create", [], { lane: "write" })
  );
  await turns();
  array.last.drop();
  const error = await write;
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.outcome], ["unreachable", "unknown"]);
  await array.pass(1_000);
  assertEquals(array.calls.filter((method) => method === "iscsi.targetextent.create").length, 1);
  array.link.close();
});

Deno.test("writes that wait for their turn go on over the next session when theirs is lost", async () => {
  const array = new FakeArray();
  const first = Promise.withResolvers<unknown>();
  array.answer = (method) => method === "iscsi.extent.delete" ? first.promise : Promise.resolve(1);
  const session = await array.link.session(array.deadline());
  const sent = codeOf(session.call("iscsi.extent.delete", [], { lane: "write" }));
  const waiting = session.call("iscsi.targetextent.create", [], { lane: "write" });
  await turns();
  assertEquals([array.link.state().queued.iscsi, array.link.state().writing], [1, 1]);
  array.last.drop();
  assertEquals(await sent, "unreachable");
  await array.pass(300);
  assertEquals(await waiting, 1);
  assertEquals(array.last.calls.map(({ method }) => method), ["iscsi.targetextent.create"]);
  array.link.close();
});

Deno.test("a write for one release is not sent to another: the array was updated meanwhile", async () => {
  const array = new FakeArray();
  const session = await array.link.session(array.deadline());
  array.version = "26.0.0";
  array.last.drop();
  await array.pass(300);
  const error = await assertRejects(() =>
    session.call("pool.dataset.delete", ["tank/pve/vm-1", { recursive: true }], { lane: "write" })
  );
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.outcome], ["busy", "not-sent"]);
  assertStringIncludes(error.message, "updated meanwhile, from 25.10.6 to 26.0.0");
  assertEquals(array.calls, []);
  assertEquals((await array.link.session(array.deadline())).release.text, "26.0.0");
  array.link.close();
});

Deno.test("a write that was sent is not cut by its caller, and gets its whole deadline", async () => {
  const array = new FakeArray();
  const answer = Promise.withResolvers<unknown>();
  array.answer = () => answer.promise;
  const session = await array.link.session(array.deadline());
  const caller = new AbortController();
  const write = session.call("iscsi.targetextent.create", [], {
    lane: "write",
    sendBy: { deadlineMs: 1_000, signal: caller.signal },
    owner: "san",
  });
  await turns();
  caller.abort();
  await array.pass(100_000);
  answer.resolve("done");
  assertEquals(await write, "done");
  array.link.close();
});

Deno.test("each session is told with whether the array was booted; who comes late is told at once", async () => {
  const array = new FakeArray();
  const told: unknown[] = [];
  const listen = (session: Session, { rebooted }: { rebooted: boolean }) =>
    told.push([session.release.text, rebooted]);
  const stop = array.link.onSession(listen);
  array.link.keepUp();
  await turns();
  const loseAndReturn = async (bootId: string | undefined) => {
    array.bootId = bootId;
    array.last.drop();
    await array.pass(30_000, 100);
    await array.pass(1_000, 100);
  };
  await loseAndReturn("boot-1");
  await loseAndReturn("boot-2");
  await loseAndReturn(undefined);
  await loseAndReturn(undefined);
  stop();
  await loseAndReturn("boot-3");
  assertEquals(told.map((one) => (one as unknown[])[1]), [false, false, true, true, true]);
  told.length = 0;
  array.link.onSession(listen);
  assertEquals(told, [["25.10.6", false]]);
  array.link.close();
});

Deno.test("a listener that fails harms nobody", async () => {
  const array = new FakeArray();
  const told: string[] = [];
  array.link.onSession(() => {
    throw new Error("broken");
  });
  array.link.onSession(() => void told.push("session"));
  array.link.keepUp();
  await turns();
  assertEquals([told, array.link.state().kind], [["session"], "up"]);
  array.link.close();
});

Deno.test("a link that nobody uses is closed after ten minutes, and opened when somebody comes", async () => {
  const array = new FakeArray();
  const session = await array.link.session(array.deadline());
  await array.pass(599_000, 1_000);
  assertEquals(array.link.state().kind, "up");
  await array.pass(62_000, 1_000);
  assertEquals([array.link.state().kind, array.last.isOpen, array.idle], ["idle", false, 1]);
  assertEquals(array.clock.pending, 0);
  // A request that began before goes on as well.
  assertEquals(await session.call("pool.query", [], { lane: "read" }), "pool.query");
  assertEquals([array.link.state().kind, array.sessions.length], ["up", 2]);
  array.link.close();
});

Deno.test("an array that is away is not tried for ever when nobody needs it", async () => {
  const array = new FakeArray();
  array.failure = AWAY;
  await codeOf(array.link.session(array.deadline()));
  await array.pass(700_000, 1_000);
  const tries = array.tries.length;
  await array.pass(700_000, 1_000);
  assertEquals([array.link.state().kind, array.tries.length], ["idle", tries]);
  assertEquals(array.clock.pending, 0);
});

Deno.test("the end tells everybody who waits, and leaves no timer", async () => {
  const array = new FakeArray();
  array.failure = AWAY;
  array.link.keepUp();
  await turns();
  const waiting = codeOf(array.link.session(array.deadline(4_000)));
  await turns();
  array.link.close();
  assertEquals(await waiting, "unreachable");
  assertEquals(await codeOf(array.link.session(array.deadline())), "unreachable");
  await turns();
  assertEquals(array.clock.pending, 0);
});

Deno.test("no secret is in the state of a link", async () => {
  const array = new FakeArray();
  array.failure = WRONG_KEY;
  array.link.keepUp();
  await turns();
  assertEquals(Object.keys(array.link.state()).sort(), [
    "calls",
    "error",
    "kind",
    "logins",
    "nextTryMs",
    "queued",
    "sessions",
    "sinceMs",
    "writing",
  ]);
  array.link.close();
});
