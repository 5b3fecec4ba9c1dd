import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { readFileSync, writeFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import {
  connectString,
  HOST_NQN,
  MIB,
  namespace,
  NOTHING,
  NQN,
  nvme,
  PORTALS,
  until,
  withNode,
} from "./support.ts";

const [FIRST, SECOND] = PORTALS;
const KEY = dhchapSecret(1);
const OTHER_KEY = dhchapSecret(2);
const DAMAGED_KEY = dhchapSecret(1, 1);

/** A secret as nvme-cli makes them: 32 bytes (here all alike) and their CRC-32 in base64. */
function dhchapSecret(byte: number, damage = 0): string {
  const bytes = Buffer.alloc(36, byte);
  bytes.writeUInt32LE((crc32(bytes.subarray(0, 32)) + damage) % 2 ** 32, 32);
  return `DHHC-1:01:${bytes.toString("base64")}:`;
}

Deno.test("two portals give one disk with two hidden paths and one node", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(7)]));
    assertEquals(await node.connectTo(FIRST), "instance=0,cntlid=1");
    assertEquals(await node.connectTo(SECOND), "instance=1,cntlid=2");
    assertEquals(node.list("/sys/block"), ["nvme0c0n1", "nvme0c1n1", "nvme0n1"]);
    assertEquals(
      node.value("/sys/block/nvme0c1n1/device/address").slice(0, 16),
      "traddr=10.99.1.1",
    );
    assertEquals(node.value("/sys/block/nvme0n1/nsid"), "7");
    assertEquals(node.value("/sys/block/nvme0n1/size"), String(7 * 2048));
    const nodes = node.list("/dev").filter((name) => /^nvme\d+(c\d+)?n\d+$/.test(name));
    assertEquals(nodes, ["nvme0n1"]);
  }));

Deno.test("the number in a disk's name says nothing about its nsid", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(1), namespace(2), namespace(3)]));
    await node.connectTo(FIRST);
    const nsids = [1, 2, 3].map((x) => node.value(`/sys/block/nvme0n${x}/nsid`));
    assertEquals(nsids, ["3", "2", "1"]);
  }));

Deno.test("namespaces come, grow and go by themselves", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([]));
    await node.connectTo(FIRST);
    await node.player.apply(nvme([namespace(5)]));
    const link = await node.link(`nvme-uuid.${namespace(5).uuid}`);
    await node.player.resizeZvol(namespace(5).zvol, 6 * MIB);
    assertEquals(node.value("/sys/block/nvme0n1/size"), String(6 * 2048));
    await node.player.apply(nvme([]));
    assertEquals(node.list("/sys/block"), []);
    await until("the link is gone", () => !node.list("/dev/disk/by-id").includes(link));
  }));

Deno.test("a link appears only some time after the disk, with its udev record", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(5)]));
    await node.connectTo(FIRST);
    const link = `nvme-uuid.${namespace(5).uuid}`;
    assertEquals(node.list("/dev/disk/by-id"), []);
    await node.link(link);
    assert(node.has(`/run/udev/data/b${node.value("/sys/block/nvme0n1/dev")}`));
    assertEquals(node.inode(`/dev/disk/by-id/${link}`), node.inode("/dev/nvme0n1"));
  }, { udevDelayMs: 300 }));

Deno.test("a uuid that changes under its nsid shows up only after another scan", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(4)]));
    await node.connectTo(FIRST);
    const uuid = "aaaaaaaa-bbbb-4ccc-8ddd-000000000012";
    const replaced = namespace(4, { uuid, zvol: "tank/pve/vm-9-disk-0" });
    await node.player.apply(nvme([replaced]));
    assertEquals(node.list("/sys/block"), []);
    await node.control("/sys/class/nvme/nvme0/rescan_controller", "1");
    assertEquals(node.value("/sys/block/nvme0n1/uuid"), uuid);
  }));

