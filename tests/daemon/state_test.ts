import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { silentLog } from "../../src/common/log.ts";
import { Counters, LATENCY_BUCKETS } from "../../src/daemon/counters.ts";
import { measureLoopLag } from "../../src/daemon/loop_lag.ts";
import { parseState, STATUS_METHOD } from "../../src/daemon/state.ts";
import { StateSource } from "../../src/daemon/state_source.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { withNode } from "../support/node_folder.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { eventually } from "./memory_support.ts";
import { statusDaemon, writeStorageCfg } from "./state_support.ts";

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a daemon tells of its array, its storage and the disks on its node`, async () => {
    await using place = await Place.start(transport);
    await writeStorageCfg(place);
    await using daemon = await statusDaemon(place, { version: "1.2.3" });
    const { result: volume } = await daemon.ask("alloc_image", {
      vmid: 100,
      format: "raw",
      sizeKiB: 65536,
    });
    assert((await daemon.ask("activate_volume", { volname: volume })).ok);
    assert((await daemon.ask("list_images")).ok);
    await daemon.daemon.keeper.round();

    const state = await daemon.state();
    const [storage] = state.storages;

    assertEquals(state.daemon?.version, "1.2.3");
    assertEquals(state.storages.length, 1);
    assertEquals(storage?.error, null);
    assertEquals(storage?.transport, transport);
    assertEquals(storage?.dataset, "tank/pve");
    assertEquals(storage?.array?.state, "up");
    assertEquals(storage?.array?.logins, 1);
    assertStringIncludes(storage?.array?.address ?? "", place.simulator.ready.host);
    assertEquals(storage?.memory?.trust, "good");
    // The volume, and over iSCSI the one that keeps the target from vanishing.
    assertEquals(storage?.memory?.volumes, transport === "iscsi" ? 2 : 1);
    assertEquals(storage?.pool, { name: "tank", status: "ONLINE" });
    assert((storage?.space?.total ?? 0) > 0);
    assertEquals(storage?.portals.map(({ state }) => state), ["live", "live"]);
    assertEquals(storage?.disks.map(({ name, inUse, pathsUp }) => [name, inUse, pathsUp]), [
      ["vm-100-disk-0", false, 2],
    ]);
    const methods = state.daemon?.requests.byMethod.map(({ method, count }) => [method, count]);
    assertEquals(methods, [["activate_volume", 1], ["alloc_image", 1], ["list_images", 1]]);
    assertEquals(state.journal, { open: [], unread: [] });
  });
}

Deno.test("nothing that is told holds the key of the array", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place);
  await using daemon = await statusDaemon(place);
  const { apiKey } = place.simulator.ready;
  await daemon.ask("list_images");

  const line = await daemon.line(STATUS_METHOD);

  assert(!line.includes(apiKey) && !line.includes(apiKey.replace(/^\d+-/, "")));
});

Deno.test("a storage whose section cannot be used is told with the reason, beside the others", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place, { bad: { "tnb-transport-mode": "smoke-signals" }, san: {} });
  await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "bad");
  await using daemon = await statusDaemon(place);

  const { storages } = await daemon.state();

  assertEquals(storages.map(({ id, error }) => [id, error?.code]), [["bad", "config"], [
    "san",
    undefined,
  ]]);
  assertStringIncludes(storages[0]?.error?.message ?? "", "tnb-transport-mode");
});

Deno.test("an array that is away is told with the reason and the next try", async () => {
  await using place = await Place.start("nvme-tcp");
  // Nobody listens there.
  await writeStorageCfg(place, { san: { "tnb-api-port": 9 } });
  await using daemon = await statusDaemon(place);

  await eventually(async () => {
    const [storage] = (await daemon.state()).storages;
    assertEquals(storage?.array?.state, "down");
    assertEquals(storage?.array?.error?.code, "unreachable");
    assert(storage?.array?.nextTryAt !== null);
    assertEquals(storage?.memory?.trust, "none");
    assertEquals(storage?.memory?.error?.code, "unreachable");
  });
});

Deno.test("requests that failed are counted and remembered with method, code and storage", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place);
  await using daemon = await statusDaemon(place);
  await daemon.ask("volume_size_info", { volname: "vol-vm-1-disk-0-lun7" });
  await daemon.ask("no_such_method");

  await daemon.state();
  const { daemon: told } = await daemon.state();

  assertEquals(told?.requests.underWay, 0, "asking how it is does not count");
  assertEquals(told?.requests.total, 2);
  assertEquals(told?.requests.failed, 2);
  assertEquals(told?.errors.map(({ method, storage, code }) => [method, storage, code]), [
    ["volume_size_info", "san", told?.errors[0]?.code],
    ["other", "san", "unsupported"],
  ]);
});

Deno.test("a node without a daemon tells its portals and what is attached", async () => {
  await using place = await Place.start("iscsi");
  await writeStorageCfg(place);
  const volume = await place.alloc();
  await place.must("activate_volume", { volname: volume });

  const host = linuxHost({ root: place.directory });
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
  const state = parseState(await new StateSource(world).state());

  assertEquals(state.daemon, null);
  assertEquals(state.storages.map(({ id, array, memory }) => [id, array, memory]), [
    ["san", null, null],
  ]);
  assertEquals(state.storages[0]?.portals.map(({ state }) => state), ["live", "live"]);
  assertEquals(state.storages[0]?.disks.map(({ name }) => name), ["vm-100-disk-0"]);
});

Deno.test("a file system that stands still delays the answer for a few seconds, and no more", async () => {
  await withNode(undefined, async ({ host: real }) => {
    const never = new Promise<never>(() => {});
    let looks = 0;
    const host: Host = {
      ...real,
      files: {
        ...real.files,
        readText: (path) => {
          if (path !== "/etc/pve/storage.cfg") return real.files.readText(path);
          looks++;
          return never;
        },
      },
      wait: () => Promise.resolve(),
    };
    const source = new StateSource({
      host,
      log: silentLog,
      setDebugLevel: () => {},
      limitLogins: false,
    });

    await source.state();
    const { storages, storagesError } = await source.state();

    assertEquals(storages, []);
    assertEquals(storagesError?.code, "timeout");
    assertEquals(looks, 1, "no second look is begun beside the first");
  });
});

Deno.test("latencies are counted into buckets that add up", () => {
  const counters = new Counters({ now: () => 0 });
  for (const ms of [0.5, 3, 3, 70_000]) {
    counters.answered({ method: "status", storage: "san", ms });
  }

  const { requests } = counters.state();

  assertEquals(requests.total, 4);
  assertEquals(requests.byMethod[0]?.seconds.buckets, [1, 3, 3, 3, 3, 3, 3, 3, 4]);
  assertEquals(requests.byMethod[0]?.seconds.buckets.length, LATENCY_BUCKETS.length + 1);
});

Deno.test("the same failure again is counted, and pushes out no other", () => {
  let now = 0;
  const counters = new Counters({ now: () => now });
  const fail = (message: string) =>
    counters.answered({
      method: "status",
      storage: "san",
      ms: 1,
      error: { code: "busy", message },
    });
  fail("first");
  for (let round = 0; round < 50; round++) {
    now += 10_000;
    fail("again and again");
  }

  assertEquals(counters.state().errors.map(({ message, count, at }) => [message, count, at]), [
    ["first", 1, "1970-01-01T00:00:00.000Z"],
    ["again and again", 50, "1970-01-01T00:08:20.000Z"],
  ]);
});

Deno.test("twenty failures are remembered, the newest last", () => {
  const counters = new Counters({ now: () => 0 });
  for (let nth = 1; nth <= 30; nth++) {
    const error = { code: "busy", message: `failure ${nth}` };
    counters.answered({ method: "status", storage: "san", ms: 1, error });
  }

  const { errors } = counters.state();

  assertEquals([errors.length, errors[0]?.message, errors.at(-1)?.message], [
    20,
    "failure 11",
    "failure 30",
  ]);
});

Deno.test("names that callers make up do not grow what is counted", () => {
  const counters = new Counters({ now: () => 0 });
  for (let nth = 0; nth < 1_000; nth++) {
    counters.answered({ method: `method-${nth}`, storage: "", ms: 1 });
    counters.called({ method: `call-${nth}`, ms: 1, done: true });
  }

  const { requests, arrayCalls } = counters.state();

  assertEquals(requests.byMethod.map(({ method, count }) => [method, count]), [["other", 1_000]]);
  assertEquals(arrayCalls.length, 101);
});

Deno.test("the lag of the loop is the longest of the last quarter of a minute", async () => {
  const clock = new FakeClock();
  let late = 0;
  const lag = measureLoopLag({
    monotonicMs: () => clock.monotonicMs() + late,
    wait: (ms, signal) => clock.wait(ms, signal),
  });
  await clock.pass(2_000);
  assertEquals(lag.seconds(), 0);

  late = 700;
  await clock.pass(1_000);
  assertEquals(lag.seconds(), 0.7);
  await clock.pass(20_000);
  assertEquals(lag.seconds(), 0);

  lag.stop();
  assertEquals(clock.pending, 0);
});

Deno.test("what a daemon of another version tells is refused, and named", () => {
  const error = assertThrows(() => parseState({ schemaVersion: 2 }), "schemaVersion");
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "unsupported");
});
