import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostPlayer } from "../../../src/simulator/host_player/player.ts";
import { namespace, nvme, PORTALS, TestNode, withNode } from "./support.ts";

async function withFolder(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "tnblock-setup-"));
  try {
    await use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

Deno.test("a fresh node has its identities, empty /sys and /dev, and its programs", () =>
  withNode((node) => {
    const hostId = node.value("/etc/nvme/hostid");
    assertMatch(hostId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    assertEquals(node.value("/etc/nvme/hostnqn"), `nqn.2014-08.org.nvmexpress:uuid:${hostId}`);
    assertMatch(node.read("/etc/iscsi/initiatorname.iscsi"), /^InitiatorName=iqn\.\S+\n$/);
    assertEquals(node.value("/etc/pve/priv/tnblock/cluster-id"), "c");
    assertEquals(node.list("/etc/pve/priv/storage"), []);
    assertEquals(node.list("/sys/block"), []);
    assertEquals(node.list("/dev/disk/by-id"), []);
    for (const program of ["iscsiadm", "multipathd"]) {
      assertEquals(statSync(node.at(`/usr/sbin/${program}`)).mode & 0o111, 0o111);
    }
    return Promise.resolve();
  }));

Deno.test("a folder with somebody else's /sys is refused and left as it is", () =>
  withFolder(async (directory) => {
    mkdirSync(join(directory, "sys"));
    writeFileSync(join(directory, "sys", "precious"), "");
    await assertRejects(() => hostPlayer({ directory, clusterId: "c" }), "no simulator made");
    assert(existsSync(join(directory, "sys", "precious")));
    assert(!existsSync(join(directory, "etc")));
  }));

Deno.test("a simulated node that is played again is booted anew and keeps who it is", () =>
  withFolder(async (directory) => {
    const first = await hostPlayer({ directory, clusterId: "c" });
    const node = new TestNode(first);
    await first.apply(nvme([namespace(1)]));
    await node.connectTo(PORTALS[0]);
    const hostId = node.value("/etc/nvme/hostid");
    await first.close();
    assert(node.has("/sys/block/nvme0n1"));

    const second = await hostPlayer({ directory, clusterId: "c" });
    await second.close();
    assertEquals(node.list("/sys/block"), []);
    assertEquals(node.value("/etc/nvme/hostid"), hostId);
  }));

Deno.test("a closed node takes no more orders", () =>
  withNode(async ({ player }) => {
    await player.close();
    await player.close();
    await assertRejects(() => player.createZvol("tank/pve/vm-1-disk-0", 512), "closed");
  }));
