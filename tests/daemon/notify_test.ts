import { assertEquals, assertMatch } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { type Notifier, notifier, notifySettings } from "../../src/daemon/notify.ts";
import { HostError, type RunOptions } from "../../src/host/host.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** A notifier on a clock that stands still, with what it has run and logged. */
function started(env: Record<string, string>, status = 0) {
  const clock = new FakeClock();
  const runs: string[] = [];
  const log: string[] = [];
  const host = {
    wait: (ms: number, signal?: AbortSignal) => clock.wait(ms, signal),
    run: (program: string, args: readonly string[], options: RunOptions) => {
      runs.push([program, ...args].join(" "));
      assertEquals(options.environment, { NOTIFY_SOCKET: env["NOTIFY_SOCKET"] ?? "" });
      return status === 127
        ? Promise.reject(new HostError("ENOENT", "no such program"))
        : Promise.resolve({ status, stdout: "", stderr: "" });
    },
  };
  const it: Notifier = notifier(
    host,
    notifySettings(env, 42),
    lineLog((line) => log.push(line), () => 0),
  );
  return { it, clock, runs, log };
}

const SOCKET = { NOTIFY_SOCKET: "/run/systemd/notify" };
const WATCHED = { ...SOCKET, WATCHDOG_USEC: "60000000", WATCHDOG_PID: "42" };

Deno.test("what systemd expects is read from the environment", () => {
  const cases: [Record<string, string>, { socket?: string; everyMs?: number }][] = [
    [{}, {}],
    [{ NOTIFY_SOCKET: "" }, {}],
    [SOCKET, { socket: "/run/systemd/notify" }],
    [WATCHED, { socket: "/run/systemd/notify", everyMs: 20_000 }],
    [{ ...WATCHED, WATCHDOG_PID: "41" }, { socket: "/run/systemd/notify" }],
    [{ ...WATCHED, WATCHDOG_USEC: "x" }, { socket: "/run/systemd/notify" }],
    [{ WATCHDOG_USEC: "60000000" }, {}],
  ];
  for (const [env, expected] of cases) {
    const { socket, everyMs } = notifySettings(env, 42);
    assertEquals([env, socket, everyMs], [env, expected.socket, expected.everyMs]);
  }
});

Deno.test("readiness is told once, a sign of life every third of the time, until the end", async () => {
  const { it, clock, runs } = started(WATCHED);
  await it.ready();
  assertEquals(runs.splice(0), ["/usr/bin/systemd-notify --ready --status=Answering requests"]);
  for (let count = 0; count < 3; count++) {
    await clock.pass(19_999);
    assertEquals(runs.splice(0), []);
    await clock.pass(1);
    assertEquals(runs.splice(0), ["/usr/bin/systemd-notify WATCHDOG=1"]);
    // The next wait begins when that one is through.
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  }
  await it.stopping();
  assertMatch(runs.splice(0).join(), /STOPPING=1/);
  await clock.pass(20_000);
  assertEquals(runs.splice(0).length, 1);
  it.close();
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  assertEquals(clock.pending, 0);
});

Deno.test("without systemd nothing is run", async () => {
  const { it, clock, runs } = started({});
  await it.ready();
  await it.stopping();
  assertEquals([runs, clock.pending], [[], 0]);
});

for (const status of [1, 127]) {
  Deno.test(`a systemd-notify that fails (${status}) is told once and hinders nothing`, async () => {
    const { it, clock, runs, log } = started(WATCHED, status);
    await it.ready();
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    await clock.pass(20_000);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    await clock.pass(20_000);
    assertEquals([runs.length, log.length], [3, 1]);
    it.close();
  });
}
