/** list_images over the number of volumes: out of memory, without a daemon, the bare queries, the Perl plugin's. */
import { listAsPerl, sizeAsPerl } from "../perl_pattern.ts";
import { listBare } from "../raw.ts";
import type { Measured } from "../row.ts";
import type { Section, SectionContext } from "../section.ts";
import { Shim } from "../shim.ts";
import { type ArrayStats, Stage, type TransportKind } from "../stage.ts";
import { median } from "../statistics.ts";
import { inTurn, timed } from "../timing.ts";

/** Milliseconds that a warm list may take, through the shim. */
const WARM_MS: Readonly<Record<number, number>> = { 1_000: 12, 10_000: 100 };

/** What any connection needs before its first question. */
const OF_THE_LOGIN = /^(auth|core|system)\./;

/** A subsystem takes no more than 1,000. */
const COUNTS: Readonly<Record<TransportKind, readonly number[]>> = {
  "iscsi": [10, 50, 100, 1_000, 10_000],
  "nvme-tcp": [100, 900],
};

export const lists: Section = {
  title: "list_images",
  measure: async (context) => {
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      for (const volumes of COUNTS[transport]) {
        if (context.quick && (volumes === 50 || volumes > 1_000)) continue;
        rows.push(...await listsOf(context, transport, volumes));
      }
    }
    return rows;
  },
};

async function listsOf(
  { binary, quick, plot }: SectionContext,
  transport: TransportKind,
  volumes: number,
): Promise<Measured[]> {
  await using stage = await Stage.start({ binary, transport, volumes });
  await using shim = await Shim.start(stage);
  const runs = quick ? 3 : volumes > 1_000 ? 5 : 9;
  const shimMs = async () => (await shim.call(["list_images"])).ms[0] ?? 0;
  const bareMs = async () => (await timed(1, () => listBare(stage)))[0] ?? 0;
  // The first of each warms up caches and compilers.
  const counted = await callsOf(stage, shimMs);
  await bareMs();
  const cold = await inTurn(runs, shimMs, bareMs);
  if (volumes <= 1_000) await listAsPerl(stage);
  const perl = await timed(volumes > 1_000 ? 1 : 3, () => listAsPerl(stage));

  await stage.startDaemon();
  const first = await shimMs();
  const warm = await shim.call(["list_images"], quick ? 5 : 21);
  const size = await shim.call(["volume_size_info", await anyVolume(stage)], 9);
  const perlSize = await timed(3, () => sizeAsPerl(stage, "vm-100-disk-0"));

  if (warm.rows !== volumes) throw new Error(`listed ${warm.rows} of ${volumes} volumes`);
  if (transport === "iscsi") {
    plot("tnblock, warm", { x: volumes, y: median(warm.ms) });
    plot("tnblock, cold", { x: volumes, y: median(cold.one) });
    plot("bare API queries", { x: volumes, y: median(cold.other) });
    plot("the Perl plugin's calls", { x: volumes, y: median(perl) });
  }
  const name = `${transport}, ${volumes} volumes`;
  const target = transport === "iscsi" ? WARM_MS[volumes] : undefined;
  return [
    {
      what: `${name}: warm, through the shim`,
      value: median(warm.ms),
      unit: "ms",
      ...(target === undefined ? {} : { target }),
      note: `1/${(median(cold.other) / median(warm.ms)).toFixed(0)} of the bare queries, ` +
        `1/${(median(perl) / median(warm.ms)).toFixed(0)} of the Perl plugin's calls; ` +
        `first of a new daemon ${first.toFixed(0)} ms`,
    },
    {
      what: `${name}: cold, array calls`,
      value: counted,
      unit: "calls",
      target: 3,
      note: "without those of the login",
    },
    {
      what: `${name}: cold / bare queries`,
      value: median(cold.ratios),
      unit: "x",
      ...(volumes === 10_000 ? { target: 1.5 } : {}),
      note: `${median(cold.one).toFixed(0)} ms with start, login and Perl against ` +
        `${median(cold.other).toFixed(0)} ms with login; the Perl plugin's calls ` +
        `${median(perl).toFixed(0)} ms`,
    },
    {
      what: `${name}: size of one volume`,
      value: median(size.ms),
      unit: "ms",
      note: `the Perl plugin's calls ${median(perlSize).toFixed(0)} ms`,
    },
  ];
}

async function anyVolume(stage: Stage): Promise<string> {
  const { result } = await stage.ask("list_images");
  const [first] = result as { readonly volid: string }[];
  return first?.volid.replace(/^san:/, "") ?? "";
}

async function callsOf(stage: Stage, work: () => Promise<unknown>): Promise<number> {
  await stage.resetStats();
  await work();
  return dataCalls(await stage.stats());
}

/** Calls that are not part of the login. */
export function dataCalls({ calls }: Pick<ArrayStats, "calls">): number {
  return Object.entries(calls)
    .filter(([method]) => !OF_THE_LOGIN.test(method))
    .reduce((sum, [, count]) => sum + count, 0);
}
