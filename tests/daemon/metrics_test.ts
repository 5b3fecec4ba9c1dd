import { assert, assertEquals, assertThrows } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { renderMetrics } from "../../src/daemon/metrics.ts";
import { METRICS_FILE, writeMetrics } from "../../src/daemon/metrics_file.ts";
import type { DaemonState, State } from "../../src/daemon/state.ts";
import type { Host } from "../../src/host/host.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";
import { Place } from "../support/place.ts";
import { parseMetrics } from "../support/prometheus.ts";
import { eventually } from "./memory_support.ts";
import { DAEMON, LINK, portal, state, storage } from "./state_examples.ts";
import { statusDaemon, writeStorageCfg } from "./state_support.ts";

const TEXTFILE = "/var/lib/prometheus/node-exporter/tnblock.prom";

function parsed(change: Partial<State> = {}, daemon: Partial<DaemonState> = {}) {
  return parseMetrics(renderMetrics({ ...state(change), daemon: { ...DAEMON, ...daemon } }));
}

/** Values of a metric by its labels, as text. */
function valuesOf(families: ReturnType<typeof parsed>, name: string): Record<string, number> {
  const samples = families.get(name)?.samples ?? [];
  return Object.fromEntries(
    samples.map(({ labels, value }) => [
      Object.entries(labels).map(([key, text]) => `${key}=${text}`).join(" "),
      value,
    ]),
  );
}

Deno.test("what operators watch is there, under its name and in base units", () => {
  const families = parsed();
  const expected: [string, Record<string, number>][] = [
    ["tnblock_up", { "": 1 }],
    ["tnblock_requests_total", { "method=list_images": 1000, "method=alloc_image": 234 }],
    ["tnblock_request_errors_total", {
      "method=alloc_image code=busy": 2,
      "method=alloc_image code=no-space": 10,
    }],
    ["tnblock_array_calls_total", { "method=zfs.resource.query": 40 }],
    ["tnblock_array_up", { "array=nas.lan": 1 }],
    ["tnblock_array_logins_total", { "array=nas.lan": 2 }],
    ["tnblock_array_login_locked", { "array=nas.lan": 0 }],
    ["tnblock_array_queue_depth", {
      "array=nas.lan service=iscsi": 0,
      "array=nas.lan service=nvmet": 3,
      "array=nas.lan service=other": 0,
      "array=nas.lan service=zfs": 0,
    }],
    ["tnblock_storage_active", { "storage=san": 1 }],
    ["tnblock_memory_age_seconds", { "storage=san": 2 }],
    ["tnblock_memory_reads_total", { "storage=san": 40 }],
    ["tnblock_volumes", { "storage=san": 120 }],
    ["tnblock_volumes_limit", { "storage=san": 1000 }],
    ["tnblock_dataset_used_bytes", { "storage=san": 1024 ** 4 }],
    ["tnblock_pool_healthy", { "storage=san pool=tank": 1 }],
    ["tnblock_portal_up", {
      "storage=san portal=10.0.20.11:4420": 1,
      "storage=san portal=[fd00::11]:4420": 1,
    }],
    ["tnblock_disks_in_use", { "storage=san": 1 }],
    ["tnblock_disk_paths", { "storage=san": 4 }],
    ["tnblock_journal_open", { "": 0 }],
    ["tnblock_process_resident_memory_bytes", { "": 70 * 1024 ** 2 }],
    ["tnblock_event_loop_lag_seconds", { "": 0.01 }],
  ];
  for (const [name, values] of expected) assertEquals(valuesOf(families, name), values, name);
});

Deno.test("the times of requests are a histogram with all its parts", () => {
  const { samples = [] } = parsed().get("tnblock_request_duration_seconds") ?? {};
  const own = samples.filter(({ labels }) => labels["method"] === "alloc_image");
  assertEquals(own.map(({ name, labels, value }) => [name.slice(32), labels["le"], value]), [
    ["_bucket", "0.001", 0],
    ["_bucket", "0.1", 4],
    ["_bucket", "+Inf", 234],
    ["_sum", undefined, 200],
    ["_count", undefined, 234],
  ]);
});

Deno.test("what is not known is not told", () => {
  const families = parsed({
    storages: [storage({ memory: null, space: null, pool: null, array: null })],
  }, { links: [], requests: { underWay: 0, total: 0, failed: 0, byMethod: [] } });
  for (
    const name of [
      "tnblock_volumes",
      "tnblock_dataset_used_bytes",
      "tnblock_pool_healthy",
      "tnblock_array_up",
      "tnblock_requests_total",
    ]
  ) assert(!families.has(name), name);
  assertEquals(valuesOf(families, "tnblock_storage_active"), { "storage=san": 0 });
});

Deno.test("an old key and a new one for one array are one series", () => {
  const locked = {
    ...LINK,
    state: "down" as const,
    error: { code: "rate-limited", message: "Too many logins", hint: null },
  };
  const families = parsed({}, { links: [LINK, locked] });
  assertEquals(valuesOf(families, "tnblock_array_logins_total"), { "array=nas.lan": 4 });
  assertEquals(valuesOf(families, "tnblock_array_up"), { "array=nas.lan": 1 });
  assertEquals(valuesOf(families, "tnblock_array_login_locked"), { "array=nas.lan": 1 });
});

