/** Our side of the protocol against the simulator's player: a disk's life on the node over both transports. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import type { Host } from "../../src/host/host.ts";
import { usersOf } from "../../src/host/in_use.ts";
import { deleteDisk, login, rescanDisk, scanLun } from "../../src/host/iscsi_admin.ts";
import { ensureLink, linkPath, multipathTarget, nvmeTarget } from "../../src/host/links.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { disableQueueing, removeMap, resizeMap } from "../../src/host/multipath.ts";
import { connectPortal, hostIdentity, rescanController } from "../../src/host/nvme_fabrics.ts";
import { scanBlockDevices } from "../../src/host/scan/block_devices.ts";
import { identify } from "../../src/host/scan/identify.ts";
import { findNvmeNamespace, scanNvmeControllers } from "../../src/host/scan/nvme.ts";
import { findScsiPaths, scanIscsiSessions } from "../../src/host/scan/scsi.ts";
import { waitUntil } from "../../src/host/wait_until.ts";
import {
  iscsi,
  lun,
  MIB,
  namespace,
  NQN,
  nvme,
  PORTALS,
  type TestNode,
  withNode,
} from "../simulator/host_player/support.ts";

const IQN = "iqn.2005-10.org.freenas.ctl:pve-storage";
const IC_RESPONSE = Uint8Array.from({ length: 128 }, (_, index) => [1, 0, 128, 0, 128][index] ?? 0);
const LONG = { deadlineMs: 20_000 };

/** The host of a simulated node whose portals all answer: nobody listens on their addresses here. */
function hostOf(node: TestNode): Host {
  return {
    ...linuxHost({ root: node.player.directory }),
    exchangeTcp: (_address, _port, _send, expect) => Promise.resolve(IC_RESPONSE.slice(0, expect)),
  };
}

async function connectAll(host: Host): Promise<void> {
  const identity = await hostIdentity(host);
  for (const address of PORTALS) {
    await connectPortal(host, { ...identity, portal: { address, port: 4420 }, nqn: NQN });
  }
}

async function until<T>(host: Host, probe: () => Promise<T | undefined>): Promise<T> {
  const found = await waitUntil(host, LONG, probe);
  assert(found !== undefined, "waited in vain");
  return found.value;
}

Deno.test("a namespace appears, is linked, grows and goes", async () => {
  await withNode(async (node) => {
    const host = hostOf(node);
    const wanted = namespace(7);
    await node.player.apply(nvme([namespace(1), wanted]));
    await connectAll(host);
    assertEquals(
      (await scanNvmeControllers(host.files)).map(({ portal, state }) => [portal?.address, state]),
      PORTALS.map((address) => [address, "live"]),
    );

    const look = () => findNvmeNamespace(host.files, { nqn: NQN, uuid: wanted.uuid });
    const disk = await until(host, async () => (await look()).disk);
    assertEquals([disk.kind, disk.nsid, disk.sizeBytes], ["head", 7, wanted.size]);

    const path = linkPath("san", "vm-7-disk-0");
    await ensureLink(host, path, nvmeTarget(wanted.uuid));
    const reached = await until(host, () => identify(host.files, path));
    assertEquals([reached.kind, reached.uuid, reached.name], ["nvme", wanted.uuid, disk.name]);
    assertEquals((await usersOf(host, path)).by, []);

    await node.player.apply(nvme([namespace(1), { ...wanted, size: 9 * MIB }]));
    await until(host, async () => (await look()).disk?.sizeBytes === 9 * MIB || undefined);
    for (const { name } of await scanNvmeControllers(host.files)) {
      assertEquals(await rescanController(host, name), true);
    }
    await node.player.apply(nvme([namespace(1)]));
    await until(host, async () => (await look()).candidates.length === 0 || undefined);
    assertEquals(
      await until(host, async () => await identify(host.files, path) === undefined),
      true,
    );
  });
});

Deno.test("a second connect to a portal finds the first", async () => {
  await withNode(async (node) => {
    const host = hostOf(node);
    await node.player.apply(nvme([namespace(1)]));
    await connectAll(host);
    const identity = await hostIdentity(host);
    const connection = { ...identity, portal: { address: PORTALS[0], port: 4420 }, nqn: NQN };
    assertEquals(await connectPortal(host, connection), { already: true, controller: undefined });
    const error = await assertRejects(() => connectPortal(host, { ...connection, nqn: `${NQN}x` }));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "denied");
  });
});

