/** Activating many disks of a guest against one. */
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { type Call, Shim } from "../shim.ts";
import { Stage } from "../stage.ts";
import { median } from "../statistics.ts";
import { timed } from "../timing.ts";

const DISKS = 20;
const SINGLES = 5;

export const activate: Section = {
  title: "activating a guest's disks",
  measure: async ({ binary }) => {
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      const volumes = 2 * DISKS + SINGLES + 1;
      await using stage = await Stage.start({ binary, transport, volumes });
      await stage.startDaemon();
      await using shim = await Shim.start(stage);
      await shim.call(["activate_storage"]);
      const { result } = await stage.ask("list_images");
      const names = (result as { readonly volid: string }[])
        .map(({ volid }) => volid.replace(/^san:/, ""));
      const calls = (from: number, to: number) =>
        names.slice(from, to).map((name): Call => ["activate_volume", name]);
      const [warmUp = ["status"]] = calls(volumes - 1, volumes);
      await shim.call(warmUp);
      const one: number[] = [];
      for (const call of calls(2 * DISKS, 2 * DISKS + SINGLES)) {
        one.push((await shim.call(call)).ms[0] ?? 0);
      }
      const [together = 0] = await timed(1, () =>
        Promise.all(
          names.slice(0, DISKS).map((volname) => stage.ask("activate_volume", { volname })),
        ));
      const inOrder = await shim.together(calls(DISKS, 2 * DISKS));
      const single = median(one);
      rows.push(
        {
          what: `${transport}: one disk, for the first time`,
          value: single,
          unit: "ms",
          note: `through the shim; median of ${SINGLES}`,
        },
        {
          what: `${transport}: ${DISKS} disks at once / one`,
          value: together / single,
          unit: "x",
          target: 1.5,
          note: `${together.toFixed(0)} ms`,
        },
        {
          what: `${transport}: ${DISKS} disks one after the other, as PVE does / one`,
          value: inOrder / single,
          unit: "x",
          note: `${inOrder.toFixed(0)} ms`,
        },
      );
    }
    return rows;
  },
};
