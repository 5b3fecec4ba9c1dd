/** Templates, linked clones and new names; each keeps the disk's number or uuid. */
import { assertEquals } from "@std/assert";
import type { Behaviour } from "../behaviour.ts";
import type { Column } from "../column.ts";

const DISK = "vm-A-disk-0 1M exported";
const BASE = "base-A-disk-0 1M exported";
const OF_BASE = "base-A-disk-0@__base__";
const CLONE = "vm-B-disk-0 1M exported, clone of base-A-disk-0@__base__";
const ONE = "vm-A-disk-0@one";

/** `truenas-api.md` 4.3: no method of 25.04 renames a zvol. */
const noRename = ({ release }: Column) =>
  release === "25.04" ? "TrueNAS 25.04 renames no zvol" : undefined;
const noBases = (column: Column) => noRename(column) !== undefined;

export const CLONES: readonly Behaviour[] = [
  {
    row: "create_base",
    method: "create_base",
    arrange: async (stage) => ({ volname: await stage.alloc() }),
    named: true,
    before: [DISK],
    after: [BASE, OF_BASE],
    result: (volname, stage) => assertEquals(volname, stage.volname("base-A-disk-0")),
    again: "same",
    unsupported: noRename,
  },
  {
    row: "clone_image of a base",
    method: "clone_image",
    arrange: async (stage) => ({ volname: await stage.base(), vmid: stage.b }),
    named: true,
    before: [BASE, OF_BASE],
    after: [BASE, OF_BASE, CLONE],
    result: (volname, stage) =>
      assertEquals(volname, `${stage.volname("base-A-disk-0")}/${stage.volname("vm-B-disk-0")}`),
    again: { holds: [BASE, OF_BASE, CLONE, CLONE.replace("disk-0", "disk-1")] },
    absent: noBases,
  },
  {
    row: "clone_image of a snapshot",
    method: "clone_image",
    arrange: async (stage) => ({
      volname: await stage.allocWithSnapshot(),
      vmid: stage.b,
      snapshot: "one",
    }),
    named: true,
    before: [DISK, ONE],
    after: [DISK, ONE, "vm-B-disk-0 1M exported, clone of vm-A-disk-0@one"],
    result: (volname, stage) => assertEquals(volname, stage.volname("vm-B-disk-0")),
    again: {
      holds: [
        DISK,
        ONE,
        "vm-B-disk-0 1M exported, clone of vm-A-disk-0@one",
        "vm-B-disk-1 1M exported, clone of vm-A-disk-0@one",
      ],
    },
  },
  {
    row: "free_image of a linked clone",
    method: "free_image",
    arrange: async (stage) => {
      const volname = await stage.base();
      const clone = await stage.must("clone_image", { volname, vmid: stage.b });
      return { volname: clone, isBase: 0, finish: true };
    },
    before: [BASE, OF_BASE, CLONE],
    after: [BASE, OF_BASE],
    again: "same",
    brief: true,
    absent: noBases,
  },
  {
    row: "free_image of a base with a clone",
    method: "free_image",
    arrange: async (stage) => {
      const volname = await stage.base();
      await stage.must("clone_image", { volname, vmid: stage.b });
      return { volname, isBase: 1, finish: true };
    },
    before: [BASE, OF_BASE, CLONE],
    refused: { codes: ["has-dependents"], says: "vm-B-disk-0" },
    again: "same",
    absent: noBases,
  },
  {
    row: "free_image of a base",
    method: "free_image",
    arrange: async (stage) => ({ volname: await stage.base(), isBase: 1, finish: true }),
    before: [BASE, OF_BASE],
    after: [],
    mayLeave: (lines) => lines.every((line) => line.startsWith("base-A-disk-0")),
    again: "same",
    absent: noBases,
  },
  {
    row: "rename_volume",
    method: "rename_volume",
    arrange: async (stage) => ({ volname: await stage.alloc(), targetVmid: stage.b }),
    named: true,
    before: [DISK],
    after: ["vm-B-disk-0 1M exported"],
    result: (volname, stage) => assertEquals(volname, stage.volname("vm-B-disk-0")),
    again: "same",
    unsupported: noRename,
  },
  {
    row: "rename_volume to a name",
    method: "rename_volume",
    arrange: async (stage) => ({
      volname: await stage.allocWithSnapshot(),
      targetVmid: stage.b,
      targetName: `vm-${stage.b}-disk-7`,
    }),
    before: [DISK, ONE],
    after: ["vm-B-disk-7 1M exported", "vm-B-disk-7@one"],
    result: (volname, stage) => assertEquals(volname, stage.volname("vm-B-disk-7")),
    again: "same",
    unsupported: noRename,
  },
];
