/**
 * `deno task bench`: what tnblock costs. The built program, its daemon and the shim are measured against the
 * simulator with its `lan` latency profile; a ratio compares with the bare API calls of the same run. Prints a
 * table, or JSON with `-o json`, and draws docs/bench.svg. It judges by the numbers of design.md section 5, and
 * asserts nothing.
 *
 *     deno task build && deno task bench [-o json] [--quick] [--only SECTION,...] [--binary FILE] [--plot FILE]
 */
import { parseOptions } from "./bench/options.ts";
import { type Point, renderPlot, type Series } from "./bench/plot.ts";
import { renderTable } from "./bench/render.ts";
import { type Row, rowOf } from "./bench/row.ts";
import type { Section } from "./bench/section.ts";
import { activate } from "./bench/sections/activate.ts";
import { alloc } from "./bench/sections/alloc.ts";
import { answers } from "./bench/sections/answers.ts";
import { binary } from "./bench/sections/binary.ts";
import { bursts } from "./bench/sections/bursts.ts";
import { cluster } from "./bench/sections/cluster.ts";
import { lists } from "./bench/sections/lists.ts";
import { queue } from "./bench/sections/queue.ts";
import { Stage } from "./bench/stage.ts";
import { verbs } from "./bench/sections/verbs.ts";

const SECTIONS: Readonly<Record<string, Section>> = {
  binary,
  answers,
  lists,
  activate,
  verbs,
  alloc,
  queue,
  bursts,
  cluster,
};

const here = (path: string) => new URL(path, import.meta.url).pathname;

async function main(args: readonly string[]): Promise<void> {
  const options = parseOptions(args, Object.keys(SECTIONS), {
    binary: here("../dist/tnblock"),
    plot: here("../docs/bench.svg"),
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      Stage.strikeAll();
      Deno.exit(1);
    });
  }
  await Deno.stat(options.binary).catch(() => {
    throw new Error(`there is no ${options.binary}: run deno task build`);
  });
  const machine = { processors: navigator.hardwareConcurrency, loadBefore: Deno.loadavg()[0] ?? 0 };
  const rows: Row[] = [];
  const series = new Map<string, Point[]>();
  const plot = (name: string, point: Point) =>
    series.set(name, [...(series.get(name) ?? []), point]);
  for (const [name, section] of Object.entries(SECTIONS)) {
    if (options.only.length > 0 && !options.only.includes(name)) continue;
    const start = performance.now();
    const measured = await section.measure({ ...options, plot });
    rows.push(...measured.map((one) => rowOf(section.title, one)));
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.error(`${name}: ${measured.length} values after ${seconds} s`);
  }
  // A quick run is not worth keeping, unless somebody says where.
  if (series.size > 0 && (!options.quick || options.isPlotGiven)) {
    const lines: Series[] = [...series].map(([name, points]) => ({ name, points }));
    await Deno.writeTextFile(
      options.plot,
      renderPlot(lines, {
        title: "list_images over iSCSI: less is better",
        x: "volumes",
        y: "milliseconds",
      }),
    );
  }
  console.log(
    options.json
      ? JSON.stringify({ schemaVersion: 1, machine, rows }, null, 2)
      : renderTable(rows, machine),
  );
}

if (import.meta.main) await main(Deno.args);
