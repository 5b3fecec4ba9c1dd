import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { planSize } from "../../src/volumes/size.ts";

const KiB = 1024;
const GiB = 1024 ** 3;

Deno.test("EFI variables of 528 KiB keep their size at the default block size", () => {
  assertEquals(planSize(528, 16 * KiB, 512), {
    size: 528 * KiB,
    blockSize: 16 * KiB,
    note: undefined,
  });
});

Deno.test("EFI variables keep their size under 64 KiB blocks, and the block size steps down", () => {
  const plan = planSize(528, 64 * KiB, 512);
  assertEquals([plan.size, plan.blockSize], [528 * KiB, 16 * KiB]);
  assert(plan.note?.includes("block size 16384 instead of 65536"));
});

Deno.test("a large size that is no multiple is rounded up, and the block size stays", () => {
  const plan = planSize(10 * GiB / KiB + 4, 16 * KiB, 512);
  assertEquals([plan.size, plan.blockSize], [10 * GiB + 16 * KiB, 16 * KiB]);
  assert(plan.note !== undefined);
});

Deno.test("a fraction of a KiB is rounded up to whole sectors", () => {
  assertEquals(planSize(0.25, 16 * KiB, 512).size, 512);
  assertEquals(planSize(1.1, 16 * KiB, 512).size, 1536);
});

Deno.test("4096-byte extents never get a smaller block or an odd size", () => {
  const plan = planSize(513, 64 * KiB, 4096);
  assertEquals([plan.size % 4096, plan.blockSize], [0, 4096]);
});

for (const bad of [0, -1, NaN, Infinity, 2 ** 60]) {
  Deno.test(`a size of ${bad} KiB is refused`, () => {
    assertThrows(() => planSize(bad, 16 * KiB, 512), "Cannot make a volume");
  });
}

Deno.test("every plan holds what was asked for, in whole blocks, with less than one block or sector to spare", () => {
  const sizes = fc.double({ min: 0.001, max: 1e9, noNaN: true });
  const blocks = fc.constantFrom(512, 4096, 8192, 16384, 65536, 131072);
  fc.assert(fc.property(sizes, blocks, fc.constantFrom(512, 4096), (sizeKiB, blockSize, sector) => {
    const plan = planSize(sizeKiB, Math.max(blockSize, sector), sector);
    const asked = Math.ceil(sizeKiB * 1024);
    assert(plan.size >= asked && plan.size % plan.blockSize === 0 && plan.blockSize >= sector);
    assert(plan.size - asked < Math.max(plan.blockSize, sector));
  }));
});
