/** Names that TrueNAS or ZFS would refuse for the length of their whole path. */
import { assertEquals, assertMatch } from "@std/assert";
import { arrayState, writes } from "../support/array_state.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

/** As long as `tnb-dataset` may be. */
const DATASET = `tank/${"d".repeat(135)}`;
const config = { "tnb-dataset": DATASET };

/** A name of guest 1 with which the whole path has so many characters. */
const named = (length: number) => `vm-1-${"n".repeat(length - DATASET.length - "/vm-1-".length)}`;

function both(name: string, run: (place: Place) => Promise<void>): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport);
      await place.array((nas) =>
        nas.session.call("pool.dataset.create", [{ name: DATASET, type: "FILESYSTEM" }])
      );
      await run(place);
    });
  }
}

const alloc = (name: string | null) => ({ vmid: 1, format: "raw", name, sizeKiB: 1024 });

/** Asks in vain: nothing is written, and nothing is different. */
async function refused(place: Place, method: string, args: Record<string, unknown>): Promise<void> {
  const before = await arrayState(place);
  place.calls.length = 0;
  const { error } = await place.ask(method, args, { config });
  assertEquals([method, error?.code, writes(place)], [method, "invalid", []]);
  assertMatch(
    error?.message ?? "",
    /^Cannot [^\n]* has \d+ characters, and (TrueNAS|ZFS) takes \d+$/,
  );
  assertEquals(await arrayState(place), before);
}

both("a volume whose path has 200 characters lives, and gets no longer one", async (place) => {
  const volname = await place.must("alloc_image", alloc(named(200)), { config });
  await place.must("activate_volume", { volname }, { config });
  await refused(place, "alloc_image", alloc(named(201)));
  await refused(place, "volume_import_prepare", { vmid: 1, name: named(201), size: 1 << 20 });
  await refused(place, "create_base", { volname });
  await refused(place, "rename_volume", { volname, targetVmid: 1, targetName: named(201) });
  await place.must("deactivate_volume", { volname }, { config });
  await place.must("free_image", { volname, isBase: 0, finish: true }, { config });
});

both("a snapshot's whole name has 255 characters at most", async (place) => {
  const volname = await place.must("alloc_image", alloc(named(200)), { config });
  await refused(place, "volume_snapshot", { volname, snapshot: "s".repeat(55) });
  const snapshot = "s".repeat(54);
  await place.must("volume_snapshot", { volname, snapshot }, { config });
  await place.must("volume_snapshot_delete", { volname, snapshot }, { config });
});
