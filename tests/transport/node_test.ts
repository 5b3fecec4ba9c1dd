import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { TrueNas } from "../../src/truenas/array.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { lastingCommand } from "../support/child.ts";

for (const transport of TRANSPORTS) {
  const test = (name: string, run: (place: Place) => Promise<void>) =>
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport);
      await run(place);
    });

  /** The storage's portals as address and port. */
  const portals = (place: Place) => {
    const { ready } = place.simulator;
    return (transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme).map((text) => {
      const at = text.lastIndexOf(":");
      return [text.slice(0, at), Number(text.slice(at + 1))] as const;
    });
  };

  test("one live portal is enough; the other is a warning, and is connected again later", async (place) => {
    const [, second] = portals(place);
    assert(second !== undefined);
    const volname = await place.alloc();
    await place.player.setPortalUp(...second, false);
    await place.must("activate_volume", { volname });
    assert(
      place.log.some((line) => line.startsWith("warning: one path is missing")),
      place.log.join("\n"),
    );
    await place.player.setPortalUp(...second, true);
    place.log.length = 0;
    await place.must("deactivate_volume", { volname });
    await place.must("activate_volume", { volname });
    assert(place.log.some((line) => line.includes("2 paths")), place.log.join("\n"));
  });

  test("with every portal down activation fails as unreachable", async (place) => {
    const volname = await place.alloc();
    for (const portal of portals(place)) await place.player.setPortalUp(...portal, false);
    const reply = await place.ask("activate_volume", { volname }, { deadlineMs: 8000 });
    assertEquals(reply.error?.code, "unreachable");
    assertEquals(await Deno.stat(place.linkOf(volname)).then(() => true, () => false), false);
  });

  test("a storage is activated when a path lives, whatever sessions the node still has", async (place) => {
    const [first, second] = portals(place);
    assert(first !== undefined && second !== undefined);
    await place.must("activate_storage");
    place.log.length = 0;
    await place.player.setPortalUp(...second, false);
    await place.must("activate_storage");
    const warnings = place.log.filter((line) => line.startsWith("warning:"));
    assertEquals(warnings.length, 1, place.log.join("\n"));
    assertStringIncludes(warnings[0] ?? "", second[0]);
    await place.player.setPortalUp(...first, false);
    const reply = await place.ask("activate_storage", {}, { deadlineMs: 8000 });
    assertEquals(reply.error?.code, "unreachable");
    // They are there still: their state counts, not that.
    const folder = transport === "iscsi" ? "iscsi_session" : "nvme";
    const left = [...Deno.readDirSync(`${place.directory}/sys/class/${folder}`)];
    assertEquals(left.length, 2);
  });

  test("a storage of which no portal takes a login is not active, and each portal is named", async (place) => {
    for (const portal of portals(place)) await place.player.setPortalUp(...portal, false);
    const reply = await place.ask("activate_storage", {}, { deadlineMs: 15_000 });
    assertEquals([reply.ok, reply.error?.code], [false, "unreachable"]);
    for (const [address, port] of portals(place)) {
      assertStringIncludes(reply.error?.message ?? "", `${address}:${port}`);
    }
  });

  test("check_connection is true while anything answers, and false when nothing does", async (place) => {
    assertEquals(await place.must("check_connection"), true);
    const nothing = {
      "tnb-api-port": 9,
      "tnb-discovery-portal": "127.0.0.9:9",
      "tnb-portals": "127.0.0.9:9",
    };
    assertEquals((await place.ask("check_connection", {}, { config: nothing })).result, false);
    assertEquals(
      (await place.ask("check_connection", {}, { config: { "tnb-api-port": 9 } })).result,
      true,
    );
  });

  test("detaching one volume leaves the others attached", async (place) => {
    const [one, other] = [await place.alloc(), await place.alloc()];
    await place.must("activate_volume", { volname: one });
    await place.must("activate_volume", { volname: other });
    await Deno.writeTextFile(place.linkOf(other), "other", { create: false });
    await place.must("deactivate_volume", { volname: one });
    assertStringIncludes(await place.beginning(other), "other");
  });

  test("a program of this machine that reads a played disk keeps it attached", async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    const reader = lastingCommand("tail", {
      args: ["-c", "1", "-f", place.linkOf(volname)],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    try {
      const output = reader.stdout.getReader();
      await output.read();
      for (
        const reply of [
          await place.ask("deactivate_volume", { volname }),
          await place.ask("free_image", { volname, isBase: 0, finish: true }),
        ]
      ) {
        assertEquals(reply.error?.code, "in-use");
        assertStringIncludes(reply.error?.message ?? "", `tail (process ${reader.pid})`);
      }
      await output.cancel();
    } finally {
      reader.kill("SIGKILL");
      await reader.status;
    }
    await place.must("free_image", { volname, isBase: 0, finish: true });
  });

  test("several volumes are attached at the same time, each its own disk", async (place) => {
    const volnames = [];
    for (let index = 0; index < 5; index++) volnames.push(await place.alloc());
    await Promise.all(volnames.map((volname) => place.must("activate_volume", { volname })));
    const nodes = await Promise.all(
      volnames.map((volname) => Deno.realPath(place.linkOf(volname))),
    );
    assertEquals(new Set(nodes).size, 5);
  });

  test("allocations at the same moment get different names and numbers, and leave no orphan", async (place) => {
    const replies = await Promise.all(
      Array.from(
        { length: 6 },
        () => place.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 }),
      ),
    );
    const made = replies.filter((reply) => reply.ok).map((reply) => String(reply.result));
    assert(made.length > 0);
    const listed = (await place.must("list_images")).map((row: { volid: string }) => row.volid)
      .sort();
    assertEquals(listed, made.map((volname) => `san:${volname}`).sort());
    assertEquals((await place.objects()).zvols?.length, made.length);
  });

  test("the link is named after the disk's identity and is relative below a root", async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    const text = await Deno.readLink(place.linkOf(volname));
    const name = transport === "iscsi"
      ? /^\.\.\/\.\.\/disk\/by-id\/dm-uuid-mpath-36589cfc000000[0-9a-f]{19}$/
      : /^\.\.\/\.\.\/disk\/by-id\/nvme-uuid\.[0-9a-f-]{36}$/;
    assert(name.test(text), text);
  });
}

