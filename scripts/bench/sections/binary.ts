/** The program itself: its size, its start, and what its daemon holds in memory. */
import { scratchBase } from "../../../tests/support/scratch.ts";
import type { Measured } from "../row.ts";
import type { Section, SectionContext } from "../section.ts";
import { Stage } from "../stage.ts";
import { median, range } from "../statistics.ts";
import { pause } from "../timing.ts";

const TIMER = new URL("../start_to_exit.pl", import.meta.url).pathname;
const MIB = 1 << 20;
/** Longer than a memory's reads and a garbage collection after the start. */
const IDLE_MS = 6_000;

/** A request that needs neither array nor node. */
const PATH = JSON.stringify({
  protocol: 1,
  id: 1,
  method: "path",
  storage: "san",
  args: { volname: "vol-vm-1-disk-0-lun1" },
});

export const binary: Section = {
  title: "the program",
  measure: async ({ binary, quick }) => {
    const runs = quick ? 7 : 31;
    const version = await startToExit(binary, ["version"], "", runs);
    const hook = await startToExit(binary, ["hook"], `${PATH}\n`, runs);
    const note = (times: readonly number[]) => `median of ${runs}; ${range(times)}`;
    return [
      { what: "size of the file", value: (await Deno.stat(binary)).size / MIB, unit: "MiB" },
      {
        what: "start to exit of version",
        value: median(version),
        unit: "ms",
        target: 30,
        note: note(version),
      },
      {
        what: "start to exit of a hook request",
        value: median(hook),
        unit: "ms",
        note: `path; ${note(hook)}`,
      },
      ...await idleDaemon({ binary, quick }),
    ];
  },
};

async function startToExit(
  program: string,
  args: readonly string[],
  input: string,
  runs: number,
): Promise<number[]> {
  const file = await Deno.makeTempFile({ dir: scratchBase(), prefix: "tnblock-bench-" });
  await Deno.writeTextFile(file, input);
  const { stdout } = await new Deno.Command("/usr/bin/perl", {
    // The first run brings the file into memory.
    args: [TIMER, String(runs + 1), file, program, ...args],
    stdin: "null",
    stderr: "inherit",
  }).output();
  await Deno.remove(file);
  return new TextDecoder().decode(stdout).trim().split("\n").slice(1).map(Number);
}

async function idleDaemon(
  { binary, quick }: Pick<SectionContext, "binary" | "quick">,
): Promise<Measured[]> {
  const rows: Measured[] = [];
  for (const volumes of quick ? [100] : [100, 1_000]) {
    await using stage = await Stage.start({ binary, transport: "iscsi", volumes });
    await stage.startDaemon();
    await stage.ask("list_images");
    await pause(quick ? 1_000 : IDLE_MS);
    const { daemon } = await stage.daemonStatus();
    const { resident, peak } = await memoryOf(daemon.pid);
    rows.push({
      what: `resident memory of an idle daemon, ${volumes} volumes`,
      value: resident,
      unit: "MiB",
      target: 80,
      note: `at most ${peak.toFixed(0)} MiB since its start`,
    });
  }
  return rows;
}

/** In MiB. */
async function memoryOf(
  pid: number,
): Promise<{ readonly resident: number; readonly peak: number }> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  // VmHWM:	   91460 kB
  const read = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
  return { resident: read("VmRSS"), peak: read("VmHWM") };
}
