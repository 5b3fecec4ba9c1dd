/** What was stopped is acted on at once where nothing of it can come any more, and nowhere else. */
import { assertEquals } from "@std/assert";
import { linuxHost } from "../../../src/host/linux.ts";
import { arrayState, disks, writes } from "../../support/array_state.ts";
import { openEntries } from "../../support/mortal.ts";
import { Place, TRANSPORTS } from "../../support/place.ts";
import { snapshotNames } from "../snapshot_support.ts";
import { ALLOC, both, kill, lastWrite, name, own, SETTLE_MS, Watching } from "./support.ts";

const open = async (place: Place) => (await openEntries(place)).length;

/** The last write of a rename. */
const lastOfRename = (place: Place) => place.transport === "iscsi" ? 3 : 4;

async function killedRename(place: Place, nth: number): Promise<string> {
  const volname = await place.alloc();
  const args = { volname, targetVmid: 200 };
  await kill(place, "rename_volume", args, { nth, when: "after" });
  return volname;
}

both("a whole volume of which nobody was told goes at once, and its entry later", async (place) => {
  await place.alloc(999);
  const was = await arrayState(place);
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const recovery = new Watching(place);
  assertEquals([await recovery.pass(), await open(place)], [["waits"], 1]);
  assertEquals(await arrayState(place), was);
  // Not looked at again before.
  place.calls.length = 0;
  assertEquals([await recovery.pass(SETTLE_MS - 1_000), place.calls], [["waits"], []]);
  assertEquals([await recovery.pass(1_000), await open(place)], [["closed"], 0]);
  assertEquals(await arrayState(place), was);
});

both("a volume without its whole export is left until it has settled", async (place) => {
  await place.alloc(999);
  for (let nth = 1; nth < lastWrite(place); nth++) {
    await kill(place, "alloc_image", ALLOC, { nth, when: "after" });
    const was = await arrayState(place);
    const recovery = new Watching(place);
    assertEquals(await recovery.pass(), ["waits"]);
    assertEquals(await recovery.pass(SETTLE_MS - 1_000), ["waits"]);
    assertEquals([nth, await arrayState(place)], [nth, was]);
    assertEquals(await recovery.pass(1_000), ["undone"]);
    assertEquals([await own(place), await open(place)], [["vm-999-disk-0"], 0]);
  }
});

both("a guest whose rename was killed when all was done starts again at once", async (place) => {
  const volname = await killedRename(place, lastOfRename(place));
  await name(place, 100, volname);
  const recovery = new Watching(place);
  assertEquals(await recovery.pass(), ["waits"]);
  assertEquals(await own(place), ["vm-100-disk-0"]);
  await place.must("activate_volume", { volname });
  assertEquals([await recovery.pass(SETTLE_MS), await open(place)], [["closed"], 0]);
  await Deno.stat(place.linkOf(volname));
});

both("a rename that is not all the way is left until it has settled", async (place) => {
  for (let nth = 1; nth < lastOfRename(place); nth++) {
    const volname = await killedRename(place, nth);
    const was = await arrayState(place);
    const recovery = new Watching(place);
    assertEquals(await recovery.pass(), ["waits"]);
    assertEquals(await recovery.pass(SETTLE_MS - 1_000), ["waits"]);
    assertEquals([nth, await arrayState(place)], [nth, was]);
    assertEquals(await recovery.pass(1_000), ["undone"]);
    await place.must("free_image", { volname, finish: true });
  }
});

both("a template is left until it has its snapshot or has settled", async (place) => {
  const volname = await place.alloc();
  const last = lastOfRename(place) + 1;
  await kill(place, "create_base", { volname }, { nth: last - 1, when: "after" });
  const before = await disks(place);
  const recovery = new Watching(place);
  assertEquals([await recovery.pass(), await disks(place)], [["waits"], before]);
  assertEquals(await recovery.pass(SETTLE_MS), ["undone"]);
  await kill(place, "create_base", { volname }, { nth: last, when: "after" });
  assertEquals(await new Watching(place).pass(), ["waits"]);
  assertEquals([await own(place), await snapshotNames(place)], [["vm-100-disk-0"], []]);
});

Deno.test("an export that the dead process switches off after its rename was taken back is on again", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const volname = await killedRename(place, 4);
  const recovery = new Watching(place);
  await recovery.pass();
  const [row] = (await place.objects()).namespaces ?? [];
  await place.array((nas) =>
    nas.session.call("nvmet.namespace.update", [row?.id, { enabled: false }], { lane: "write" })
  );
  assertEquals([await recovery.pass(SETTLE_MS), await open(place)], [["undone"], 0]);
  assertEquals((await place.objects()).namespaces?.map(({ enabled }) => enabled), [true]);
  await place.must("activate_volume", { volname });
});

/** Puts a volume into a guest's configuration, and a snapshot as PVE does before it asks for one. */
async function nameWithSnapshot(place: Place, volname: string, snapshot: string): Promise<void> {
  const folder = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(
    `${folder}/100.conf`,
    `scsi0: san:${volname},size=64M\n\n[${snapshot}]\nscsi0: san:${volname},size=64M\n` +
      `snapstate: prepare\n`,
  );
}

both("a snapshot that no guest's configuration has goes at once", async (place) => {
  const volname = await place.alloc();
  await name(place, 100, volname);
  await kill(place, "volume_snapshot", { volname, snapshot: "a" }, { nth: 1, when: "after" });
  const recovery = new Watching(place);
  assertEquals([await recovery.pass(), await snapshotNames(place)], [["waits"], []]);
  assertEquals([await recovery.pass(SETTLE_MS), await open(place)], [["closed"], 0]);
});

both("a snapshot that a guest's configuration has stays", async (place) => {
  const volname = await place.alloc();
  await nameWithSnapshot(place, volname, "a");
  await kill(place, "volume_snapshot", { volname, snapshot: "a" }, { nth: 1, when: "after" });
  const recovery = new Watching(place);
  assertEquals(await recovery.pass(), ["waits"]);
  assertEquals(await recovery.pass(SETTLE_MS), ["closed"]);
  assertEquals([await snapshotNames(place), await open(place)], [["a"], 0]);
});

both("this node follows a resize that the array has done at once", async (place) => {
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  const args = { volname, size: 128 << 20 };
  await kill(place, "volume_resize", args, { nth: 1, when: "after" });
  assertEquals(await new Watching(place).pass(), ["waits"]);
  assertEquals((await Deno.stat(place.linkOf(volname))).size, 128 << 20);
});

both("no clock that is set ends a wait", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: 1, when: "after" });
  const was = await own(place);
  const host = linuxHost({ root: place.directory });
  const recovery = new Watching(place);
  for (const step of [0, 86_400_000, -86_400_000, 31_536_000_000]) {
    const found = await recovery.pass(0, { host: { ...host, now: () => host.now() + step } });
    assertEquals([step, found, await own(place)], [step, ["waits"], was]);
  }
  // Nor does what a former process noted by its clock.
  assertEquals(await new Watching(place).pass(SETTLE_MS), ["waits"]);
  assertEquals(writes(place).filter((method) => method.endsWith("delete")), []);
  assertEquals(await recovery.pass(SETTLE_MS), ["undone"]);
});

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}, 26: a killed rename that was all the way is taken back at once`, async () => {
    await using place = await Place.start(transport, { release: "26" });
    const volname = await killedRename(place, lastOfRename(place));
    assertEquals(await new Watching(place).pass(), ["waits"]);
    await place.must("activate_volume", { volname });
  });
}
