/** A portal that falls silent, and multipathd's ways with paths of different sizes. */
import { assertEquals } from "@std/assert";
import { IQN, iscsi, lun, MIB, PORTALS, type TestNode, until, withNode } from "./support.ts";

const [FIRST, SECOND] = PORTALS;
const MULTIPATHD = "/usr/sbin/multipathd";
const map = `3${lun(5).naa}`;

/** A node with a map over both portals' paths to LUN 5. */
async function withMap(work: (node: TestNode) => Promise<void>): Promise<void> {
  await withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    for (const address of PORTALS) {
      await node.login(address, {
        "node.conn[0].timeo.noop_out_interval": "0",
        "node.conn[0].timeo.noop_out_timeout": "0",
      });
    }
    for (const host of [0, 1]) {
      await node.control(`/sys/class/scsi_host/host${host}/scan`, "0 0 5");
    }
    await until(
      "the map has both paths",
      () => node.has("/sys/block/dm-0/slaves/sda") && node.has("/sys/block/dm-0/slaves/sdb"),
    );
    await work(node);
  });
}

const size = (node: TestNode, disk: string) => 512 * Number(node.value(`/sys/block/${disk}/size`));
const asked = async (node: TestNode, ...args: string[]) =>
  (await node.run(MULTIPATHD, ...args)).out.trim();

Deno.test("a session whose portal is silent stays logged in until its noops time out, then waits, then fails", async () => {
  await withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST, {
      "node.session.timeo.replacement_timeout": "0",
      "node.conn[0].timeo.noop_out_interval": "0",
      "node.conn[0].timeo.noop_out_timeout": "1",
    });
    const state = () => node.value("/sys/class/iscsi_session/session1/state");
    await node.player.setPortalSilent(FIRST, 3260, true);
    assertEquals(state(), "LOGGED_IN");
    await until("it is noticed", () => state() === "FREE");
    await node.player.setPortalSilent(FIRST, 3260, false);
    assertEquals(state(), "LOGGED_IN");
  });
});

Deno.test("a rescan through a silent portal hangs until the kernel gives up, and changes nothing", async () => {
  await withMap(async (node) => {
    await node.player.setPortalSilent(FIRST, 3260, true);
    await node.player.apply(iscsi([lun(5, { size: 12 * MIB })]));
    Deno.writeTextFileSync(node.at("/sys/class/iscsi_session/session1/recovery_tmo"), "0\n");
    for (const disk of ["sda", "sdb"]) await node.control(`/sys/block/${disk}/device/rescan`, "1");
    const sizes = ["sda", "sdb"].map((disk) => size(node, disk)).sort((a, b) => a - b);
    assertEquals(sizes, [6 * MIB, 12 * MIB]);
  });
});

Deno.test("a map is not resized while its paths differ, and is once the old one is out of it", async () => {
  await withMap(async (node) => {
    await node.player.apply(iscsi([lun(5, { size: 12 * MIB })]));
    await node.control("/sys/block/sda/device/rescan", "1");
    assertEquals(await asked(node, "resize", "map", map), "fail");
    assertEquals(await asked(node, "del", "path", "sdb"), "ok");
    assertEquals(node.list("/sys/block/dm-0/slaves"), ["sda"]);
    assertEquals(node.list("/sys/block/sdb/holders"), []);
    assertEquals(await asked(node, "resize", "map", map), "ok");
    assertEquals(size(node, "dm-0"), 12 * MIB);
    // A path of the old size is refused; after a rescan it is taken.
    assertEquals(await asked(node, "add", "path", "sdb"), "fail");
    await node.control("/sys/block/sdb/device/rescan", "1");
    assertEquals(await asked(node, "add", "path", "sdb"), "ok");
    assertEquals(node.list("/sys/block/dm-0/slaves"), ["sda", "sdb"]);
  });
});

Deno.test("a new path of another size than its map is not taken", async () => {
  await withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    for (const address of [FIRST, SECOND]) await node.login(address);
    await node.control("/sys/class/scsi_host/host0/scan", "0 0 5");
    await until("the map is there", () => node.has("/sys/block/dm-0/slaves/sda"));
    await node.player.apply(iscsi([lun(5, { size: 12 * MIB })]));
    await node.control("/sys/class/scsi_host/host1/scan", "0 0 5");
    await until(
      "udev is done",
      () => node.has(`/dev/disk/by-path/ip-${SECOND}:3260-iscsi-${IQN}-lun-5`),
    );
    assertEquals(await asked(node, "add", "path", "sdb"), "fail");
    assertEquals(node.list("/sys/block/dm-0/slaves"), ["sda"]);
  });
});

Deno.test("blockdev flushes what is there", async () => {
  await withMap(async (node) => {
    const done = await node.run("/usr/sbin/blockdev", "--flushbufs", "/dev/dm-0", "/dev/sda");
    assertEquals([done.status, node.player.flushed], [0, ["/dev/dm-0", "/dev/sda"]]);
    const missing = await node.run("/usr/sbin/blockdev", "--flushbufs", "/dev/dm-9");
    assertEquals(missing.status, 1);
  });
});
