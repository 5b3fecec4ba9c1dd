import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { IQN, iscsi, lun, MIB, NOTHING, PORTALS, until, withNode } from "./support.ts";

const [FIRST, SECOND] = PORTALS;
const SCAN = "/sys/class/scsi_host/host0/scan";

Deno.test("a new record has the defaults of iscsid.conf and is readable by root only", () =>
  withNode(async (node) => {
    assertEquals(await node.iscsiadm(FIRST, "new"), 0);
    const path = `/var/lib/iscsi/nodes/${IQN}/${FIRST},3260,1/default`;
    const record = node.read(path);
    assertMatch(record, /^# BEGIN RECORD .*\n(.+ = .*\n)+# END RECORD\n$/);
    assertStringIncludes(record, "node.session.scan = auto\n");
    assertStringIncludes(record, `node.conn[0].address = ${FIRST}\n`);
    assertEquals(statSync(node.at(path)).mode & 0o777, 0o600);
  }));

Deno.test("a new record resets one that exists", () =>
  withNode(async (node) => {
    await node.iscsiadm(FIRST, "new");
    const path = node.at(`/var/lib/iscsi/nodes/${IQN}/${FIRST},3260,1/default`);
    const fresh = readFileSync(path, "utf8");
    writeFileSync(path, "node.session.scan = manual\n");
    await node.iscsiadm(FIRST, "new");
    assertEquals(readFileSync(path, "utf8"), fresh);
  }));

Deno.test("with scan = manual a login shows no LUN, and a scan shows the one asked for", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(0), lun(300)]));
    assertEquals(await node.login(FIRST), 0);
    assertEquals(node.value("/sys/class/iscsi_session/session1/state"), "LOGGED_IN");
    assertEquals(node.list("/sys/block"), []);
    await node.control(SCAN, "0 0 300");
    assertEquals(node.list("/sys/block"), ["sda"]);
    assertEquals(node.value("/sys/block/sda/device/wwid"), `naa.${lun(300).naa}`);
    await node.control(SCAN, "0 0 7");
    assertEquals(node.list("/sys/block"), ["sda"]);
  }, { multipathd: false }));

Deno.test("with the default record a login shows all LUNs", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(0), lun(1)]));
    await node.iscsiadm(FIRST, "new");
    await node.iscsiadm(FIRST, "--login");
    assertEquals(node.list("/sys/block"), ["sda", "sdb"]);
  }, { multipathd: false }));

Deno.test("two portals give two sd disks and a map, all names of one file", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.login(SECOND);
    await node.control(SCAN, "0 0 5");
    await node.control("/sys/class/scsi_host/host1/scan", "0 0 5");
    await node.link(`dm-uuid-mpath-3${lun(5).naa}`);
    await until("both are paths", () => node.list("/sys/block/dm-0/slaves").length === 2);
    assertEquals(node.list("/sys/block"), ["dm-0", "sda", "sdb"]);
    assertEquals(node.list("/sys/block/sdb/holders"), ["dm-0"]);
    const inodes = ["sda", "sdb", "dm-0"].map((name) => node.inode(`/dev/${name}`));
    assertEquals(new Set(inodes).size, 1);
    assertEquals(node.value("/sys/block/dm-0/dm/uuid"), `mpath-3${lun(5).naa}`);
    await until(
      "the map has taken the link",
      () => node.inode(`/dev/disk/by-id/wwn-0x${lun(5).naa}`) === inodes[0],
    );
  }));

