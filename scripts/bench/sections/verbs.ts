/** The verbs that change a volume: how many writes each costs the array, and how long it takes in all. */
import { callsFor } from "../daemon_calls.ts";
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { Stage, type TransportKind } from "../stage.ts";

const SIZE_KIB = 65536;
const GROWN_BYTES = 128 << 20;
/** The number of snapshots must make no difference to a free. */
const SNAPSHOTS = 5;

/** Writes of the verbs that make and remove exports. */
const EXPORTING: Readonly<Record<TransportKind, number>> = { "iscsi": 3, "nvme-tcp": 2 };

export const verbs: Section = {
  title: "array writes of each verb",
  measure: async ({ binary }) => {
    const rows: Measured[] = [];
    for (const transport of ["iscsi", "nvme-tcp"] as const) {
      await using stage = await Stage.start({ binary, transport, volumes: 100 });
      await stage.startDaemon();
      rows.push(...await writesOf(stage, transport));
    }
    return rows;
  },
};

async function writesOf(stage: Stage, transport: TransportKind): Promise<Measured[]> {
  const rows: Measured[] = [];
  const verb = async (
    what: string,
    target: number | undefined,
    method: string,
    args: Record<string, unknown>,
  ) => {
    const { result, writes, refusedWrites } = await callsFor(
      stage,
      () => stage.ask(method, args),
    );
    const refused = refusedWrites === 0
      ? ""
      : `; tries before the zvol's device was there: ${refusedWrites}`;
    rows.push({
      what: `${transport}: ${what}`,
      value: writes,
      unit: "writes",
      ...(target === undefined ? {} : { target }),
      note: `${result.ms.toFixed(0)} ms${refused}`,
    });
    return result.result;
  };
  const most = EXPORTING[transport];
  // Over iSCSI this makes the target's weight, once for all.
  await stage.ask("validate_storage");
  await stage.ask("activate_storage");
  const alloc = { vmid: 900, format: "raw", name: null, sizeKiB: SIZE_KIB };
  const volname = await verb("alloc", most, "alloc_image", alloc);
  await stage.ask("activate_volume", { volname });
  const snapshot = "before";
  await verb("snapshot", 1, "volume_snapshot", { volname, snapshot });
  await verb("read a snapshot", undefined, "activate_volume", { volname, snapshot });
  await verb("stop reading it", undefined, "deactivate_volume", { volname, snapshot });
  await verb("roll back", 1, "volume_snapshot_rollback", { volname, snapshot });
  await verb("delete a snapshot", 1, "volume_snapshot_delete", { volname, snapshot });
  await verb("resize", 1, "volume_resize", { volname, size: GROWN_BYTES, running: 1 });
  await stage.ask("deactivate_volume", { volname });
  const renamed = await verb("rename", 3, "rename_volume", { volname, targetVmid: 901 });
  const base = await verb("create_base", 4, "create_base", { volname: renamed });
  const clone = await verb("clone", most, "clone_image", { volname: base, vmid: 902 });
  await verb("free", most, "free_image", { volname: clone, isBase: 0, finish: true });
  const { result: other } = await stage.ask("alloc_image", alloc);
  for (let number = 0; number < SNAPSHOTS; number++) {
    await stage.ask("volume_snapshot", { volname: other, snapshot: `s${number}` });
  }
  await verb(`free with ${SNAPSHOTS} snapshots`, most, "free_image", {
    volname: other,
    isBase: 0,
    finish: true,
  });
  return rows;
}