Deno.test("a LUN is scanned in on both portals, mapped, grown and removed", async () => {
  await withNode(async (node) => {
    const host = hostOf(node);
    const wanted = lun(300);
    await node.player.apply(iscsi([lun(0), wanted]));
    for (const address of PORTALS) {
      const portal = { address, port: 3260 };
      assertEquals(await login(host, { iqn: IQN, portal }), { already: false });
      assertEquals(await login(host, { iqn: IQN, portal }), { already: true });
    }
    const sessions = await scanIscsiSessions(host.files);
    assertEquals(sessions.map(({ state }) => state), ["LOGGED_IN", "LOGGED_IN"]);
    assertEquals((await scanBlockDevices(host.files)).scsi.disks, []);

    await Promise.all(sessions.map((session) => scanLun(host, session, 300)));
    const paths = await findScsiPaths(host.files, { iqn: IQN, lun: 300 });
    assertEquals(paths.map(({ naa }) => naa), [wanted.naa, wanted.naa]);

    const map = await until(host, async () => {
      const { maps } = (await scanBlockDevices(host.files)).scsi;
      const found = maps.find(({ naa }) => naa === wanted.naa);
      return found?.slaves.length === 2 ? found : undefined;
    });
    assertEquals([...map.slaves], paths.map(({ name }) => name).sort());
    const path = linkPath("san", "vm-300-disk-0");
    await ensureLink(host, path, multipathTarget(wanted.naa));
    const reached = await until(host, () => identify(host.files, path));
    assertEquals([reached.kind, reached.naa], ["multipath", wanted.naa]);

    await node.player.apply(iscsi([lun(0), { ...wanted, size: 400 * MIB }]));
    for (const disk of paths) {
      const session = sessions.find(({ name }) => name === disk.session);
      assert(session !== undefined);
      assertEquals(await rescanDisk(host, session, disk), true);
    }
    await resizeMap(host, map);
    assertEquals((await identify(host.files, path))?.sizeBytes, 400 * MIB);

    await disableQueueing(host, map);
    await removeMap(host, map);
    for (const disk of paths) assertEquals(await deleteDisk(host, disk), true);
    assertEquals(await findScsiPaths(host.files, { iqn: IQN, lun: 300 }), []);
    for (const disk of paths) assertEquals(await deleteDisk(host, disk), false);
  });
});

Deno.test("a reused LUN shows the old identity until it is rescanned", async () => {
  await withNode(async (node) => {
    const host = hostOf(node);
    const [before, after] = [lun(5), lun(5, { naa: "6589cfc000000" + "b".repeat(19) })];
    await node.player.apply(iscsi([before]));
    await login(host, { iqn: IQN, portal: { address: PORTALS[0], port: 3260 } });
    const session = (await scanIscsiSessions(host.files))[0];
    assert(session !== undefined);
    await scanLun(host, session, 5);
    await node.player.apply(iscsi([after]));
    const stale = (await findScsiPaths(host.files, { iqn: IQN, lun: 5 }))[0];
    assert(stale !== undefined);
    assertEquals(stale.naa, before.naa);
    await rescanDisk(host, session, stale);
    const fresh = (await findScsiPaths(host.files, { iqn: IQN, lun: 5 }))[0];
    assertEquals(fresh?.naa, after.naa);
    // What was meant by its old identity is not there any more, and is not removed by its name.
    assertEquals(await deleteDisk(host, stale), false);
  });
});

Deno.test("CHAP is taken from the record, and a wrong secret is told as such", async () => {
  await withNode(async (node) => {
    const host = hostOf(node);
    const chap = { user: "pve", secret: "throw-away-1234" };
    await node.player.apply(iscsi([lun(1)], { chap }));
    const request = { iqn: IQN, portal: { address: PORTALS[0], port: 3260 } };
    const wrong = { user: "pve", password: "throw-away-5678", peer: undefined };
    const error = await assertRejects(() => login(host, { ...request, chap: wrong }));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "auth");
    assertStringIncludes(error.message, "did not accept the CHAP name and secret");
    const right = { ...wrong, password: chap.secret };
    assertEquals(await login(host, { ...request, chap: right }), { already: false });
  });
});
