/** Growing a volume, moving its bytes in and out, and what is noted on it. */
import { assertEquals } from "@std/assert";
import type { Behaviour } from "../behaviour.ts";

const DISK = "vm-A-disk-0 1M exported";
const LINK = "vm-A-disk-0 linked on pve1";
const MIB = 1 << 20;

export const CONTENT: readonly Behaviour[] = [
  {
    row: "volume_resize",
    method: "volume_resize",
    arrange: async (stage) => ({ volname: await stage.alloc(), size: 2 * MIB, running: 0 }),
    named: true,
    before: [DISK],
    after: ["vm-A-disk-0 2M exported"],
    mayLeave: "finished",
    again: "same",
  },
  {
    row: "volume_resize of an attached volume",
    method: "volume_resize",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("activate_volume", { volname });
      return { volname, size: 2 * MIB, running: 1 };
    },
    before: [DISK, LINK],
    after: ["vm-A-disk-0 2M exported", LINK],
    mayLeave: "finished",
    result: async (_, stage) => {
      const disk = await Deno.stat(stage.place.linkOf(stage.volname("vm-A-disk-0")));
      assertEquals(disk.size, 2 * MIB);
    },
    again: "same",
  },
  {
    row: "volume_resize to less",
    method: "volume_resize",
    arrange: async (stage) => ({ volname: await stage.alloc(), size: MIB / 2, running: 0 }),
    before: [DISK],
    refused: { codes: ["invalid", "unsupported"], says: "vm-A-disk-0" },
    again: "same",
  },
  {
    row: "volume_export_prepare",
    method: "volume_export_prepare",
    arrange: async (stage) => ({ volname: await stage.alloc() }),
    named: true,
    before: [DISK],
    after: [DISK, LINK],
    mayLeave: "finished",
    result: ({ path }, stage) => assertEquals(path, stage.named("/dev/tnblock/san/vm-A-disk-0")),
    again: "same",
  },
  {
    row: "volume_export_finish",
    method: "volume_export_finish",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("volume_export_prepare", { volname });
      return { volname };
    },
    named: true,
    before: [DISK, LINK],
    after: [DISK],
    again: "same",
  },
  {
    row: "volume_export_abort",
    method: "volume_export_abort",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("volume_export_prepare", { volname });
      return { volname };
    },
    named: true,
    before: [DISK, LINK],
    after: [DISK],
    again: "same",
    // It lets go of the disk like volume_export_finish, in whose row stands what may go wrong.
    brief: true,
  },
  {
    row: "volume_import_prepare",
    method: "volume_import_prepare",
    arrange: ({ a }) => ({ vmid: a, name: null, size: MIB }),
    before: [],
    after: [DISK, LINK],
    result: ({ volname, path }, stage) =>
      assertEquals([volname, path], [
        stage.volname("vm-A-disk-0"),
        stage.named("/dev/tnblock/san/vm-A-disk-0"),
      ]),
    again: {
      holds: [DISK, LINK, "vm-A-disk-1 1M exported", "vm-A-disk-1 linked on pve1"],
    },
  },
  {
    row: "volume_import_finish",
    method: "volume_import_finish",
    arrange: async (stage) => {
      const made = await stage.must("volume_import_prepare", { vmid: stage.a, size: MIB });
      return { volname: made.volname };
    },
    named: true,
    before: [DISK, LINK],
    after: [DISK],
    again: "same",
  },
  {
    row: "volume_import_abort",
    method: "volume_import_abort",
    arrange: async (stage) => {
      const made = await stage.must("volume_import_prepare", { vmid: stage.a, size: MIB });
      return { volname: made.volname };
    },
    named: true,
    before: [DISK, LINK],
    after: [],
    again: "same",
    // It frees: what may go wrong on the way stands in the rows of free_image.
    brief: true,
  },
  {
    row: "get_volume_attribute",
    method: "get_volume_attribute",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("update_volume_attribute", { volname, attribute: "notes", value: "Ä b" });
      return { volname, attribute: "notes" };
    },
    named: true,
    before: [DISK],
    result: (result) => assertEquals(result, "Ä b"),
    again: "same",
  },
  {
    row: "update_volume_attribute",
    method: "update_volume_attribute",
    arrange: async (stage) => ({ volname: await stage.alloc(), attribute: "protected", value: 1 }),
    named: true,
    before: [DISK],
    mayLeave: "finished",
    result: async (_, stage) => {
      const volname = stage.volname("vm-A-disk-0");
      const value = await stage.must("get_volume_attribute", { volname, attribute: "protected" });
      assertEquals(value, 1);
    },
    again: "same",
  },
  {
    row: "update_volume_attribute of one that is not kept",
    method: "update_volume_attribute",
    arrange: async (stage) => ({ volname: await stage.alloc(), attribute: "colour", value: "red" }),
    before: [DISK],
    again: "same",
    unsupported: () => "there are only notes and protected",
  },
  {
    row: "free_image of a protected volume",
    method: "free_image",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("update_volume_attribute", { volname, attribute: "protected", value: 1 });
      return { volname, isBase: 0, finish: true };
    },
    before: [DISK],
    refused: { codes: ["denied"], says: "vm-A-disk-0" },
    again: "same",
  },
];
