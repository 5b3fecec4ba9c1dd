/** Many allocations at once from three nodes, under a lock that behaves as PVE's. */
import { allocateBare, withSession } from "../raw.ts";
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { Shim, type Task } from "../shim.ts";
import { Stage, type TransportKind } from "../stage.ts";
import { mean, median, quantile } from "../statistics.ts";

const NODES = ["pve1", "pve2", "pve3"] as const;
const LOCK_TIMEOUT_S = 600;
/** Before and again after a burst. */
const BARE_RUNS = 8;
/** Until all processes of a burst are there. */
const START_S = 1;

interface BurstPlan {
  readonly transport: TransportKind;
  readonly count: number;
  /** Seconds to get the lock; the default of the option when absent. */
  readonly lockTimeout?: number;
}

const PLANS: readonly BurstPlan[] = [
  { transport: "iscsi", count: 25 },
  { transport: "nvme-tcp", count: 25 },
  { transport: "nvme-tcp", count: 100, lockTimeout: LOCK_TIMEOUT_S },
];

export const bursts: Section = {
  title: `allocations at once from ${NODES.length} nodes, below PVE's lock`,
  measure: async ({ binary, quick }) => {
    const rows: Measured[] = [];
    for (const plan of PLANS) {
      if (quick && plan.count > 25) continue;
      rows.push(...await burstOf(binary, plan));
    }
    return rows;
  },
};

async function burstOf(binary: string, plan: BurstPlan): Promise<Measured[]> {
  const { transport, count, lockTimeout } = plan;
  await using stage = await Stage.start({
    binary,
    transport,
    nodes: NODES,
    ...(lockTimeout === undefined ? {} : { config: { "tnb-lock-timeout": lockTimeout } }),
  });
  await stage.startDaemons();
  const locks = `${stage.directory}/locks`;
  await Deno.mkdir(locks);
  const volume = [900, "raw", null, 65536] as const;
  const shims = await Promise.all(NODES.map((node) => Shim.start(stage, node)));
  try {
    for (const shim of shims) await shim.call(["activate_storage"]);
    // The first allocation also makes the target's weight.
    await shims[0]?.call(["alloc_image", ...volume]);
    // A write costs more the more is exported: half of the bare ones come before, half after.
    const before = await bareTimes(stage, 0);
    const at = Date.now() / 1000 + START_S;
    const done = await Promise.all(shims.map((shim, index) => {
      const own = Math.floor((count + NODES.length - 1 - index) / NODES.length);
      return shim.burst(own, locks, at, volume);
    }));
    const after = await bareTimes(stage, BARE_RUNS);
    const tasks = done.flatMap((burst) => burst.tasks);
    const totalS = Math.max(...done.map(({ endedAt }) => endedAt)) - at;
    const bareMs = mean([...before, ...after]);
    return rowsOf(plan, { tasks, totalS, bareMs });
  } finally {
    for (const shim of shims) await shim[Symbol.asyncDispose]();
  }
}

interface Outcome {
  readonly tasks: readonly Task[];
  readonly totalS: number;
  /** What the bare writes of one allocation take. */
  readonly bareMs: number;
}

/** Times of allocations by the bare writes, one after the other. */
function bareTimes(stage: Stage, first: number): Promise<number[]> {
  return withSession(stage, async (session) => {
    const times = [];
    for (let run = first; run < first + BARE_RUNS; run++) {
      times.push(await allocateBare(session, stage, run));
    }
    return times;
  });
}

function rowsOf({ transport, count, lockTimeout }: BurstPlan, outcome: Outcome): Measured[] {
  const { tasks, totalS, bareMs } = outcome;
  const limitS = bareMs * count / 1000;
  const name = `${transport}, ${count}`;
  const failed = tasks.filter(({ volname }) => volname === undefined);
  const names = new Set(tasks.map(({ volname }) => volname));
  const missing = count - names.size;
  const [error] = failed;
  const waits = tasks.flatMap(({ waitMs }) => waitMs === undefined ? [] : [waitMs]);
  const holds = tasks.flatMap(({ holdMs }) => holdMs === undefined ? [] : [holdMs]);
  return [
    {
      what: `${name}: failed`,
      value: Math.max(failed.length, missing),
      unit: "failed",
      target: 0,
      note: error?.error?.trim() ??
        (lockTimeout === undefined
          ? "with the default time to get the lock"
          : `with ${lockTimeout} s to get the lock`),
    },
    {
      what: `${name}: all of it / the bare writes one after the other`,
      value: totalS / limitS,
      unit: "x",
      note: `${totalS.toFixed(1)} s against ${limitS.toFixed(1)} s`,
    },
    {
      what: `${name}: wait for the lock`,
      value: median(waits) / 1000,
      unit: "s",
      note: `median; longest ${(quantile(waits, 1) / 1000).toFixed(1)} s; PVE asks once a second`,
    },
    {
      what: `${name}: lock held`,
      value: median(holds),
      unit: "ms",
      note: `median; longest ${quantile(holds, 1).toFixed(0)} ms`,
    },
    {
      what: `${name}: lock held beyond the bare writes`,
      value: mean(holds) - bareMs,
      unit: "ms",
      target: 20,
      note: `mean of all; ${mean(holds).toFixed(0)} ms against ${bareMs.toFixed(0)} ms`,
    },
  ];
}
