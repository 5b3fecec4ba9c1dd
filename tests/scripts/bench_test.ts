import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { between, pausesMs } from "../../scripts/bench/daemon_calls.ts";
import { parseOptions } from "../../scripts/bench/options.ts";
import { renderPlot } from "../../scripts/bench/plot.ts";
import { renderTable } from "../../scripts/bench/render.ts";
import { rowOf, shown } from "../../scripts/bench/row.ts";
import { dataCalls } from "../../scripts/bench/sections/lists.ts";
import { isWrite, Stage } from "../../scripts/bench/stage.ts";
import { mean, median, quantile, range } from "../../scripts/bench/statistics.ts";
import { inTurn, within } from "../../scripts/bench/timing.ts";

const DEFAULTS = { binary: "/b", plot: "/p" };

Deno.test("the bench's options say what is measured and where the plot goes", () => {
  assertEquals(parseOptions([], ["a"], DEFAULTS), {
    json: false,
    quick: false,
    only: [],
    binary: "/b",
    plot: "/p",
    isPlotGiven: false,
  });
  const options = ["-o", "json", "--quick", "--only", "a,b", "--only", "c", "--plot", "/q"];
  assertEquals(parseOptions([...options, "--binary", "/x"], ["a", "b", "c"], DEFAULTS), {
    json: true,
    quick: true,
    only: ["a", "b", "c"],
    binary: "/x",
    plot: "/q",
    isPlotGiven: true,
  });
});

Deno.test("the bench refuses an option, a section or a format that it does not know", () => {
  for (
    const [args, why] of [
      [["--fast"], "unknown option --fast"],
      [["--only", "a,z"], "--only knows a, not z"],
      [["--only"], "--only needs a value"],
      [["-o", "xml"], "-o is json or table"],
    ] as const
  ) {
    assertThrows(() => parseOptions(args, ["a"], DEFAULTS), why);
  }
});

Deno.test("a row is judged by the number that the table shows", () => {
  const judged = (value: number) => rowOf("s", { what: "w", value, unit: "x", target: 1.5 }).met;
  assertEquals([1.4, 1.5, 1.504, 1.506, 2].map(judged), [true, true, true, false, false]);
  assertEquals("met" in rowOf("s", { what: "w", value: 1, unit: "x" }), false);
});

Deno.test("a number is shown with the digits that mean something", () => {
  assertEquals([0, 3, 1.234, 12.34, 123.4, 1234].map(shown), [
    "0",
    "3",
    "1.23",
    "12.3",
    "123",
    "1234",
  ]);
});

Deno.test("the table names each section once, what missed, and how many targets were met", () => {
  const text = renderTable([
    rowOf("one", { what: "short", value: 1, unit: "ms", target: 2, note: "n" }),
    rowOf("one", { what: "longer name", value: 30, unit: "ms", target: 2 }),
    rowOf("two", { what: "told", value: 5, unit: "" }),
  ], { processors: 8, loadBefore: 0.25 });
  assertEquals(
    text,
    [
      "one",
      "  short         1 ms  ≤ 2  met     n",
      "  longer name  30 ms  ≤ 2  MISSED",
      "",
      "two",
      "  told             5",
      "",
      "1 of 2 targets met",
      "8 processors, load 0.3 before",
    ].join("\n"),
  );
});

Deno.test("the table says so when the machine was not idle", () => {
  const busy = renderTable([], { processors: 2, loadBefore: 1.5 });
  assertStringIncludes(busy, "The machine had other things to do");
});

Deno.test("median, quantile, mean and range of a few values and of none", () => {
  assertEquals(median([3, 1, 2]), 2);
  assertEquals(quantile([1, 2, 3, 4], 1), 4);
  assertEquals(quantile([4, 3, 2, 1], 0), 1);
  assertEquals(mean([1, 2, 6]), 3);
  assertEquals(range([2, 1.25]), "1.3–2.0");
  assertEquals([median([]), quantile([], 1), mean([]), range([])], [0, 0, 0, "none"]);
});

Deno.test("two things are timed in turn, and compared pair by pair", async () => {
  const order: string[] = [];
  const times = (name: string, values: number[]) => () => {
    order.push(name);
    return Promise.resolve(values.shift() ?? 0);
  };
  const { one, other, ratios } = await inTurn(2, times("a", [2, 30]), times("b", [1, 10]));
  assertEquals(order, ["a", "b", "a", "b"]);
  assertEquals({ one, other, ratios }, { one: [2, 30], other: [1, 10], ratios: [2, 3] });
});

