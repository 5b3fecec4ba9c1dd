import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";
import { configure } from "../volumes/reboot_support.ts";

const PRODUCT = "a disk's life";

for (const transport of TRANSPORTS) {
  const test = (name: string, run: () => Promise<void>) => Deno.test(`${transport}: ${name}`, run);

  test(`${PRODUCT}: allocated, listed, attached, written, detached, attached, read, freed, and nothing is left`, async () => {
    await using place = await Place.start(transport);
    await place.must("validate_storage");
    await place.must("activate_storage");
    const volname = await place.alloc();
    assertMatch(
      volname,
      transport === "iscsi" ? /^vol-vm-100-disk-0-lun\d+$/ : /^vol-vm-100-disk-0-ns[0-9a-f-]{36}$/,
    );
    const [row] = await place.must("list_images", { vmid: 100 });
    assertEquals([row.volid, row.size, row.format, row.vmid], [
      `san:${volname}`,
      65536 * 1024,
      "raw",
      100,
    ]);
    assert(Number.isInteger(row.ctime) && row.ctime > 1_600_000_000);
    await place.must("activate_volume", { volname });
    await Deno.writeTextFile(place.linkOf(volname), "the guest's data", {
      create: false,
      append: false,
    });
    await place.must("deactivate_volume", { volname });
    assertEquals(await exists(place.linkOf(volname)), false);
    await place.must("activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "the guest's data");
    const { token } = await place.must("free_image", { volname, isBase: 0 });
    assertEquals(await exists(place.linkOf(volname)), false);
    await place.must("free_image_finish", { token });
    assertEquals(await left(place), []);
  });

  test("allocating costs the array three writes over iSCSI and two over NVMe/TCP", async () => {
    await using place = await Place.start(transport);
    await place.must("validate_storage");
    place.calls.length = 0;
    await place.alloc();
    const writes = place.calls.filter((method) => /\.(create|update|delete)$/.test(method));
    assertEquals(writes.length, transport === "iscsi" ? 3 : 2);
  });

  test("freeing costs the array three writes over iSCSI and two over NVMe/TCP", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    place.calls.length = 0;
    await place.must("free_image", { volname, isBase: 0, finish: true });
    const writes = place.calls.filter((method) => /\.(create|update|delete|destroy)$/.test(method));
    assertEquals(writes.length, transport === "iscsi" ? 3 : 2);
  });

  test("listing takes at most three calls on the array", async () => {
    await using place = await Place.start(transport, { volumes: 30 });
    const rows = await place.must("list_images");
    assertEquals(rows.length, 30);
    assert(place.calls.length <= 3, place.calls.join(", "));
  });

  test("attaching what is attached asks the array nothing", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    place.calls.length = 0;
    await place.must("activate_volume", { volname });
    assertEquals(place.calls, []);
  });

  test("the log says at which attempt and after how long a disk was found", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    assert(
      place.log.some((line) => /found at attempt \d+ after \d+ ms/.test(line)),
      place.log.join("\n"),
    );
  });

  test("freeing what is gone succeeds", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("free_image", { volname, isBase: 0, finish: true });
    assertEquals(await place.must("free_image", { volname, isBase: 0 }), null);
  });

  test("a token does not free today's disk of the same name", async () => {
    await using place = await Place.start(transport);
    const { token } = await place.must("free_image", { volname: await place.alloc(), isBase: 0 });
    await place.must("free_image_finish", { token });
    const today = await place.alloc();
    await place.must("free_image_finish", { token });
    assertEquals((await place.must("list_images"))[0].volid, `san:${today}`);
  });

  test("a stale name is refused by every verb, and nothing is touched", async () => {
    await using place = await Place.start(transport);
    const { stale, today } = await place.replaced();
    for (const method of ["activate_volume", "volume_size_info", "free_image"]) {
      const reply = await place.ask(method, { volname: stale });
      assertEquals([method, reply.error?.code], [method, "volume-replaced"]);
    }
    assertEquals((await place.must("volume_size_info", { volname: today })).size, 65536 * 1024);
  });

  test("a disk in use on this node is neither detached nor freed", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await place.holdOpen(volname);
    for (const method of ["deactivate_volume", "free_image"]) {
      const reply = await place.ask(method, { volname });
      assertEquals([method, reply.error?.code], [method, "in-use"]);
      assertStringIncludes(reply.error?.message ?? "", "qemu-system-x86");
    }
    assertEquals((await place.objects()).zvols?.length, 1);
  });

  test("EFI variables keep exactly 528 KiB", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc(100, 528);
    assertEquals((await place.must("volume_size_info", { volname })).size, 528 * 1024);
  });

  test("a cloud-init volume is named without number, and allocating it again is fine", async () => {
    await using place = await Place.start(transport);
    assertEquals(await place.alloc(100, 4096, "vm-100-cloudinit"), "vm-100-cloudinit");
    assertEquals(await place.alloc(100, 4096, "vm-100-cloudinit"), "vm-100-cloudinit");
    await place.must("activate_volume", { volname: "vm-100-cloudinit" });
    assert(await exists(place.linkOf("vm-100-cloudinit")));
    assertEquals((await place.must("list_images"))[0].volid, "san:vm-100-cloudinit");
    await place.must("free_image", { volname: "vm-100-cloudinit", isBase: 0, finish: true });
    assertEquals(await left(place), []);
  });

  test("names count up from the first hole", async () => {
    await using place = await Place.start(transport);
    const first = await place.alloc();
    await place.alloc();
    await place.must("free_image", { volname: first, isBase: 0, finish: true });
    assertMatch(await place.alloc(), /vm-100-disk-0-/);
    assertMatch(await place.alloc(), /vm-100-disk-2-/);
  });

  test("the vmid filter takes numbers and texts, and volids take precedence", async () => {
    await using place = await Place.start(transport);
    await place.alloc(100);
    const other = await place.alloc(200);
    assertEquals((await place.must("list_images", { vmid: "200" })).length, 1);
    assertEquals(
      (await place.must("list_images", { vmid: 100, volids: [`san:${other}`] }))[0].vmid,
      200,
    );
  });

  test("a request costs one connection and one login, once the array's dialect is known", async () => {
    await using place = await Place.start(transport);
    await place.must("status");
    const before = await place.stats();
    await place.must("status");
    const after = await place.stats();
    assertEquals([after.connections - before.connections, after.logins - before.logins], [1, 1]);
  });

  test("with the API away a guest's volume is attached again by its last verified identity, with a warning", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await configure(place, 100, volname);
    await place.must("activate_volume", { volname });
    await Deno.remove(place.linkOf(volname));
    await place.simulator.goDown();
    const reply = await place.ask("activate_volume", { volname });
    assertEquals(reply.error, undefined);
    assert(await exists(place.linkOf(volname)));
    const how = "is attached by what the array said";
    assert(place.log.some((line) => line.startsWith("warning:") && line.includes(how)));
  });

  test("with the API away list_images fails instead of answering nothing", async () => {
    await using place = await Place.start(transport);
    const reply = await place.ask("list_images", {}, {
      config: { "tnb-api-port": await freePort(), "tnb-api-retry-max": 0 },
    });
    assertEquals(reply.error?.code, "unreachable");
  });
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** What the array and the node still have. */
async function left(place: Place): Promise<string[]> {
  const objects = await place.objects();
  const kinds = ["zvols", "snapshots", "extents", "mappings", "namespaces"].filter((kind) =>
    objects[kind]?.length !== 0
  );
  const links = await Array.fromAsync(Deno.readDir(`${place.directory}/dev/tnblock/san`)).catch(
    () => [],
  );
  const kept = ["var/lib/tnblock/san", "etc/pve/priv/tnblock/freeing/san"];
  const known = await Promise.all(
    kept.map((folder) =>
      Array.fromAsync(Deno.readDir(`${place.directory}/${folder}`)).catch(() => [])
    ),
  );
  return [...kinds, ...links.map((entry) => entry.name), ...known.flat().map(({ name }) => name)];
}

async function freePort(): Promise<number> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return await Promise.resolve(port);
}
