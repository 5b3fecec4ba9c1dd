import { assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import {
  serviceOf,
  type Turn,
  WriteQueue,
  type WriteTicket,
} from "../../src/daemon/write_queue.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** A queue whose writes run until they are ended by name. */
function world(most?: number) {
  const clock = new FakeClock();
  const queue = new WriteQueue(clock, most);
  const running = new Map<string, PromiseWithResolvers<string>>();
  const begun: string[] = [];
  const write = (
    name: string,
    ticket: Partial<WriteTicket> = {},
    work?: (turn: Turn) => Promise<string>,
  ) =>
    queue.run(
      {
        service: "iscsi",
        owner: "san",
        context: { method: "iscsi.targetextent.create", doing: `Cannot write ${name}` },
        sendBy: { deadlineMs: 60_000 },
        answerBy: { deadlineMs: 150_000 },
        ...ticket,
      },
      work ?? (async (turn) => {
        if (!turn.send()) throw new Error("it must not be sent");
        begun.push(name);
        const end = Promise.withResolvers<string>();
        running.set(name, end);
        return await end.promise;
      }),
    );
  const end = async (name: string) => {
    running.get(name)?.resolve(name);
    await turns();
  };
  return { clock, queue, begun, write, end };
}

/** Lets everybody go on who can. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

async function failureOf(work: Promise<unknown>): Promise<string[]> {
  const error = await assertRejects(() => work);
  assertInstanceOf(error, ArrayError);
  return [error.code, error.outcome, error.message];
}

Deno.test("each method has its service, and a bulk that of what it repeats", () => {
  assertEquals(
    [
      serviceOf("iscsi.targetextent.create", []),
      serviceOf("iscsi.extent.delete", []),
      serviceOf("iscsi.extent.create", []),
      serviceOf("nvmet.namespace.create", []),
      serviceOf("pool.dataset.create", []),
      serviceOf("zfs.resource.destroy", []),
      serviceOf("core.bulk", ["pool.snapshot.delete", []]),
      serviceOf("core.bulk", ["nvmet.namespace.delete", []]),
      serviceOf("service.control", []),
    ],
    ["iscsi", "iscsi", "zfs", "nvmet", "zfs", "zfs", "zfs", "nvmet", "other"],
  );
});

Deno.test("writes of one service run one after the other, in their order", async () => {
  const { queue, begun, write, end } = world();
  const all = ["a", "b", "c"].map((name) => write(name));
  assertEquals([begun, queue.queued().iscsi, queue.writing], [["a"], 2, 1]);
  await end("a");
  assertEquals(begun, ["a", "b"]);
  await end("b");
  await end("c");
  assertEquals([await Promise.all(all), queue.writing], [["a", "b", "c"], 0]);
});

Deno.test("services do not wait for each other, and ZFS has four places", async () => {
  const { begun, write, end } = world();
  const all = [
    write("iscsi"),
    write("nvmet", { service: "nvmet" }),
    ...["1", "2", "3", "4", "5"].map((name) => write(name, { service: "zfs" })),
  ];
  assertEquals(begun, ["iscsi", "nvmet", "1", "2", "3", "4"]);
  await end("3");
  assertEquals(begun.at(-1), "5");
  for (const name of begun) await end(name);
  await Promise.all(all);
});

Deno.test("storages get their turns in rotation, whoever came first with many", async () => {
  const { begun, write, end } = world();
  const of = (owner: string, names: string[]) => names.map((name) => write(name, { owner }));
  const all = [...of("a", ["a1", "a2", "a3", "a4"]), ...of("b", ["b1", "b2"]), ...of("c", ["c1"])];
  for (let index = 0; index < all.length; index++) await end(begun.at(-1) ?? "");
  assertEquals(begun, ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]);
  await Promise.all(all);
});

Deno.test("a failed write lets the next one go", async () => {
  const { begun, write, end } = world();
  const first = write("a", {}, (turn) => {
    turn.send();
    return Promise.reject(new ArrayError("busy", "no", { outcome: "answered" }));
  });
  const second = write("b");
  assertEquals((await failureOf(first))[0], "busy");
  await turns();
  assertEquals(begun, ["b"]);
  await end("b");
  await second;
});

Deno.test("whose deadline passes before its turn is taken out unsent", async () => {
  const { clock, queue, begun, write, end } = world();
  const first = write("a");
  const late = failureOf(write("b", { sendBy: { deadlineMs: 5_000 } }));
  const third = write("c");
  await clock.pass(5_000);
  const [code, outcome, message] = await late;
  assertEquals([code, outcome], ["timeout", "not-sent"]);
  assertStringIncludes(message ?? "", "Cannot write b: it was not its turn within 5000 ms");
  assertEquals(queue.queued().iscsi, 1);
  await end("a");
  assertEquals(begun, ["a", "c"]);
  await end("c");
  await Promise.all([first, third]);
  assertEquals(clock.pending, 0);
});

Deno.test("who gives up before his turn is taken out at once, also one who had given up before", async () => {
  const { begun, write, end } = world();
  const first = write("a");
  const caller = new AbortController();
  const sendBy = { deadlineMs: 60_000, signal: caller.signal };
  const waiting = failureOf(write("b", { sendBy }));
  caller.abort(new Error("gone"));
  assertEquals((await waiting).slice(0, 2), ["timeout", "not-sent"]);
  assertEquals((await failureOf(write("c", { sendBy }))).slice(0, 2), ["timeout", "not-sent"]);
  await end("a");
  await first;
  assertEquals(begun, ["a"]);
});

Deno.test("the time in the queue is not the array's: its deadline begins when the write is sent", async () => {
  const { clock, begun, write, end } = world();
  const first = write("a", { answerBy: { deadlineMs: 500_000 } });
  const second = failureOf(
    write("b", { sendBy: { deadlineMs: 400_000 }, answerBy: { deadlineMs: 150_000 } }),
  );
  await clock.pass(300_000);
  await end("a");
  await first;
  assertEquals(begun, ["a", "b"]);
  await clock.pass(149_999);
  let told = false;
  second.then(() => told = true);
  await turns();
  assertEquals(told, false);
  await clock.pass(1);
  assertEquals((await second).slice(0, 2), ["timeout", "unknown"]);
  await end("b");
});

Deno.test("a write that was sent is not cut when its caller goes, and keeps its place until it ends", async () => {
  const { queue, begun, write, end } = world();
  const caller = new AbortController();
  const sendBy = { deadlineMs: 60_000, signal: caller.signal };
  const sent = write("a", { sendBy });
  const next = write("b");
  caller.abort();
  await turns();
  assertEquals([begun, queue.writing], [["a"], 1]);
  await end("a");
  assertEquals(await sent, "a");
  assertEquals(begun, ["a", "b"]);
  await end("b");
  await next;
});

Deno.test("a caller who goes while his write waits for a session is told that it was not sent, and it never is", async () => {
  const { write } = world();
  const session = Promise.withResolvers<void>();
  const asked: boolean[] = [];
  const caller = new AbortController();
  const waiting = failureOf(
    write("a", { sendBy: { deadlineMs: 60_000, signal: caller.signal } }, async (turn) => {
      await session.promise;
      asked.push(turn.send());
      return "a";
    }),
  );
  caller.abort();
  assertEquals((await waiting).slice(0, 2), ["timeout", "not-sent"]);
  session.resolve();
  await turns();
  assertEquals(asked, [false]);
});

Deno.test("a queue that is full refuses at once", async () => {
  const { write, end, begun } = world(2);
  const all = [write("a"), write("b"), write("c")];
  assertEquals((await failureOf(write("d"))).slice(0, 2), ["busy", "not-sent"]);
  for (let index = 0; index < 3; index++) await end(begun.at(-1) ?? "");
  await Promise.all(all);
});

Deno.test("the end refuses what waits and lets what runs end", async () => {
  const { queue, write, end } = world();
  const running = write("a");
  const waiting = failureOf(write("b"));
  queue.end(new ArrayError("unreachable", "Cannot go on", { outcome: "not-sent" }));
  assertEquals((await waiting).slice(0, 2), ["unreachable", "not-sent"]);
  assertEquals((await failureOf(write("c"))).slice(0, 2), ["unreachable", "not-sent"]);
  await end("a");
  assertEquals(await running, "a");
});