Deno.test("a LUN that is re-pointed reads as the new volume under its old identity until a rescan", () =>
  withNode(async (node) => {
    const { player } = node;
    const old = lun(5);
    const other = lun(5, { ...lun(6), lun: 5 });
    await player.createZvol(old.zvol, old.size);
    await player.createZvol(other.zvol, other.size);
    await player.apply(iscsi([old]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    writeFileSync(node.at("/dev/sda"), "old", { flag: "r+" });

    await player.apply(iscsi([other]));
    writeFileSync(node.at("/dev/sda"), "new", { flag: "r+" });
    assertEquals(node.value("/sys/block/sda/device/wwid"), `naa.${old.naa}`);
    assertEquals(node.value("/sys/block/sda/size"), String(old.size / 512));
    assertStringIncludes(node.read("/sys/block/sda/device/vpd_pg80"), old.serial);

    await node.control("/sys/block/sda/device/rescan", "1");
    assertEquals(node.value("/sys/block/sda/device/wwid"), `naa.${other.naa}`);
    assertEquals(node.value("/sys/block/sda/size"), String(other.size / 512));
    assertStringIncludes(node.read("/sys/block/sda/device/vpd_pg80"), other.serial);
    await node.link(`wwn-0x${other.naa}`);
    await until("the old link is gone", () => !node.has(`/dev/disk/by-id/wwn-0x${old.naa}`));

    await player.apply(iscsi([old]));
    assertEquals(readFileSync(node.at("/dev/sda")).toString("utf8", 0, 3), "old");
  }, { multipathd: false }));

Deno.test("a LUN that is gone keeps its disk, which reads nothing and rescans to size 0", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    await node.player.apply(iscsi([]));
    assertEquals(node.value("/sys/block/sda/size"), String(lun(5).size / 512));
    assertEquals(readFileSync(node.at("/dev/sda")).length, 0);
    await node.control("/sys/block/sda/device/rescan", "1");
    assertEquals(node.value("/sys/block/sda/size"), "0");
    assertEquals(node.value("/sys/block/sda/device/wwid"), `naa.${lun(5).naa}`);
  }, { multipathd: false }));

Deno.test("a new size shows after a rescan of the path, and on the map after resize map", () =>
  withNode(async (node) => {
    const { zvol, naa, size } = lun(5);
    await node.player.createZvol(zvol, size);
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    await node.link(`dm-uuid-mpath-3${naa}`);
    await node.player.resizeZvol(zvol, 9 * MIB);
    assertEquals(node.value("/sys/block/sda/size"), String(size / 512));
    await node.control("/sys/block/sda/device/rescan", "1");
    assertEquals(node.value("/sys/block/sda/size"), String(9 * 2048));
    assertEquals(node.value("/sys/block/dm-0/size"), String(size / 512));
    const result = await node.run("/usr/sbin/multipathd", "resize", "map", `3${naa}`);
    assertEquals([result.status, result.out], [0, "ok\n"]);
    assertEquals(node.value("/sys/block/dm-0/size"), String(9 * 2048));
  }));

Deno.test("deleting the last path takes its map along, and a scan brings both back", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    const link = await node.link(`dm-uuid-mpath-3${lun(5).naa}`);
    await node.control("/sys/block/sda/device/delete", "1");
    assertEquals(node.list("/sys/block"), []);
    await until("the link is gone", () => !node.list("/dev/disk/by-id").includes(link));
    await node.control(SCAN, "0 0 5");
    await node.link(link);
  }));

Deno.test("a map that is open cannot be removed, one that is idle can", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    const name = `3${lun(5).naa}`;
    await node.link(`dm-uuid-mpath-${name}`);
    const remove = () => node.run("/usr/sbin/multipathd", "remove", "map", name);
    const file = openSync(node.at("/dev/dm-0"), "r");
    const refused = await remove();
    closeSync(file);
    assertEquals([refused.status, refused.out], [1, "map or partition in use\n"]);
    assertEquals((await remove()).out, "ok\n");
    assertEquals(node.list("/sys/block"), ["sda"]);
    assertEquals((await remove()).status, 1);
    const added = await node.run("/usr/sbin/multipathd", "add", "map", name);
    assertEquals([added.status, node.list("/sys/block")], [0, ["dm-0", "sda"]]);
  }));

Deno.test("without multipathd there is no map and no program", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST);
    await node.control(SCAN, "0 0 5");
    await node.link(`wwn-0x${lun(5).naa}`);
    assertEquals(node.list("/sys/block"), ["sda"]);
    assert(!node.has("/usr/sbin/multipathd"));
  }, { multipathd: false }));

const CHAP = {
  user: "node",
  secret: "secretsecret",
  peerUser: "array",
  peerSecret: "peersecret12",
};
const ONE_WAY = {
  "node.session.auth.authmethod": "CHAP",
  "node.session.auth.username": CHAP.user,
  "node.session.auth.password": CHAP.secret,
};
const TWO_WAY = {
  ...ONE_WAY,
  "node.session.auth.username_in": CHAP.peerUser,
  "node.session.auth.password_in": CHAP.peerSecret,
};