Deno.test("a controller whose portal is cut off stays, connecting, and comes back", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(1)]));
    await node.connectTo(FIRST);
    await node.connectTo(SECOND);
    await node.player.setPortalUp(SECOND, 4420, false);
    assertEquals(node.value("/sys/class/nvme/nvme1/state"), "connecting");
    assertEquals(node.value("/sys/class/nvme/nvme1/address"), "traddr=10.99.1.1,trsvcid=4420");
    await node.player.apply(nvme([namespace(1), namespace(2)]));
    assertEquals(node.list("/sys/block"), [
      "nvme0c0n1",
      "nvme0c0n2",
      "nvme0c1n1",
      "nvme0n1",
      "nvme0n2",
    ]);
    await node.player.setPortalUp(SECOND, 4420, true);
    assertEquals(node.value("/sys/class/nvme/nvme1/state"), "live");
    assert(node.has("/sys/block/nvme0c1n2"));
  }));

Deno.test("a controller is given up when its ctrl_loss_tmo has passed", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(1)]));
    await node.connect(connectString(FIRST).replace("ctrl_loss_tmo=600", "ctrl_loss_tmo=0"));
    await node.player.setPortalUp(FIRST, 4420, false);
    await until("the controller is gone", () => !node.has("/sys/class/nvme/nvme0"));
    assertEquals(node.list("/sys/block"), []);
  }));

Deno.test("any text in delete_controller disconnects", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(1)]));
    await node.connectTo(FIRST);
    await node.control("/sys/class/nvme/nvme0/delete_controller", "0");
    assertEquals(node.list("/sys/class/nvme"), []);
    assertEquals(node.list("/sys/devices/virtual/nvme-subsystem"), []);
  }));

Deno.test("a second subsystem takes the number of its own first controller", () =>
  withNode(async (node) => {
    const other = `${NQN}-backup`;
    const [one] = nvme([namespace(1)]).nvmet.subsystems;
    const [two] = nvme([namespace(2)], { nqn: other }).nvmet.subsystems;
    assert(one !== undefined && two !== undefined);
    await node.player.apply({ ...NOTHING, nvmet: { running: true, subsystems: [one, two] } });
    await node.connectTo(FIRST);
    await node.connectTo(SECOND);
    await node.connect(connectString(FIRST, other));
    assertEquals(node.list("/sys/class/nvme-subsystem"), ["nvme-subsys0", "nvme-subsys2"]);
    assert(node.has("/sys/block/nvme2n1") && node.has("/sys/block/nvme2c2n1"));
  }));

for (
  const [what, text, error] of [
    ["an unknown NQN", connectString(FIRST, "nqn.2011-06.com.truenas:none"), "EIO"],
    ["a portal that nobody exports", connectString("10.99.0.77"), "ECONNREFUSED"],
    ["an unknown option", `${connectString(FIRST)},wrong=1`, "EINVAL"],
    ["a name as address", connectString("array.example"), "EINVAL"],
    ["another transport", connectString(FIRST).replace("tcp", "rdma"), "EINVAL"],
    ["a secret without its shape", `${connectString(FIRST)},dhchap_secret=abc`, "EINVAL"],
    ["a host NQN alone", connectString(FIRST).replace(/,hostid=[^,]*/, ""), "EINVAL"],
  ] as const
) {
  Deno.test(`connecting to ${what} is ${error}`, () =>
    withNode(async (node) => {
      await node.player.apply(nvme([]));
      assertEquals(await node.connect(text), `error=${error}`);
    }));
}

Deno.test("connecting twice is EALREADY", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([]));
    await node.connectTo(FIRST);
    assertEquals(await node.connectTo(FIRST), "error=EALREADY");
  }));

Deno.test("a host id that belongs to another host NQN is EINVAL", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([]));
    await node.connectTo(FIRST);
    const text = connectString(SECOND).replace(HOST_NQN, `${HOST_NQN.slice(0, -1)}1`);
    assertEquals(await node.connect(text), "error=EINVAL");
  }));

Deno.test("a host that is not allowed gets EIO", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([], { allowAnyHost: false, hosts: [{ nqn: "nqn.other" }] }));
    assertEquals(await node.connectTo(FIRST), "error=EIO");
  }));

