/** What an allocation costs beside the array's own time. */
import { type CallsBetween, callsFor, pausesMs } from "../daemon_calls.ts";
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { Shim } from "../shim.ts";
import { Stage } from "../stage.ts";
import { median, range } from "../statistics.ts";
import { pause } from "../timing.ts";

/** The memory reads again after a write of ours; an allocation is to be measured without that. */
const QUIET_MS = 600;
interface Alloc extends CallsBetween {
  readonly ms: number;
}

export const alloc: Section = {
  title: "an allocation",
  measure: async ({ binary, quick }) => {
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      await using stage = await Stage.start({ binary, transport, volumes: 100 });
      await stage.startDaemon();
      await using shim = await Shim.start(stage);
      await shim.call(["activate_storage"]);
      const allocs: Alloc[] = [];
      // The first one also makes the target's weight.
      for (let run = 0; run < (quick ? 5 : 12); run++) {
        await pause(QUIET_MS);
        const { result, ...calls } = await callsFor(
          stage,
          () => shim.call(["alloc_image", 900, "raw", null, 65536]),
        );
        if (run > 0) allocs.push({ ms: result.ms[0] ?? 0, ...calls });
      }
      // How long the array takes to make a zvol's device is drawn by lot: the pauses for it are the array's.
      const own = allocs.map(({ ms, writeMs, readMs, refusedWrites }) =>
        ms - writeMs - readMs - pausesMs(refusedWrites)
      );
      rows.push(
        {
          what: `${transport}: wall time through the shim`,
          value: median(allocs.map(({ ms }) => ms)),
          unit: "ms",
          note: `median of ${allocs.length}; ${range(allocs.map(({ ms }) => ms))}`,
        },
        {
          what: `${transport}: own share of it`,
          value: median(own),
          unit: "ms",
          target: 15,
          note:
            "wall time less the array's, and less the pauses until the zvol's device is there; " +
            `median of ${own.length}; ${range(own)}`,
        },
      );
    }
    return rows;
  },
};