for (
  const [what, settings, status] of [
    ["no secret", {}, 24],
    ["a wrong secret", { ...ONE_WAY, "node.session.auth.password": "wrongwrong12" }, 24],
    ["the secret", ONE_WAY, 0],
    ["a wrong peer secret", { ...TWO_WAY, "node.session.auth.password_in": "wrongwrong12" }, 19],
    ["both secrets", TWO_WAY, 0],
  ] as const
) {
  Deno.test(`where CHAP is asked for, a login with ${what} ends with status ${status}`, () =>
    withNode(async (node) => {
      await node.player.apply(iscsi([], { chap: CHAP }));
      assertEquals(await node.login(FIRST, settings), status);
      assertEquals(node.list("/sys/class/iscsi_session").length, status === 0 ? 1 : 0);
    }));
}

Deno.test("logins end with open-iscsi's statuses for what is wrong", () =>
  withNode(async (node) => {
    await node.player.apply(iscsi([]));
    assertEquals(await node.iscsiadm(FIRST, "--login"), 21, "no record");
    assertEquals(await node.login("10.99.0.77"), 8, "no such portal");
    assertEquals(await node.login(FIRST), 0);
    assertEquals(await node.iscsiadm(FIRST, "--login"), 15, "a session exists");
    await node.player.apply(iscsi([], { initiators: ["iqn.other"] }));
    assertEquals(await node.login(SECOND), 24, "not an initiator of the target");
    await node.player.apply(NOTHING);
    assertEquals(await node.login(SECOND), 8, "no such target");
  }));

Deno.test("what iscsiadm does not do here it refuses with status 7", () =>
  withNode(async (node) => {
    const result = await node.run("/usr/sbin/iscsiadm", "-m", "discovery", "-t", "sendtargets");
    assertEquals(result.status, 7);
    assertStringIncludes(result.err, "-m discovery");
  }));

Deno.test("sessions are listed by iscsiadm and told to the array", () =>
  withNode(async (node) => {
    const list = () => node.run("/usr/sbin/iscsiadm", "-m", "session");
    assertEquals((await list()).status, 21);
    await node.player.apply(iscsi([]));
    await node.login(FIRST);
    assertEquals((await list()).out, `tcp: [1] ${FIRST}:3260,1 ${IQN} (non-flash)\n`);
    const initiator = node.value("/etc/iscsi/initiatorname.iscsi").replace("InitiatorName=", "");
    assertEquals(node.player.sessions().iscsi, [{ iqn: IQN, initiator, address: "10.99.0.2" }]);
  }));

Deno.test("a session whose portal is cut off fails, is set free later, and comes back", () =>
  withNode(async (node) => {
    const state = () => node.value("/sys/class/iscsi_session/session1/state");
    await node.player.apply(iscsi([lun(5)]));
    await node.login(FIRST, { "node.session.timeo.replacement_timeout": "1" });
    await node.control(SCAN, "0 0 5");
    await node.player.setPortalUp(FIRST, 3260, false);
    assertEquals(state(), "FAILED");
    assertEquals(node.value("/sys/block/sda/device/state"), "blocked");
    await until("recovery_tmo has passed", () => state() === "FREE");
    assertEquals(node.value("/sys/block/sda/device/state"), "transport-offline");
    await node.player.setPortalUp(FIRST, 3260, true);
    assertEquals(state(), "LOGGED_IN");
    assertEquals(node.value("/sys/block/sda/device/state"), "running");
  }));

Deno.test("nothing is left in /sys and /dev after logging out", () =>
  withNode(async (node) => {
    const snapshot = () => [...node.walk("/sys"), ...node.walk("/dev")];
    const before = snapshot();
    await node.player.apply(iscsi([lun(1), lun(5)]));
    await node.login(FIRST);
    await node.login(SECOND);
    await node.control(SCAN, "- - -");
    await node.control("/sys/class/scsi_host/host1/scan", "- - -");
    await node.link(`dm-uuid-mpath-3${lun(5).naa}`);
    assertEquals(await node.iscsiadm(FIRST, "--logout"), 0);
    assertEquals(await node.iscsiadm(SECOND, "--logout"), 0);
    assertEquals(await node.iscsiadm(SECOND, "--logout"), 21);
    await until("the links are gone", () => node.list("/dev/disk/by-id").length === 0);
    await until("udev is done", () => node.list("/run/udev/data").length === 0);
    assertEquals(snapshot(), before);
  }));

Deno.test("after the simulator has ended its programs say so at once", () =>
  withNode(async (node) => {
    await node.player.close();
    const result = await node.run("/usr/sbin/iscsiadm", "-m", "session");
    assertEquals(result.status, 20);
    assertStringIncludes(result.err, "gone");
  }));
