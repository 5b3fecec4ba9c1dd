import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { isWeight } from "../../src/volumes/weight.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

/** A place where a node died in the middle of renaming guest 100's disk: zvol renamed, export not. */
function halfRenamed(name: string, run: (place: Place, volname: string) => Promise<void>): void {
  for (const transport of TRANSPORTS) {
    for (const release of ["25.10", "26"] as const) {
      Deno.test(`${transport}, ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { release });
        const volname = await place.alloc();
        const { dataset } = place.simulator.ready;
        const from = `${dataset}/vm-100-disk-0`;
        const to = `${dataset}/vm-200-disk-0`;
        await place.array(async (nas) => {
          const [extent] = await nas.extents.byZvol(from);
          const namespace = await nas.namespaces.byZvol(from);
          await nas.zvols.setUserProperties(from, {
            "tnblock:rename-to": to,
            "tnblock:rename-id": extent?.naa ?? namespace?.uuid,
          });
          if (namespace !== undefined) {
            await nas.namespaces.update(namespace.id, { enabled: false });
          }
          await nas.zvols.rename(from, to);
        });
        await run(place, volname);
      });
    }
  }
}

halfRenamed(
  "a half-renamed volume is listed and found by its old name only",
  async (place, volname) => {
    const rows = await place.must("list_images");
    assertEquals(rows.map((row: { volid: string }) => row.volid), [`san:${volname}`]);
    assertEquals((await place.must("volume_size_info", { volname })).size, 65536 * 1024);
    const reply = await place.ask("volume_size_info", { volname: volname.replace("100", "200") });
    assertEquals(reply.error?.code, "not-found");
  },
);

halfRenamed(
  "a half-renamed volume is freed by its old name, with all of it",
  async (place, volname) => {
    await place.must("free_image", { volname, finish: true });
    const { zvols = [], extents = [], namespaces } = await place.objects();
    assertEquals(zvols.filter((zvol) => !isWeight({ name: String(zvol.name) })), []);
    assertEquals(extents.filter((row) => String(row.path).includes("/vm-")), []);
    assertEquals(namespaces, []);
  },
);

halfRenamed("the old name of a half-renamed volume is no new volume's", async (place, volname) => {
  assertMatch(await place.alloc(), /vm-100-disk-1/);
  const reply = await place.ask("alloc_image", {
    vmid: 100,
    format: "raw",
    name: "vm-100-disk-0",
    sizeKiB: 1024,
  });
  assertEquals(reply.error?.code, "exists");
  assertStringIncludes(reply.error?.message ?? "", "vm-200-disk-0");
  const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
  await place.must("activate_volume", { volname: renamed });
  // A rename that is whole keeps no name.
  assertMatch(await place.alloc(100, 1024, "vm-100-disk-0"), /vm-100-disk-0/);
});
