/** Making a volume, attaching it, and removing it. */
import { assertEquals } from "@std/assert";
import type { Behaviour } from "../behaviour.ts";

const DISK = "vm-A-disk-0 1M exported";
const LINK = "vm-A-disk-0 linked on pve1";

/** A free that stopped goes on: its volume may be there in part, and nothing else. */
const isPartOfDisk = (lines: readonly string[]) =>
  lines.every((line) => line.startsWith("vm-A-disk-0"));

export const LIFE: readonly Behaviour[] = [
  {
    row: "alloc_image",
    method: "alloc_image",
    arrange: ({ a }) => ({ vmid: a, format: "raw", name: null, sizeKiB: 1024 }),
    before: [],
    after: [DISK],
    result: (volname, stage) => assertEquals(volname, stage.volname("vm-A-disk-0")),
    again: { holds: [DISK, "vm-A-disk-1 1M exported"] },
  },
  {
    row: "alloc_image with a name",
    method: "alloc_image",
    arrange: ({ a }) => ({ vmid: a, format: "raw", name: `vm-${a}-state-one`, sizeKiB: 1024 }),
    before: [],
    after: ["vm-A-state-one 1M exported"],
    result: (volname, stage) => assertEquals(volname, stage.volname("vm-A-state-one")),
    again: { refused: ["exists"] },
  },
  {
    row: "alloc_image of cloud-init",
    method: "alloc_image",
    arrange: ({ a }) => ({ vmid: a, format: "raw", name: `vm-${a}-cloudinit`, sizeKiB: 4096 }),
    before: [],
    after: ["vm-A-cloudinit 4M exported"],
    result: (volname, stage) => assertEquals(volname, stage.named("vm-A-cloudinit")),
    again: "same",
  },
  {
    row: "alloc_image as qcow2",
    method: "alloc_image",
    arrange: ({ a }) => ({ vmid: a, format: "qcow2", name: null, sizeKiB: 1024 }),
    before: [],
    again: "same",
    unsupported: () => "there is only raw",
  },
  {
    row: "activate_volume",
    method: "activate_volume",
    arrange: async (stage) => ({ volname: await stage.alloc() }),
    named: true,
    before: [DISK],
    after: [DISK, LINK],
    result: (result) => assertEquals(result, null),
    again: "same",
  },
  {
    row: "deactivate_volume",
    method: "deactivate_volume",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("activate_volume", { volname });
      return { volname };
    },
    named: true,
    before: [DISK, LINK],
    after: [DISK],
    again: "same",
  },
  {
    row: "free_image",
    method: "free_image",
    arrange: async (stage) => ({ volname: await stage.alloc(), isBase: 0, finish: true }),
    named: true,
    before: [DISK],
    after: [],
    mayLeave: isPartOfDisk,
    result: (result) => assertEquals(result, null),
    again: "same",
  },
  {
    row: "free_image of an attached volume",
    method: "free_image",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      await stage.must("activate_volume", { volname });
      return { volname, isBase: 0, finish: true };
    },
    before: [DISK, LINK],
    after: [],
    again: "same",
    brief: true,
  },
  {
    row: "free_image_finish",
    method: "free_image_finish",
    arrange: async (stage) => {
      const volname = await stage.alloc();
      return { token: (await stage.must("free_image", { volname, isBase: 0 })).token };
    },
    before: [DISK],
    after: [],
    mayLeave: isPartOfDisk,
    result: (result) => assertEquals(result, null),
    again: "same",
  },
];