Deno.test("what comes to nothing ends with its name", async () => {
  let message = "";
  await within(1, "the answer", new Promise(() => {})).catch((error) => message = error.message);
  assertEquals(message, "the answer took more than 0.001 s");
  assertEquals(await within(60_000, "the answer", Promise.resolve(42)), 42);
});

Deno.test("a method of the array is a write when it changes something", () => {
  const writes = [
    "pool.dataset.create",
    "pool.dataset.update",
    "zfs.resource.destroy",
    "pool.snapshot.rollback",
    "iscsi.targetextent.delete",
    "pool.dataset.rename",
  ];
  assertEquals(writes.filter((method) => !isWrite(method)), []);
  const reads = ["zfs.resource.query", "iscsi.extent.query", "core.ping", "service.started"];
  assertEquals(reads.filter(isWrite), []);
});

Deno.test("calls between two reports: refused tries are no writes, reads count as the longest", () => {
  const call = (method: string, count: number, failed: number, seconds: number) => ({
    ...{ method, count, failed, seconds },
  });
  const before = [call("pool.dataset.create", 1, 0, 0.1), call("a.query", 5, 0, 1)];
  const after = [
    call("pool.dataset.create", 2, 0, 0.15),
    call("iscsi.extent.create", 3, 2, 0.25),
    call("a.query", 5, 0, 1),
    call("b.query", 2, 0, 0.02),
    call("c.query", 1, 0, 0.005),
  ];
  const { writes, refusedWrites, writeMs, readMs } = between(before, after);
  assertEquals([writes, refusedWrites, Math.round(writeMs), Math.round(readMs)], [2, 2, 300, 10]);
});

Deno.test("pauses until a zvol's device is there are those of the product", () => {
  assertEquals([0, 1, 3].map(pausesMs), [0, 10, 85]);
});

Deno.test("the calls of a login are no calls for data", () => {
  const calls = { "auth.login_ex": 1, "core.subscribe": 2, "system.info": 1, "a.query": 3 };
  assertEquals(dataCalls({ calls }), 3);
});

Deno.test("the plot draws each series with its name, and every point within its frame", () => {
  const svg = renderPlot([
    { name: "ours <warm>", points: [{ x: 10, y: 0.4 }, { x: 10_000, y: 95 }] },
    { name: "bare", points: [{ x: 10, y: 20 }, { x: 10_000, y: 100 }] },
  ], { title: "list & more", x: "volumes", y: "ms" });
  assertStringIncludes(svg, "ours &lt;warm&gt;");
  assertStringIncludes(svg, "list &amp; more");
  const circles = [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)];
  assertEquals(circles.length, 4);
  for (const [, x, y] of circles) {
    assert(Number(x) >= 70 && Number(x) <= 560, `x ${x}`);
    assert(Number(y) >= 50 && Number(y) <= 385, `y ${y}`);
  }
  // Less is lower, more is further to the right.
  const [[, x1, y1] = [], [, x2, y2] = []] = circles;
  assert(Number(x1) < Number(x2) && Number(y1) > Number(y2));
});

Deno.test("names of lines that end together are written apart", () => {
  const points = [{ x: 10, y: 100 }, { x: 100, y: 1000 }];
  const svg = renderPlot([{ name: "one", points }, { name: "two", points }], {
    title: "t",
    x: "x",
    y: "y",
  });
  const heights = ["one", "two"].map((name) =>
    Number(new RegExp(`y="([\\d.]+)" fill="#[0-9a-f]+">${name}<`).exec(svg)?.[1])
  );
  assertEquals((heights[1] ?? 0) - (heights[0] ?? 0), 16);
});

Deno.test("a stage without a daemon: an array, two nodes of one cluster, and their storage", async () => {
  await using stage = await Stage.start({
    binary: "/usr/bin/tnblock",
    transport: "nvme-tcp",
    volumes: 3,
    nodes: ["a", "b"],
  });
  const cluster = (node: string) =>
    Deno.readTextFile(`${stage.root(node)}/etc/pve/priv/tnblock/cluster-id`);
  assertEquals(await cluster("a"), await cluster("b"));
  const cfg = await Deno.readTextFile(`${stage.root("b")}/etc/pve/storage.cfg`);
  assertStringIncludes(cfg, `tnb-subsystem-nqn ${stage.ready.subsystemNqn}\n`);
  assertEquals(cfg.includes(stage.ready.apiKey), false);
  await stage.resetStats();
  assertEquals((await stage.stats()).calls, {});
});
