/** Reads while writes queue. */
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { Stage } from "../stage.ts";
import { median, quantile } from "../statistics.ts";
import { pause } from "../timing.ts";

const WRITES = 8;
/** Between two reads. */
const PAUSE_MS = 15;

export const queue: Section = {
  title: `reads while ${WRITES} writes queue`,
  measure: async ({ binary }) => {
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      await using stage = await Stage.start({ binary, transport, volumes: 100 });
      await stage.startDaemon();
      const volume = { vmid: 900, format: "raw", name: null, sizeKiB: 65536 };
      const { result: volname } = await stage.ask("alloc_image", volume);
      const reads = {
        "list_images, out of memory": () => stage.ask("list_images"),
        "volume_snapshot_info, from the array": () =>
          stage.ask("volume_snapshot_info", { volname }),
      };
      const times = new Map(Object.keys(reads).map((what): [string, number[]] => [what, []]));
      let isOver = false;
      const writes = Promise.all(
        Array.from({ length: WRITES }, () => stage.ask("alloc_image", volume)),
      ).finally(() => isOver = true);
      const reading = async () => {
        while (!isOver) {
          for (const [what, read] of Object.entries(reads)) {
            times.get(what)?.push((await read()).ms);
          }
          await pause(PAUSE_MS);
        }
      };
      await Promise.all([writes, reading()]);
      for (const [what, ms] of times) {
        rows.push({
          what: `${transport}: ${what}`,
          value: quantile(ms, 0.95),
          unit: "ms",
          target: 50,
          note: `95 % of ${ms.length} within that; median ${median(ms).toFixed(1)}, ` +
            `worst ${quantile(ms, 1).toFixed(1)}`,
        });
      }
    }
    return rows;
  },
};
