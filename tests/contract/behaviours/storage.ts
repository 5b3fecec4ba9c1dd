/** Verbs about the storage as a whole, and reading what it holds. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Behaviour } from "../behaviour.ts";

const DISK = ["vm-A-disk-0 1M exported"];

export const STORAGE: readonly Behaviour[] = [
  {
    row: "check_connection",
    method: "check_connection",
    arrange: () => ({}),
    before: [],
    result: (result) => assertEquals(result, true),
    again: "same",
  },
  {
    row: "activate_storage",
    method: "activate_storage",
    arrange: () => ({}),
    before: [],
    again: "same",
  },
  {
    row: "deactivate_storage",
    method: "deactivate_storage",
    arrange: () => ({}),
    before: [],
    again: "same",
  },
  {
    row: "validate_storage",
    method: "validate_storage",
    arrange: () => ({}),
    before: [],
    result: (result) => assertEquals(result, null),
    again: "same",
  },
  {
    row: "status",
    method: "status",
    arrange: () => ({}),
    before: [],
    result: ({ total, available, used, active }) => {
      assert([total, available, used].every(Number.isSafeInteger));
      assert(total > 0 && available > 0 && available <= total);
      assertEquals(active, 1);
    },
    again: "same",
  },
  {
    row: "get_identity",
    method: "get_identity",
    arrange: () => ({}),
    before: [],
    result: (result) => assertMatch(String(result), /\S/),
    again: "same",
  },
  {
    row: "list_images",
    method: "list_images",
    arrange: async (stage) => {
      await stage.alloc();
      return { vmid: stage.a };
    },
    before: DISK,
    result: ([row, ...more], stage) => {
      assertEquals(more, []);
      const { ctime, ...rest } = row;
      assert(Number.isInteger(ctime));
      assertEquals(rest, {
        volid: `san:${stage.volname("vm-A-disk-0")}`,
        size: 1 << 20,
        format: "raw",
        vmid: stage.a,
      });
    },
    again: "same",
  },
  {
    row: "volume_size_info",
    method: "volume_size_info",
    arrange: async (stage) => ({ volname: await stage.alloc() }),
    named: true,
    before: DISK,
    result: ({ size, format, parent }) =>
      assertEquals({ size, format, parent }, { size: 1 << 20, format: "raw", parent: null }),
    again: "same",
  },
  {
    row: "path",
    method: "path",
    arrange: async (stage) => ({ volname: await stage.alloc() }),
    before: DISK,
    result: (result, stage) =>
      assertEquals(result, {
        path: stage.named("/dev/tnblock/san/vm-A-disk-0"),
        vmid: stage.a,
        vtype: "images",
      }),
    again: "same",
  },
  {
    row: "path of a snapshot",
    method: "path",
    arrange: async (stage) => ({ volname: await stage.alloc(), snapshot: "one" }),
    before: DISK,
    result: ({ path }, stage) =>
      assertEquals(path, stage.named("/dev/tnblock/san/vm-A-disk-0@one")),
    again: "same",
  },
];
