/** What a base is spared, and that nothing else gets the name of one. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { arrayState } from "../support/array_state.ts";
import { both } from "../support/both.ts";
import type { Place } from "../support/place.ts";

const makeBase = async (place: Place): Promise<string> =>
  await place.must("create_base", { volname: await place.alloc() });

/** Asks in vain; the array is left as it was. */
async function refused(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<{ readonly code: string; readonly message: string }> {
  const before = await arrayState(place);
  const { error } = await place.ask(method, args);
  assertEquals([method, await arrayState(place)], [method, before]);
  if (error === undefined) throw new Error(`${method} was not refused`);
  assertMatch(error.message, /^Cannot [^\n]*[^.\n]$/);
  return error;
}

for (
  const [what, method, args] of [
    ["grown", "volume_resize", { size: 128 << 20, running: 0 }],
    ["taken a snapshot of", "volume_snapshot", { snapshot: "s" }],
    ["rolled back to what makes it one", "volume_snapshot_rollback", { snapshot: "__base__" }],
    ["rolled back to an older snapshot", "volume_snapshot_rollback", { snapshot: "old" }],
    ["promised a rollback", "volume_rollback_is_possible", { snapshot: "__base__" }],
    ["bereft of what makes it one", "volume_snapshot_delete", { snapshot: "__base__" }],
  ] as const
) {
  both(`a base is not ${what}, with linked clones or without`, async (place) => {
    const disk = await place.alloc();
    await place.must("volume_snapshot", { volname: disk, snapshot: "old" });
    const volname = await place.must("create_base", { volname: disk });
    const again = await refused(place, method, { volname, ...args });
    assertEquals(again.code, "unsupported");
    assertStringIncludes(again.message, '"base-100-disk-0"');
    const clone = await place.must("clone_image", { volname, vmid: 101 });
    assertEquals((await refused(place, method, { volname, ...args })).code, "unsupported");
    await place.must("activate_volume", { volname: clone });
  });
}

both("a base without linked clones is freed with its snapshot", async (place) => {
  const volname = await makeBase(place);
  await place.must("free_image", { volname, isBase: 1, finish: true });
  const { zvols, snapshots } = await place.objects();
  assertEquals([zvols, snapshots], [[], []]);
  // As PVE may ask of a guest whose disk is gone.
  await place.must("volume_snapshot_delete", { volname, snapshot: "__base__" });
});

both("an older snapshot of a base can go", async (place) => {
  const disk = await place.alloc();
  await place.must("volume_snapshot", { volname: disk, snapshot: "old" });
  const volname = await place.must("create_base", { volname: disk });
  await place.must("volume_snapshot_delete", { volname, snapshot: "old" });
  assertEquals((await place.objects()).snapshots?.length, 1);
});

both("a linked clone grows, has snapshots and is rolled back as any disk", async (place) => {
  const base = await makeBase(place);
  const volname = await place.must("clone_image", { volname: base, vmid: 101 });
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  await place.must("volume_snapshot", { volname, snapshot: "s" });
  await place.must("volume_snapshot_rollback", { volname, snapshot: "s" });
  await place.must("volume_snapshot_delete", { volname, snapshot: "s" });
});

both("a base's name is neither allocated nor imported", async (place) => {
  const name = "base-100-disk-0";
  const alloc = { vmid: 100, format: "raw", name, sizeKiB: 1024 };
  assertEquals((await refused(place, "alloc_image", alloc)).code, "invalid");
  const imported = { vmid: 100, name, size: 1 << 20 };
  assertEquals((await refused(place, "volume_import_prepare", imported)).code, "invalid");
});

both("a disk is renamed to no base's name, and a base to no disk's", async (place) => {
  const base = await makeBase(place);
  const disk = await place.alloc(101);
  for (
    const [volname, targetName] of [
      [disk, "base-200-disk-0"],
      [disk, "vm-200-cloudinit"],
      [base, "vm-200-disk-0"],
    ]
  ) {
    const args = { volname, targetVmid: 200, targetName };
    assertEquals((await refused(place, "rename_volume", args)).code, "invalid");
  }
});