for (
  const [what, more, answer] of [
    ["no secret", "", "error=ENOKEY"],
    ["a wrong secret", `,dhchap_secret=${OTHER_KEY}`, "error=EKEYREJECTED"],
    ["a damaged secret", `,dhchap_secret=${DAMAGED_KEY}`, "error=EKEYREJECTED"],
    ["the secret", `,dhchap_secret=${KEY}`, "instance=0,cntlid=1"],
    [
      "a wrong controller secret",
      `,dhchap_secret=${KEY},dhchap_ctrl_secret=${KEY}`,
      "error=EKEYREJECTED",
    ],
    [
      "both secrets",
      `,dhchap_secret=${KEY},dhchap_ctrl_secret=${OTHER_KEY}`,
      "instance=0,cntlid=1",
    ],
  ] as const
) {
  Deno.test(`where a secret is wanted, ${what} gives ${answer}`, () =>
    withNode(async (node) => {
      const hosts = [{ nqn: HOST_NQN, key: KEY, controllerKey: OTHER_KEY }];
      await node.player.apply(nvme([], { allowAnyHost: false, hosts }));
      assertEquals(await node.connectTo(FIRST, more), answer);
    }));
}

Deno.test("what is written through a disk survives disconnecting and is what a clone shows", () =>
  withNode(async (node) => {
    const { player } = node;
    const disk = namespace(1);
    await player.createZvol(disk.zvol, disk.size);
    await player.apply(nvme([disk]));
    await node.connectTo(FIRST);
    writeFileSync(node.at("/dev/nvme0n1"), "a guest's data", { flag: "r+" });
    await player.createSnapshot(disk.zvol, "before");
    writeFileSync(node.at("/dev/nvme0n1"), "something else", { flag: "r+" });
    await node.control("/sys/class/nvme/nvme0/delete_controller", "1");

    const clone = namespace(2, { size: disk.size });
    await player.createZvol(clone.zvol, clone.size, `${disk.zvol}@before`);
    await player.apply(nvme([disk, clone]));
    await node.connectTo(FIRST);
    const contents = [1, 2].map((x) =>
      [
        node.value(`/sys/block/nvme0n${x}/nsid`),
        readFileSync(node.at(`/dev/nvme0n${x}`)).toString("utf8", 0, 14),
      ].join(" ")
    );
    assertEquals(contents.sort(), ["1 something else", "2 a guest's data"]);
  }));

Deno.test("without native multipath every path is a disk with a node", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([namespace(1)]));
    await node.connectTo(FIRST);
    await node.connectTo(SECOND);
    assertEquals(node.list("/sys/block"), ["nvme0n1", "nvme1n1"]);
    assertEquals(node.inode("/dev/nvme0n1"), node.inode("/dev/nvme1n1"));
    assertEquals(node.value("/sys/module/nvme_core/parameters/multipath"), "N");
  }, { multipath: false }));

Deno.test("who is connected is told to the array, with the node's own address", () =>
  withNode(async (node) => {
    await node.player.apply(nvme([]));
    await node.connectTo(FIRST);
    assertEquals(node.player.sessions().nvmet, [
      { nqn: NQN, hostNqn: HOST_NQN, address: "10.99.0.2", portAddress: FIRST },
    ]);
    await node.player.setPortalUp(FIRST, 4420, false);
    assertEquals(node.player.sessions().nvmet, []);
  }));

Deno.test("nothing is left in /sys and /dev when all exports are gone", () =>
  withNode(async (node) => {
    const snapshot = () => [...node.walk("/sys"), ...node.walk("/dev")];
    const before = snapshot();
    await node.player.apply(nvme([namespace(1), namespace(2)]));
    await node.connectTo(FIRST);
    await node.connectTo(SECOND);
    await node.link(`nvme-uuid.${namespace(1).uuid}`);
    assertNotEquals(snapshot(), before);
    await node.player.apply(NOTHING);
    await until("the links are gone", () => node.list("/dev/disk/by-id").length === 0);
    assertEquals(snapshot(), before);
    assertEquals(node.list("/run/udev/data"), []);
  }));

Deno.test("the idle fabrics device tells the options the kernel takes", () =>
  withNode((node) => {
    assertMatch(node.read("/dev/nvme-fabrics"), /^instance=-1,cntlid=-1,.*dhchap_secret=%s.*\n$/);
    return Promise.resolve();
  }));