Deno.test("quotes, backslashes and line feeds in names break no line", () => {
  const pool = { name: 'a "pool" \\ of\nmine', status: "DEGRADED" };
  const families = parsed({ storages: [storage({ pool })] });
  assertEquals(families.get("tnblock_pool_healthy")?.samples, [{
    name: "tnblock_pool_healthy",
    labels: { storage: "san", pool: pool.name },
    value: 0,
  }]);
});

Deno.test("the parser of these tests refuses what Prometheus would", () => {
  const head = "# HELP a_total A\n# TYPE a_total counter\n";
  for (
    const text of [
      "a_total 1\n",
      `${head}a_total 1`,
      `${head}b_total 1\n`,
      `${head}a_total one\n`,
      `${head}a_total{x="1"} 1\na_total{x="1"} 2\n`,
      `${head}a_total{x="1} 1\n`,
      "# HELP a A\n# TYPE a counter\na 1\n",
    ]
  ) assertThrows(() => parseMetrics(text));
});

/** A node whose clock a test moves. */
async function writing(
  test: (
    node: NodeFolder & { clock: FakeClock; log: string[] },
    task: (state: () => Promise<State>) => ReturnType<typeof writeMetrics>,
  ) => Promise<void>,
): Promise<void> {
  await withNode(undefined, async (node) => {
    const clock = new FakeClock();
    const log: string[] = [];
    const host: Host = { ...node.host, wait: (ms, signal) => clock.wait(ms, signal) };
    await test(
      { ...node, clock, log },
      (state) => writeMetrics({ host, log: lineLog((line) => log.push(line), () => 0), state }),
    );
  });
}

Deno.test("the figures are written every 15 seconds, for everybody to read, and go with the daemon", async () => {
  await writing(async ({ host, clock }, start) => {
    let asked = 0;
    const task = start(() =>
      Promise.resolve(state({ time: new Date(++asked * 1000).toISOString() }))
    );
    const collected = async () => {
      const text = await host.files.readText(METRICS_FILE) ?? "";
      return /^tnblock_collected_time_seconds (\d+)$/m.exec(text)?.[1];
    };
    await clock.pass(1_000);
    await eventually(async () => assertEquals(await collected(), "1"));
    await eventually(() => Promise.resolve(assertEquals(clock.pending, 1)));
    await clock.pass(15_000);
    await eventually(async () => assertEquals(await collected(), "2"));
    assertEquals((await host.files.status(METRICS_FILE))?.mode, 0o644);
    assertEquals(await host.files.status(TEXTFILE), undefined);

    await eventually(() => Promise.resolve(assertEquals(clock.pending, 1)));
    await task.stop();

    assertEquals(await host.files.status(METRICS_FILE), undefined);
    assertEquals(clock.pending, 0);
  });
});

Deno.test("where the node exporter has its folder, it gets them too", async () => {
  await writing(async ({ host, clock }, start) => {
    await host.files.makeDirectory("/var/lib/prometheus/node-exporter", 0o755);
    const task = start(() => Promise.resolve(state()));
    await clock.pass(1_000);
    await eventually(async () => {
      assert(parseMetrics(await host.files.readText(TEXTFILE) ?? "").has("tnblock_up"));
    });
    await task.stop();
    assertEquals(await host.files.list("/var/lib/prometheus/node-exporter"), []);
  });
});

Deno.test("a failure to write is told once, and the next time it is tried again", async () => {
  await writing(async ({ host, clock, log }, start) => {
    let isFailing = true;
    const task = start(() =>
      isFailing ? Promise.reject(new Error("no figures")) : Promise.resolve(state())
    );
    await clock.pass(1_000);
    for (let round = 0; round < 3; round++) {
      await eventually(() => Promise.resolve(assertEquals(clock.pending, 1)));
      await clock.pass(15_000);
    }
    await eventually(() => Promise.resolve(assertEquals(clock.pending, 1)));
    assertEquals(log, ["warning: the metrics are not written: no figures"]);
    isFailing = false;
    await clock.pass(15_000);
    await eventually(async () => {
      assert((await host.files.readText(METRICS_FILE))?.includes("tnblock_up 1") === true);
    });
    await task.stop();
  });
});

Deno.test("a running daemon writes what Prometheus can read, and no key", async () => {
  await using place = await Place.start("iscsi");
  await writeStorageCfg(place);
  await using daemon = await statusDaemon(place, { metricsPeriodMs: 20 });
  await daemon.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });

  await eventually(async () => {
    const text = await daemon.host.files.readText(METRICS_FILE) ?? "";
    const families = parseMetrics(text);
    assertEquals(valuesOf(families, "tnblock_requests_total")["method=alloc_image"], 1);
    assertEquals(valuesOf(families, "tnblock_array_up"), {
      [`array=${place.simulator.ready.host}`]: 1,
    });
    assertEquals(valuesOf(families, "tnblock_portals_configured"), { "storage=san": 2 });
    assert(!text.includes(place.simulator.ready.apiKey));
  });
});

Deno.test("a portal that nobody has looked at yet raises no alert", () => {
  const portals = [portal("10.0.0.1:4420"), portal("10.0.0.2:4420", { state: "unseen" })];
  const families = parsed({ storages: [storage({ portals })] });
  assertEquals(valuesOf(families, "tnblock_portal_up"), {
    "storage=san portal=10.0.0.1:4420": 1,
  });
  assertEquals(valuesOf(families, "tnblock_portals_configured"), { "storage=san": 2 });
});
