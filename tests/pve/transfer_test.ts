/** The hook's side of export and import: what is made ready, let go of, and taken back. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

const SIZE = 65536 * 1024;

/** What the array has below the storage's dataset, and what the node has linked. */
async function left(place: Place): Promise<unknown> {
  const { zvols, extents, mappings, namespaces } = await place.objects();
  const links: string[] = [];
  const folder = `${place.directory}/dev/tnblock/san`;
  if (await exists(folder)) {
    for await (const entry of Deno.readDir(folder)) links.push(entry.name);
  }
  return [zvols, extents ?? [], mappings ?? [], namespaces ?? [], links].map((all) => all?.length);
}

const NOTHING = [0, 0, 0, 0, 0];

const exists = (path: string) => Deno.lstat(path).then(() => true, () => false);

const isLinked = (place: Place, volname: string) => exists(place.linkOf(volname));

for (const transport of TRANSPORTS) {
  const test = (name: string, run: () => Promise<void>) => Deno.test(`${transport}: ${name}`, run);

  test("an export is made ready with path and size, repeatedly, and let go of", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    for (let times = 0; times < 2; times++) {
      assertEquals(await place.must("volume_export_prepare", { volname }), {
        path: "/dev/tnblock/san/vm-100-disk-0",
        size: SIZE,
      });
      assertEquals(await isLinked(place, volname), true);
    }
    await place.must("volume_export_finish", { volname });
    assertEquals(await isLinked(place, volname), false);
    await place.must("volume_export_finish", { volname });
  });

  test("an export is aborted like it is ended, also one that never began", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("volume_export_abort", { volname });
    await place.must("volume_export_prepare", { volname });
    await place.must("volume_export_abort", { volname });
    assertEquals(await isLinked(place, volname), false);
    await place.must("volume_export_abort", { volname });
    assertEquals((await place.must("list_images")).length, 1);
  });

  test("the end of an export leaves alone what somebody uses, and is no error", async () => {
    await using place = await Place.start(transport);
    const volname = await place.alloc();
    await place.must("volume_export_prepare", { volname });
    await place.holdOpen(volname);
    const reply = await place.ask("volume_export_finish", { volname }, { deadlineMs: 3000 });
    assertEquals([reply.ok, await isLinked(place, volname)], [true, true]);
  });

  test("an import gets a blank volume of its size, that is attached", async () => {
    await using place = await Place.start(transport);
    const { volname, path } = await place.must("volume_import_prepare", {
      vmid: 100,
      name: "vm-100-disk-3",
      size: SIZE,
    });
    assertMatch(volname, /^vol-vm-100-disk-3-/);
    assertEquals(path, "/dev/tnblock/san/vm-100-disk-3");
    assertEquals((await Deno.stat(place.linkOf(volname))).size, SIZE);
    await place.must("volume_import_finish", { volname });
    assertEquals(await isLinked(place, volname), false);
    assertEquals((await place.must("list_images")).length, 1);
  });

  test("an import without a name gets the first that is free", async () => {
    await using place = await Place.start(transport);
    await place.alloc();
    const { volname } = await place.must("volume_import_prepare", { vmid: 100, size: 1000 });
    assertMatch(volname, /^vol-vm-100-disk-1-/);
  });

  for (const name of ["vm-100-disk-0", "vm-100-cloudinit"]) {
    test(`an import onto the taken name ${name} is refused and touches nothing`, async () => {
      await using place = await Place.start(transport);
      await place.alloc(100, 65536, name);
      const before = await place.objects();
      const reply = await place.ask("volume_import_prepare", { vmid: 100, name, size: SIZE });
      assertEquals(reply.error?.code, "exists");
      assertEquals((await place.objects()).zvols, before.zvols);
    });
  }

  test("an import is refused for a name that is not the guest's, or a template's", async () => {
    await using place = await Place.start(transport);
    for (const name of ["vm-101-disk-0", "base-100-disk-0", "x", "vol-vm-100-disk-0-lun1"]) {
      const reply = await place.ask("volume_import_prepare", { vmid: 100, name, size: SIZE });
      assertEquals([name, reply.error?.code], [name, "invalid"]);
    }
    assertEquals(place.calls, []);
  });

  test("an import that is taken back leaves nothing, and may be taken back again", async () => {
    await using place = await Place.start(transport);
    const { volname } = await place.must("volume_import_prepare", { vmid: 100, size: SIZE });
    await place.must("volume_import_abort", { volname });
    assertEquals(await left(place), NOTHING);
    await place.must("volume_import_abort", { volname });
  });

  test("taking back a disk that stays in use touches nothing", async () => {
    await using place = await Place.start(transport);
    const { volname } = await place.must("volume_import_prepare", { vmid: 100, size: SIZE });
    const before = await left(place);
    await place.holdOpen(volname);
    const reply = await place.ask("volume_import_abort", { volname }, { deadlineMs: 2000 });
    assertEquals(reply.error?.code, "in-use");
    assertEquals(await left(place), before);
  });

  test("taking back what a guest elsewhere has by now is refused at once", async () => {
    await using place = await Place.start(transport);
    const { volname } = await place.must("volume_import_prepare", { vmid: 100, size: SIZE });
    const folder = `${place.directory}/etc/pve/nodes/pve2/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/100.conf`, `scsi0: san:${volname},size=64M\n`);
    const before = await left(place);
    place.calls.length = 0;
    const reply = await place.ask("volume_import_abort", { volname });
    assertEquals(reply.error?.code, "in-use");
    assertMatch(reply.error?.message ?? "", /VM 100 on node pve2/);
    // It was looked at once: nothing was waited for.
    assertEquals(place.calls.filter((method) => method === "pool.snapshot.query").length, 1);
    assertEquals(await left(place), before);
  });

  test("an import whose disk cannot be attached leaves nothing", async () => {
    await using place = await Place.start(transport);
    const tool = transport === "iscsi" ? "usr/sbin/iscsiadm" : "dev/nvme-fabrics";
    await Deno.remove(`${place.directory}/${tool}`);
    const reply = await place.ask("volume_import_prepare", { vmid: 100, size: SIZE });
    assertEquals(reply.ok, false);
    assert(place.calls.includes("pool.dataset.create"), "nothing was made: " + place.calls);
    assertEquals(await left(place), NOTHING, `${reply.error?.message}\n${place.log.join("\n")}`);
  });

  test("only an import under way is aborted, no other volume", async () => {
    await using place = await Place.start(transport);
    const other = await place.alloc();
    const { volname } = await place.must("volume_import_prepare", { vmid: 101, size: SIZE });
    await place.must("volume_import_finish", { volname });
    for (const one of [other, volname]) {
      const reply = await place.ask("volume_import_abort", { volname: one });
      assertEquals(reply.error?.code, "not-ours");
    }
    assertEquals((await place.must("list_images")).length, 2);
  });

  test("an import that nobody hears of is taken back", async () => {
    await using place = await Place.start(transport);
    const { reply, settled, undelivered } = answer(
      JSON.stringify(place.request("volume_import_prepare", { vmid: 100, size: SIZE })),
      {
        host: linuxHost({ root: place.directory }),
        log: lineLog((line) => place.log.push(line), () => 2),
        setDebugLevel: () => {},
        limitLogins: false,
      },
    );
    assertEquals((await reply).ok, true, (await reply).text);
    await undelivered();
    await settled;
    assertEquals(await left(place), NOTHING, place.log.join("\n"));
  });
}
