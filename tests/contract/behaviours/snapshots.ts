/** Snapshots: taking, deleting, rolling back, telling, reading. */
import { assert, assertEquals } from "@std/assert";
import type { Behaviour } from "../behaviour.ts";

const DISK = "vm-A-disk-0 1M exported";
const ONE = "vm-A-disk-0@one";
const TWO = "vm-A-disk-0@two";
/** The hidden clone through which this node reads a snapshot, and the way to it. */
const READER = "reader of vm-A-disk-0@one, exported";
const READER_LINK = "vm-A-disk-0@one linked on pve1";

export const SNAPSHOTS: readonly Behaviour[] = [
  {
    row: "volume_snapshot",
    method: "volume_snapshot",
    arrange: async (stage) => ({ volname: await stage.alloc(), snapshot: "one" }),
    named: true,
    before: [DISK],
    after: [DISK, ONE],
    result: (result) => assertEquals(result, null),
    again: { refused: ["exists"] },
  },
  {
    row: "volume_snapshot_delete",
    method: "volume_snapshot_delete",
    arrange: async (stage) => ({ volname: await stage.allocWithSnapshot(), snapshot: "one" }),
    named: true,
    before: [DISK, ONE],
    after: [DISK],
    mayLeave: "finished",
    result: (result) => assertEquals(result, null),
    again: "same",
  },
  {
    row: "volume_snapshot_delete with a linked clone of it",
    method: "volume_snapshot_delete",
    arrange: async (stage) => {
      const volname = await stage.allocWithSnapshot();
      await stage.must("clone_image", { volname, vmid: stage.b, snapshot: "one" });
      return { volname, snapshot: "one" };
    },
    before: [DISK, ONE, "vm-B-disk-0 1M exported, clone of vm-A-disk-0@one"],
    refused: { codes: ["has-dependents"], says: "vm-B-disk-0" },
    again: "same",
  },
  {
    row: "volume_snapshot_rollback",
    method: "volume_snapshot_rollback",
    arrange: async (stage) => ({ volname: await stage.allocWithSnapshot(), snapshot: "one" }),
    named: true,
    before: [DISK, ONE],
    result: (result) => assertEquals(result, null),
    again: "same",
  },
  {
    row: "volume_snapshot_rollback to one that is not the newest",
    method: "volume_snapshot_rollback",
    arrange: async (stage) => {
      const volname = await stage.allocWithSnapshot();
      await stage.must("volume_snapshot", { volname, snapshot: "two" });
      return { volname, snapshot: "one" };
    },
    before: [DISK, ONE, TWO],
    refused: { codes: ["has-dependents"], says: "two" },
    again: "same",
  },
  {
    row: "volume_rollback_is_possible",
    method: "volume_rollback_is_possible",
    arrange: async (stage) => ({ volname: await stage.allocWithSnapshot(), snapshot: "one" }),
    named: true,
    before: [DISK, ONE],
    result: ({ possible, blockers }) => assertEquals([possible, blockers], [true, []]),
    again: "same",
  },
  {
    row: "volume_rollback_is_possible of one that is not the newest",
    method: "volume_rollback_is_possible",
    arrange: async (stage) => {
      const volname = await stage.allocWithSnapshot();
      await stage.must("volume_snapshot", { volname, snapshot: "two" });
      return { volname, snapshot: "one" };
    },
    before: [DISK, ONE, TWO],
    result: ({ possible, blockers }) => assertEquals([possible, blockers], [false, ["two"]]),
    again: "same",
    brief: true,
  },
  {
    row: "volume_snapshot_info",
    method: "volume_snapshot_info",
    arrange: async (stage) => ({ volname: await stage.allocWithSnapshot() }),
    named: true,
    before: [DISK, ONE],
    result: (result) => {
      assertEquals(Object.keys(result), ["one"]);
      assert(Number.isInteger(result.one.timestamp) && result.one.id !== undefined);
    },
    again: "same",
  },
  {
    row: "activate_volume of a snapshot",
    method: "activate_volume",
    arrange: async (stage) => ({ volname: await stage.allocWithSnapshot(), snapshot: "one" }),
    named: true,
    before: [DISK, ONE],
    after: [DISK, ONE, READER, READER_LINK],
    again: "same",
  },
  {
    row: "deactivate_volume of a snapshot",
    method: "deactivate_volume",
    arrange: async (stage) => {
      const volname = await stage.allocWithSnapshot();
      await stage.must("activate_volume", { volname, snapshot: "one" });
      return { volname, snapshot: "one" };
    },
    named: true,
    before: [DISK, ONE, READER, READER_LINK],
    after: [DISK, ONE],
    // It goes on where it stopped, as a free does.
    mayLeave: (lines) => lines.includes(DISK) && lines.includes(ONE) && lines.length <= 4,
    again: "same",
  },
  {
    row: "volume_snapshot_delete of one that is read here",
    method: "volume_snapshot_delete",
    arrange: async (stage) => {
      const volname = await stage.allocWithSnapshot();
      await stage.must("activate_volume", { volname, snapshot: "one" });
      return { volname, snapshot: "one" };
    },
    before: [DISK, ONE, READER, READER_LINK],
    after: [DISK],
    again: "same",
    brief: true,
  },
  {
    row: "rename_snapshot",
    method: "rename_snapshot",
    arrange: async (stage) => ({
      volname: await stage.allocWithSnapshot(),
      snapshot: "one",
      target: "two",
    }),
    before: [DISK, ONE],
    again: "same",
    unsupported: () => "PVE asks it of volume chains only",
  },
];