/** The mappings of guests' disks; the target's weight has one, too. */
async function rowsOfDisks(nas: TrueNas) {
  const disks = (await nas.extents.all()).filter((extent) => /\/vm-\d+-/.test(extent.zvol ?? ""));
  return await nas.targetExtents.byExtents(disks.map((extent) => extent.id));
}

Deno.test("iscsi: with the LUNs of two disks swapped on the array, no name reaches the other's disk", async () => {
  await using place = await Place.start("iscsi");
  const [one, other] = [await place.alloc(), await place.alloc()];
  for (const volname of [one, other]) await place.must("activate_volume", { volname });
  await place.array(async (nas) => {
    const [a, b] = await rowsOfDisks(nas);
    assert(a !== undefined && b !== undefined);
    for (const row of [a, b]) await nas.targetExtents.remove(row.id, { force: true });
    await nas.targetExtents.create({ target: a.target, extent: a.extent, lun: b.lun });
    await nas.targetExtents.create({ target: a.target, extent: b.extent, lun: a.lun });
  });
  for (const volname of [one, other]) {
    assertEquals((await place.ask("activate_volume", { volname })).error?.code, "volume-replaced");
  }
  // With the API away only the node can tell: sysfs still shows the old identities at the old LUNs.
  for (const volname of [one, other]) {
    const reply = await place.ask("activate_volume", { volname }, {
      config: { "tnb-api-port": 9, "tnb-api-retry-max": 0 },
    });
    assertEquals(reply.error?.code, "volume-replaced");
  }
});

Deno.test("iscsi: disks whose LUNs were exchanged while active are found again under their new names", async () => {
  await using place = await Place.start("iscsi");
  const names = ["vm-100-disk-0", "vm-100-disk-1"];
  for (const name of names) {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await Deno.writeTextFile(place.linkOf(volname), name, { create: false });
  }
  await place.array(async (nas) => {
    const [a, b] = await rowsOfDisks(nas);
    assert(a !== undefined && b !== undefined);
    for (const row of [a, b]) await nas.targetExtents.remove(row.id, { force: true });
    await nas.targetExtents.create({ target: a.target, extent: a.extent, lun: b.lun });
    await nas.targetExtents.create({ target: a.target, extent: b.extent, lun: a.lun });
  });
  for (const { volid } of await place.must("list_images")) {
    const volname = String(volid).slice("san:".length);
    await place.must("activate_volume", { volname });
    const name = names.find((one) => volname.includes(one)) ?? "";
    assertStringIncludes(await place.beginning(volname), name);
    await place.must("free_image", { volname, isBase: 0, finish: true });
  }
  assertEquals((await place.objects()).zvols, []);
});

Deno.test("iscsi: what an earlier disk left at a LUN on this node gives way to the LUN's new disk", async () => {
  await using place = await Place.start("iscsi");
  const [one, other] = [await place.alloc(), await place.alloc()];
  await place.must("activate_volume", { volname: other });
  await Deno.writeTextFile(place.linkOf(other), "other", { create: false });
  await place.must("deactivate_volume", { volname: other });
  // This node never lets go of the first disk, as after a crash; elsewhere it is freed and its LUN given to the other.
  await place.must("activate_volume", { volname: one });
  await place.array(async (nas) => {
    const [a, b] = await rowsOfDisks(nas);
    assert(a !== undefined && b !== undefined);
    for (const row of [a, b]) await nas.targetExtents.remove(row.id, { force: true });
    await nas.targetExtents.create({ target: a.target, extent: b.extent, lun: a.lun });
  });
  const [row] = await place.must("list_images");
  const volname = String(row.volid).slice("san:".length);
  await place.must("activate_volume", { volname });
  assertStringIncludes(await place.beginning(volname), "other");
});

Deno.test("nvme-tcp: a namespace made again under the same NSID is another disk", async () => {
  await using place = await Place.start("nvme-tcp");
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  await place.array(async (nas) => {
    const [row] = await nas.namespaces.all();
    assert(row?.zvol !== undefined);
    await nas.namespaces.remove(row.id);
    await nas.namespaces.create({ subsystem: row.subsystem, zvol: row.zvol, nsid: row.nsid });
  });
  assertEquals((await place.ask("activate_volume", { volname })).error?.code, "volume-replaced");
  const reply = await place.ask("activate_volume", { volname }, {
    config: { "tnb-api-port": 9, "tnb-api-retry-max": 0 },
    deadlineMs: 3000,
  });
  assertEquals(reply.ok, false);
  assertEquals(await Deno.stat(place.linkOf(volname)).then(() => true, () => false), false);
});
