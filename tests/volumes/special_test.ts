/** Volumes that Proxmox VE asks for by a name or a size of their own. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";

const RELEASES = ["25.04", "25.10", "26"] as const;

for (const transport of TRANSPORTS) {
  for (const release of RELEASES) {
    if (transport === "nvme-tcp" && release === "25.04") continue;
    const test = (name: string, run: (place: Place) => Promise<void>) =>
      Deno.test(`${transport} ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, { release });
        await run(place);
      });

    test("a cloud-init volume in use is allocated again by name, and one that is large enough is not touched", async (place) => {
      const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
      await place.must("activate_volume", { volname });
      await place.holdOpen(volname);
      const before = JSON.stringify(await place.objects({ weight: true }));
      const target = await Deno.readLink(place.linkOf(volname));
      place.calls.length = 0;
      for (const sizeKiB of [4096, 4095.5, 1024]) {
        assertEquals(await place.alloc(100, sizeKiB, "vm-100-cloudinit"), volname);
      }
      assertEquals(JSON.stringify(await place.objects({ weight: true })), before);
      assertEquals(await Deno.readLink(place.linkOf(volname)), target);
      assertEquals(place.calls.filter((method) => /create|update|delete|destroy/.test(method)), []);
    });

    test("a cloud-init volume that is allocated again with more grows, here too", async (place) => {
      const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
      await place.must("activate_volume", { volname });
      await place.holdOpen(volname);
      const exports = async () => {
        const { extents, mappings, namespaces } = await place.objects({ weight: true });
        return JSON.stringify([extents, mappings, namespaces]);
      };
      const before = await exports();
      assertEquals(await place.alloc(100, 8192, "vm-100-cloudinit"), volname);
      assertEquals((await place.must("volume_size_info", { volname })).size, 8 << 20);
      assertEquals((await Deno.stat(place.linkOf(volname))).size, 8 << 20);
      assertEquals(await exports(), before);
    });

    test("a cloud-init volume that has no room to grow is refused, and stays", async (place) => {
      const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
      const before = JSON.stringify(await place.objects({ weight: true }));
      const args = { vmid: 100, format: "raw", name: volname, sizeKiB: 2 ** 40 };
      assertEquals((await place.ask("alloc_image", args)).error?.code, "no-space");
      assertEquals(JSON.stringify(await place.objects({ weight: true })), before);
    });

    test("a cloud-init volume that lost its export gets one by being allocated again", async (place) => {
      await place.alloc(100, 4096, "vm-100-cloudinit");
      const { mappings, extents, namespaces } = await place.objects();
      await place.array(async (nas) => {
        for (const row of mappings ?? []) await nas.targetExtents.remove(row.id, { force: true });
        for (const row of extents ?? []) await nas.extents.remove(row.id, { force: true });
        for (const row of namespaces ?? []) await nas.namespaces.remove(row.id);
      });
      assertEquals(await place.alloc(100, 4096, "vm-100-cloudinit"), "vm-100-cloudinit");
      await place.must("activate_volume", { volname: "vm-100-cloudinit" });
      assertEquals((await place.objects()).zvols?.length, 1);
    });

    for (
      const [what, vmid, name, sizeKiB] of [
        ["EFI variables", 100, "vm-100-disk-7", 528],
        ["TPM state", 100, "vm-100-disk-8", 4096],
        ["a fleecing image", 100, "vm-100-fleece-0", 32 * 1024],
        ["the state of a snapshot", 100, `vm-100-state-${"a".repeat(40)}`, 500 * 1024],
        ["a hibernated guest", 100, "vm-100-state-suspend-2026-11-22", 500 * 1024],
        ["a container's disk", 105, "vm-105-disk-0", 8 * 1024 * 1024],
        ["a name that a migration gives", 100, "vm-100-disk-31", 65536],
        ["a number that PVE never counts to", 100, `vm-100-disk-${"9".repeat(20)}`, 65536],
        ["a size that is no whole KiB", 100, "vm-100-disk-3", 1.5],
        ["the longest names", 999_999_999, `vm-999999999-state-${"s".repeat(40)}`, 4096],
      ] as const
    ) {
      test(`${what}: allocated by name with its exact size, attached, listed and freed`, async (place) => {
        const volname = await place.alloc(vmid, sizeKiB, name);
        assertMatch(volname, new RegExp(`^vol-${name}-(lun\\d+|ns[0-9a-f-]{36})$`));
        assertEquals((await place.must("volume_size_info", { volname })).size, sizeKiB * 1024);
        await place.must("activate_volume", { volname });
        assertEquals((await Deno.stat(place.linkOf(volname))).size, sizeKiB * 1024);
        const [row] = await place.must("list_images", { vmid });
        assertEquals([row.volid, row.size], [`san:${volname}`, sizeKiB * 1024]);
        await place.must("deactivate_volume", { volname });
        await place.must("free_image", { volname, isBase: 0, finish: true });
        assertEquals((await place.objects()).zvols, []);
      });
    }

    test("a name that is taken is refused, unless it is a cloud-init volume", async (place) => {
      const volname = await place.alloc(100, 4096, "vm-100-fleece-0");
      const reply = await place.ask("alloc_image", {
        vmid: 100,
        format: "raw",
        name: "vm-100-fleece-0",
        sizeKiB: 4096,
      });
      assertEquals(reply.error?.code, "exists");
      assertEquals((await place.must("list_images"))[0].volid, `san:${volname}`);
    });

    test("26 simultaneous allocations for one guest get 26 disks", async (place) => {
      await place.must("validate_storage");
      const names = await Promise.all(Array.from({ length: 26 }, () => place.alloc(100, 1024)));
      const zvols = new Set(names.map((name) => /^vol-(.*)-(?:lun|ns)/.exec(name)?.[1]));
      assertEquals(zvols.size, 26);
      assertEquals(new Set(names).size, 26);
      assertEquals((await place.must("list_images")).length, 26);
      if (transport !== "iscsi") return;
      const { mappings } = await place.objects({ weight: true });
      assertEquals(new Set(mappings?.map((row) => row.lunid)).size, 27);
    });

    test("a size that could not be asked for is not one that is not there", async (place) => {
      const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
      const methods = [
        release === "25.04" ? "pool.dataset.query" : "zfs.resource.query",
        transport === "iscsi" ? "iscsi.extent.query" : "nvmet.namespace.query",
      ];
      for (const method of methods) {
        for (
          const fault of [
            { method, do: "error", errno: 5 },
            { method, do: "error", errno: 16 },
            { method, do: "drop-reply" },
            { method, do: "cut" },
          ]
        ) {
          await place.faults([fault]);
          const reply = await place.ask("volume_size_info", { volname }, {
            deadlineMs: 600,
            config: { "tnb-api-retry-max": 0 },
          });
          assert(reply.error !== undefined, JSON.stringify(fault));
          assert(!["not-found", "exists"].includes(reply.error.code), JSON.stringify(reply.error));
        }
      }
      await place.faults([]);
      assertEquals((await place.must("volume_size_info", { volname })).size, 4 << 20);
    });

    test("a guest's disk is absent only when the array says so", async (place) => {
      const reply = await place.ask("volume_size_info", { volname: "vm-100-cloudinit" });
      assertEquals(reply.error?.code, "not-found");
    });
  }
}

for (const release of RELEASES) {
  for (const blocksize of ["16K", "64K", "128K"]) {
    Deno.test(`iscsi ${release}: EFI variables keep their size on blocks of 4096 bytes and ${blocksize} zvol blocks`, async () => {
      await using place = await Place.start("iscsi", { release });
      const config = { "tnb-extent-blocksize": "4096", "tnb-zvol-blocksize": blocksize };
      const made = await place.ask("alloc_image", {
        vmid: 100,
        format: "raw",
        name: null,
        sizeKiB: 528,
      }, { config });
      assertEquals(made.error, undefined);
      const info = await place.ask("volume_size_info", { volname: made.result }, { config });
      assertEquals(info.result.size, 540_672);
      assertEquals((await place.objects()).extents?.[0]?.blocksize, 4096);
      const attached = await place.ask("activate_volume", { volname: made.result }, { config });
      assertEquals(attached.error, undefined);
      assertEquals((await Deno.stat(place.linkOf(made.result))).size, 540_672);
    });
  }
}
