/** What sysfs shows of portals and disks, without anybody being asked. */
import { assert, assertEquals } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { formatPortal } from "../../src/common/portal.ts";
import { silentLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { openStorage } from "../../src/pve/open_storage.ts";
import type { DiskIdentity } from "../../src/transport/transport.ts";
import { readKnownDisk } from "../../src/volumes/known_disks.ts";
import type { Storage } from "../../src/volumes/storage.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

/** The storage of a place whose host runs no program and connects nowhere. */
async function quietStorage(place: Place): Promise<Storage> {
  const no = () => Promise.reject(new Error("A glance asks nobody"));
  const real = linuxHost({ root: place.directory });
  const host = { ...real, run: no, exchangeTcp: no, connectFabrics: no };
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
  const request = { storage: "san", config: place.config() };
  return await openStorage(request, world, new Deadline(host, 60_000));
}

async function identityOf(storage: Storage, name: string): Promise<DiskIdentity> {
  const known = await readKnownDisk(storage, name);
  assert(known !== undefined);
  return known.identity;
}

for (const transport of TRANSPORTS) {
  const test = (name: string, run: (place: Place, storage: Storage) => Promise<void>) =>
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport);
      await run(place, await quietStorage(place));
    });

  test("a portal is missing, live or recovering", async (place, storage) => {
    const states = async () => (await storage.transport.portals()).map(({ state }) => state);
    assertEquals(await states(), ["missing", "missing"]);
    await place.must("activate_storage");
    assertEquals(await states(), ["live", "live"]);
    const second = (await storage.transport.portals())[1]?.portal;
    assert(second !== undefined);
    await place.player.setPortalUp(second.address, second.port, false);
    assertEquals(await states(), ["live", "recovering"]);
  });

  test("one portal is connected, and once more is fine", async (place, quiet) => {
    const host = linuxHost({ root: place.directory });
    const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
    const request = { storage: "san", config: place.config() };
    const storage = await openStorage(request, world, new Deadline(host, 60_000));
    const second = (await quiet.transport.portals())[1]?.portal;
    assert(second !== undefined);
    for (let time = 0; time < 2; time++) {
      await storage.transport.connectPortal(second, storage.deadline);
    }
    assertEquals(
      (await quiet.transport.portals()).map(({ portal, state }) => [formatPortal(portal), state]),
      (await storage.transport.portals()).map(({ portal }, index) => [
        formatPortal(portal),
        index === 1 ? "live" : "missing",
      ]),
    );
  });

  test(
    "a disk shows its device, size and paths, and what is not here shows nothing",
    async (place, storage) => {
      const volname = await place.alloc();
      await place.must("activate_volume", { volname });
      const identity = await identityOf(storage, "vm-100-disk-0");
      const absent: DiskIdentity = identity.kind === "iscsi"
        ? { ...identity, naa: identity.naa.replace(/^.{4}/, "7fff") }
        : { ...identity, uuid: crypto.randomUUID() };
      const { disks, strays } = await storage.transport.glance([absent, identity]);
      assertEquals([disks[0], strays], [undefined, []]);
      const root = await Deno.realPath(place.directory);
      const node = (await Deno.realPath(place.linkOf(volname))).slice(root.length);
      const { mark: _, ...shown } = disks[1] ?? {};
      assertEquals(shown, {
        device: node,
        size: 64 << 20,
        paths: { up: 2, configured: 2 },
        lost: 0,
        strangers: [],
      });
    },
  );
}

Deno.test("iscsi: a disk that was not asked for is a stray, with its LUN", async () => {
  await using place = await Place.start("iscsi");
  const storage = await quietStorage(place);
  await place.must("activate_volume", { volname: await place.alloc() });
  const identity = await identityOf(storage, "vm-100-disk-0");
  assertEquals(await storage.transport.glance([]), { disks: [], strays: [identity] });
});

Deno.test("iscsi: a session without a path to the disk is a lost path", async () => {
  await using place = await Place.start("iscsi");
  const storage = await quietStorage(place);
  const [, second] = await storage.transport.portals();
  assert(second !== undefined);
  await place.player.setPortalUp(second.portal.address, second.portal.port, false);
  await place.must("activate_volume", { volname: await place.alloc() });
  await place.player.setPortalUp(second.portal.address, second.portal.port, true);
  await place.must("activate_storage");
  const identity = await identityOf(storage, "vm-100-disk-0");
  const [disk] = (await storage.transport.glance([identity])).disks;
  assertEquals([disk?.paths, disk?.lost], [{ up: 1, configured: 2 }, 1]);
});

Deno.test("iscsi: the mark stays while the disk does, and is another one for one that came back", async () => {
  await using place = await Place.start("iscsi");
  const storage = await quietStorage(place);
  const volname = await place.alloc();
  await place.must("activate_volume", { volname });
  const identity = await identityOf(storage, "vm-100-disk-0");
  const mark = async () => (await storage.transport.glance([identity])).disks[0]?.mark;
  const before = await mark();
  assertEquals(await mark(), before);
  await place.must("deactivate_volume", { volname });
  await place.must("activate_volume", { volname });
  assert(await mark() !== before, before);
});
