/** What a node holds under a name, when the name or the disk has become another's. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Place, type PlaceOptions, TRANSPORTS } from "../support/place.ts";
import { zvolNames } from "./snapshot_support.ts";

const NODES = ["pve1", "pve2"];

function both(
  name: string,
  run: (place: Place) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, { release: "25.10", ...options });
      await run(place);
    });
  }
}

/** Which identity a link names: naa or uuid. */
async function identityOf(place: Place, volname: string, node: string): Promise<string> {
  return (await Deno.readLink(place.linkOf(volname, node))).replace(/^.*[.-]/, "").slice(-32);
}

both(
  "a cloud-init volume that was reassigned keeps its identity under its new name",
  async (place) => {
    const volname = await place.alloc(100, 4096, "vm-100-cloudinit");
    await place.must("activate_volume", { volname }, { node: "pve2" });
    const before = await identityOf(place, volname, "pve2");
    await place.must("rename_volume", { volname, targetVmid: 200 });
    await place.alloc(100, 4096, "vm-100-cloudinit");
    for (const name of [volname, "vm-200-cloudinit"]) {
      await place.must("activate_volume", { volname: name }, { node: "pve2" });
    }
    assertEquals(await identityOf(place, "vm-200-cloudinit", "pve2"), before);
    assertEquals(await identityOf(place, volname, "pve2") === before, false);
  },
  { nodes: NODES },
);

both(
  "a disk that a guest uses by its former name is not attached by its present one",
  async (place) => {
    const volname = await place.alloc();
    await place.must("activate_volume", { volname }, { node: "pve2" });
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    const root = place.node("pve2").directory;
    // A namespace goes with its rename, and comes back.
    const linked = () => Deno.realPath(place.linkOf(volname, "pve2")).catch(() => undefined);
    let device = await linked();
    for (const end = Date.now() + 10_000; device === undefined && Date.now() < end;) {
      await new Promise((done) => setTimeout(done, 20));
      device = await linked();
    }
    assert(device !== undefined);
    await Deno.mkdir(`${root}/proc/4711/fd`, { recursive: true });
    await Deno.writeTextFile(`${root}/proc/4711/comm`, "qemu-system-x86\n");
    await Deno.symlink(
      device.slice((await Deno.realPath(root)).length),
      `${root}/proc/4711/fd/12`,
    );
    const reply = await place.ask("activate_volume", { volname: renamed }, { node: "pve2" });
    assertEquals(reply.error?.code, "in-use");
    assertStringIncludes(reply.error?.message ?? "", "vm-100-disk-0");
    await Deno.remove(`${root}/proc/4711`, { recursive: true });
    await place.must("activate_volume", { volname: renamed }, { node: "pve2" });
    // The former name leads nowhere any more, and letting go of it leaves the present one alone.
    assertEquals(await Deno.lstat(place.linkOf(volname, "pve2")).catch(() => undefined), undefined);
    await place.must("deactivate_volume", { volname }, { node: "pve2" });
    await Deno.stat(place.linkOf(renamed, "pve2"));
  },
  { nodes: NODES },
);

Deno.test("nvme-tcp: what an administrator switches off after a stopped rename was taken back stays off", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const volname = await place.alloc();
  await place.faults([
    { method: "pool.dataset.rename", nth: 1, do: "error", errno: 5 },
    { method: "nvmet.namespace.update", nth: 2, do: "error", errno: 5 },
  ]);
  assertEquals((await place.ask("rename_volume", { volname, targetVmid: 200 })).ok, false);
  await place.faults([]);
  await place.must("activate_volume", { volname });
  await place.must("deactivate_volume", { volname });
  const id = (await place.objects()).namespaces?.[0]?.id;
  await place.array((nas) => nas.namespaces.update(id, { enabled: false }));
  assertEquals((await place.ask("activate_volume", { volname })).error?.code, "config");
});

both("the stale name of a volume does not end the reading of today's snapshot", async (place) => {
  const { stale, today } = await place.replaced();
  await place.must("volume_snapshot", { volname: today, snapshot: "vzdump" });
  await place.must("activate_volume", { volname: today, snapshot: "vzdump" });
  const zvols = await zvolNames(place);
  const reply = await place.ask("deactivate_volume", { volname: stale, snapshot: "vzdump" });
  assertEquals(reply.error?.code, "volume-replaced");
  assertEquals(await zvolNames(place), zvols);
});

Deno.test("iscsi: what waits for a disk that was freed elsewhere fails once the node lets go, but not for a path that is lost", async () => {
  for (const isFreed of [true, false]) {
    await using place = await Place.start("iscsi", { nodes: ["pve1", "pve2"] });
    const volname = await place.alloc();
    await place.must("activate_volume", { volname });
    await place.holdOpen(volname);
    if (isFreed) {
      await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
    } else {
      for (const portal of place.simulator.ready.portals.iscsi) {
        const [address = "", port] = portal.split(":");
        await place.player.setPortalUp(address, Number(port), false);
      }
    }
    const reply = await place.ask("deactivate_volume", { volname }, { deadlineMs: 20_000 });
    assertEquals(reply.error?.code, "in-use");
    const fails = place.log.some((line) => line.includes("what waits for it fails"));
    assertEquals([isFreed, fails], [isFreed, isFreed]);
  }
});
