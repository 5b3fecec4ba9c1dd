/** Answers out of memory: what PVE asks all the time, with the array there and with it gone. */
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { type Call, Shim } from "../shim.ts";
import { type ArrayStats, Stage } from "../stage.ts";
import { median, quantile } from "../statistics.ts";
import { statusAsPerl } from "../perl_pattern.ts";
import { timed } from "../timing.ts";

/** Now and then the daemon reads on its own account: of so many windows the quietest counts. */
const WINDOWS = 3;

export const answers: Section = {
  title: "answers out of memory",
  measure: async ({ binary, quick }) => {
    const runs = quick ? 20 : 100;
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      await using stage = await Stage.start({ binary, transport, volumes: 100 });
      await stage.startDaemon();
      await using shim = await Shim.start(stage);
      await shim.call(["activate_storage"]);
      const { result } = await stage.ask("list_images");
      const [first] = result as { readonly volid: string }[];
      const volname = first?.volid.replace(/^san:/, "") ?? "";
      await shim.call(["activate_volume", volname]);

      const perCall = async (what: string, call: Call): Promise<Measured> => ({
        what: `${transport}: ${what}, array calls`,
        value: await quietest(stage, runs, () => shim.call(call, runs)),
        unit: "calls",
        target: 0,
        note: `${runs} calls, the quietest of ${WINDOWS} windows`,
      });
      rows.push(
        await perCall("status", ["status"]),
        await perCall("list_images warm", ["list_images"]),
        await perCall("activate_volume already active", ["activate_volume", volname]),
      );
      const active = await shim.call(["activate_volume", volname], runs);
      rows.push(
        time(`${transport}: activate_volume already active, through the shim`, active.ms, 5),
      );
      if (transport === "nvme-tcp") continue;
      rows.push(time("status at the daemon, array up", await status(stage, runs), 2));
      const perl = await timed(quick ? 3 : 7, () => statusAsPerl(stage));
      const shimMs = await shim.call(["status"], runs);
      rows.push({
        ...time("status through the shim", shimMs.ms),
        note: `the Perl plugin's calls take ${median(perl).toFixed(0)} ms`,
      });
      stage.array.process.kill("SIGSTOP");
      rows.push(time("status at the daemon, array paused", await status(stage, runs), 2));
      stage.array.process.kill("SIGCONT");
      stage.array.process.kill("SIGKILL");
      rows.push(time("status at the daemon, array dead", await status(stage, runs), 2));
    }
    return rows;
  },
};

async function status(stage: Stage, runs: number): Promise<number[]> {
  await timed(5, () => stage.ask("status"));
  return await timed(runs, () => stage.ask("status"));
}

function time(what: string, ms: readonly number[], target?: number): Measured {
  return {
    what,
    value: median(ms),
    unit: "ms",
    ...(target === undefined ? {} : { target }),
    note: `median of ${ms.length}; 95 % within ${quantile(ms, 0.95).toFixed(1)}`,
  };
}

/** Calls at the array for each of so many requests. */
async function quietest(stage: Stage, runs: number, work: () => Promise<unknown>): Promise<number> {
  const counts: number[] = [];
  for (let window = 0; window < WINDOWS && !counts.includes(0); window++) {
    await stage.resetStats();
    await work();
    counts.push(sum(await stage.stats()));
  }
  return Math.min(...counts) / runs;
}

function sum({ calls }: ArrayStats): number {
  return Object.values(calls).reduce((total, count) => total + count, 0);
}
