/** Volumes that the Perl plugin made, once adopted, work in place. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type LegacyVolume, plantLegacy } from "../support/legacy.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

const RELEASES = ["25.04", "25.10", "26"] as const;

/** Over iSCSI each form of extent, over NVMe/TCP there is one form only. */
const FORMS: Readonly<Record<typeof TRANSPORTS[number], readonly Partial<LegacyVolume>[]>> = {
  "nvme-tcp": [{}],
  iscsi: [
    { extentName: "plain", blocksize: 512 },
    { extentName: "hashed", blocksize: 512 },
    { extentName: "hashed", blocksize: 4096 },
  ],
};

for (const transport of TRANSPORTS) {
  for (const release of RELEASES) {
    if (transport === "nvme-tcp" && release === "25.04") continue;
    const test = (name: string, run: (place: Place) => Promise<void>) =>
      Deno.test(`${transport} ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { release });
        await run(place);
      });
    const volids = async (place: Place, args: Record<string, unknown> = {}) =>
      (await place.must("list_images", args)).map((row: { volid: string }) => row.volid);
    const blocksizes = async (place: Place) =>
      ((await place.objects()).extents ?? []).map((row) => [row.name, row.blocksize]);

    for (const form of FORMS[transport]) {
      const what = transport === "iscsi"
        ? `a disk with a ${form.extentName} extent name and blocks of ${form.blocksize}`
        : "a disk";

      test(`${what} is listed, attached, read, snapshotted, grown and freed`, async (place) => {
        const volname = await plantLegacy(place, { zvol: "vm-100-disk-3", number: 41, ...form });
        const before = await blocksizes(place);
        assertEquals(await volids(place, { vmid: 100 }), [`san:${volname}`]);
        assertEquals((await place.must("volume_size_info", { volname })).size, 1 << 26);
        await place.must("activate_volume", { volname });
        await Deno.writeTextFile(place.linkOf(volname), "old data", { create: false });
        await place.must("volume_snapshot", { volname, snapshot: "before" });
        await place.must("volume_snapshot_delete", { volname, snapshot: "before" });
        await place.must("volume_resize", { volname, size: 1 << 27, running: 0 });
        await place.must("deactivate_volume", { volname });
        await place.must("activate_volume", { volname });
        assertStringIncludes(
          await place.beginning(volname),
          "old data",
        );
        assertEquals((await Deno.stat(place.linkOf(volname))).size, 1 << 27);
        assertEquals(await blocksizes(place), before);
        await place.must("free_image", { volname, isBase: 0, finish: true });
        const { zvols, extents, mappings, namespaces } = await place.objects();
        assertEquals([zvols, extents, mappings, namespaces], [[], [], [], []]);
      });
    }

    test("a free that stopped between mapping and extent goes on, though the extent bears no sign of ours", async (place) => {
      if (transport !== "iscsi") return;
      const volname = await plantLegacy(place, { zvol: "vm-100-disk-0", number: 7 });
      await place.faults([{ method: "iscsi.extent.delete", do: "error", errno: 5 }]);
      const args = { volname, isBase: 0, finish: true };
      assertEquals((await place.ask("free_image", args)).ok, false);
      await place.faults([]);
      assertEquals((await place.objects()).extents?.length, 1);
      await place.must("free_image", args);
      assertEquals([(await place.objects()).extents, (await place.objects()).zvols], [[], []]);
    });

    test("what was not adopted is neither listed, attached nor freed", async (place) => {
      const volname = await plantLegacy(place, {
        zvol: "vm-100-disk-0",
        number: 7,
        adopted: false,
      });
      const before = JSON.stringify(await place.objects());
      assertEquals(await volids(place), []);
      for (const method of ["activate_volume", "free_image", "volume_size_info"]) {
        const reply = await place.ask(method, { volname, finish: true });
        assertEquals([method, reply.error?.code], [method, "not-ours"]);
      }
      assertEquals(JSON.stringify(await place.objects()), before);
    });

    test("a cloud-init volume is reached by its name and by the old one with a number", async (place) => {
      const old = await plantLegacy(place, { zvol: "vm-100-cloudinit", number: 9, size: 4 << 20 });
      assertMatch(old, /^vol-vm-100-cloudinit-/);
      assertEquals(await volids(place, { vmid: 100 }), ["san:vm-100-cloudinit"]);
      // Each form is answered in that form, so that PVE finds what its configuration names.
      for (const volname of ["vm-100-cloudinit", old]) {
        assertEquals(await volids(place, { volids: [`san:${volname}`] }), [`san:${volname}`]);
        assertEquals((await place.must("volume_size_info", { volname })).size, 4 << 20);
        await place.must("activate_volume", { volname });
        assert((await Deno.stat(place.linkOf("vm-100-cloudinit"))).size === 4 << 20);
        await place.must("deactivate_volume", { volname });
        const { path } = await place.must("path", { volname });
        assertEquals(path, "/dev/tnblock/san/vm-100-cloudinit");
      }
      assertEquals(await place.alloc(100, 4096, "vm-100-cloudinit"), "vm-100-cloudinit");
    });

    for (const form of ["new", "old"] as const) {
      test(`a cloud-init volume is freed by its ${form} name`, async (place) => {
        const old = await plantLegacy(place, { zvol: "vm-100-cloudinit", number: 9 });
        const volname = form === "new" ? "vm-100-cloudinit" : old;
        await place.must("free_image", { volname, isBase: 0, finish: true });
        assertEquals((await place.objects()).zvols, []);
      });
    }

    test("a cloud-init volume's old name with another number is refused", async (place) => {
      await plantLegacy(place, { zvol: "vm-100-cloudinit", number: 9 });
      const volname = transport === "iscsi"
        ? "vol-vm-100-cloudinit-lun10"
        : `vol-vm-100-cloudinit-ns${crypto.randomUUID()}`;
      for (const method of ["activate_volume", "free_image", "volume_size_info"]) {
        const reply = await place.ask(method, { volname, finish: true });
        assertEquals([method, reply.error?.code], [method, "volume-replaced"]);
      }
      assertEquals(await volids(place, { volids: [`san:${volname}`] }), []);
    });

    test("a linked clone is the same volume in the slash form and in the plain one", async (place) => {
      const base = await plantLegacy(place, { zvol: "base-9-disk-0", number: 11 });
      const clone = await plantLegacy(place, {
        zvol: "vm-100-disk-0",
        number: 12,
        cloneOf: "base-9-disk-0",
      });
      assertEquals(await volids(place, { vmid: 100 }), [`san:${base}/${clone}`]);
      const [row] = await place.must("list_images", { volids: [`san:${clone}`] });
      assertEquals(row.parent, base);
      for (const volname of [clone, `${base}/${clone}`]) {
        await place.must("activate_volume", { volname });
        await place.must("deactivate_volume", { volname });
        assertEquals((await place.must("volume_size_info", { volname })).size, 1 << 26);
      }
      const refused = await place.ask("free_image", { volname: base, isBase: 1, finish: true });
      assertEquals(refused.error?.code, "has-dependents");
      assertStringIncludes(refused.error?.message ?? "", "vm-100-disk-0");
      await place.must("free_image", { volname: `${base}/${clone}`, isBase: 0, finish: true });
      await place.must("free_image", { volname: base, isBase: 1, finish: true });
      const { zvols, snapshots } = await place.objects();
      assertEquals([zvols, snapshots], [[], []]);
    });

    test("a new disk takes the first free name beside legacy ones, and no number of theirs", async (place) => {
      const old = await plantLegacy(place, { zvol: "vm-100-disk-0", number: 1 });
      const made = await place.alloc();
      assertMatch(made, /^vol-vm-100-disk-1-/);
      assertEquals((await volids(place)).length, 2);
      assert(old.split("-").at(-1) !== made.split("-").at(-1));
    });
  }
}
