import { assertEquals } from "@std/assert";
import type { Host } from "../../src/host/host.ts";
import { deviceOfDev, parseLockedInodes, usersOf } from "../../src/host/in_use.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";

const MAP = "/dev/disk/by-id/dm-uuid-mpath-36589cfc000000e41f2a3b4c5d6e7f003";

/** A process of the node that has a device open. */
async function process(node: NodeFolder, pid: number, name: string, device: string): Promise<void> {
  await node.write(`/proc/${pid}/comm`, `${name}\n`);
  await node.link(`/proc/${pid}/fd/0`, "/dev/null");
  await node.link(`/proc/${pid}/fd/14`, device);
}

function claimed(host: Host, claim: "free" | "busy" | "unknown"): Host {
  return { ...host, probeExclusive: () => Promise.resolve(claim) };
}

Deno.test("a disk that nobody has is free", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host }) => {
    assertEquals(await usersOf(claimed(host, "free"), MAP), {
      inUse: false,
      by: [],
      certain: true,
    });
    assertEquals((await usersOf(claimed(host, "unknown"), MAP)).certain, false);
  });
});

Deno.test("a process that has the disk open is named, through whatever link it opened it", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    const resolved = await node.host.files.resolve(MAP);
    await process(node, 4711, "qemu-system-x86", resolved ?? "?");
    const use = await usersOf(claimed(node.host, "free"), MAP);
    assertEquals(use.by, ["qemu-system-x86 (process 4711)"]);
    assertEquals(use.inUse, true);
  });
});

Deno.test("caretakers and users of other disks do not count", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    await process(node, 50, "multipathd", "/dev/sda");
    await process(node, 51, "(udev-worker)", "/dev/sda");
    await process(node, 52, "qemu-system-x86", "/dev/sdc");
    const use = await usersOf(claimed(node.host, "free"), "/dev/dm-0", ["/dev/sda", "/dev/sdb"]);
    assertEquals(use.by, []);
  });
});

Deno.test("who opened a single path past the map is a user", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    await process(node, 60, "dd", "/dev/sdb");
    const host = claimed(node.host, "free");
    assertEquals((await usersOf(host, "/dev/dm-0", ["/dev/sda", "/dev/sdb"])).by, [
      "dd (process 60)",
    ]);
    assertEquals((await usersOf(host, "/dev/dm-0")).by, []);
  });
});

Deno.test("a device on top of the disk is a user; the map over its own paths is none", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host, write }) => {
    const paths = ["/dev/sda", "/dev/sdb"];
    assertEquals((await usersOf(claimed(host, "free"), "/dev/dm-0", paths)).inUse, false);
    await write("/sys/devices/virtual/block/dm-0/holders/dm-9", "");
    assertEquals((await usersOf(claimed(host, "busy"), "/dev/dm-0", paths)).by, [
      "the device dm-9 on top of it",
    ]);
    assertEquals((await usersOf(claimed(host, "busy"), "/dev/sda")).by, [
      "the device dm-0 on top of it",
    ]);
  });
});

Deno.test("the lock of a virtual machine is seen when its process is not", async () => {
  await withNode("iscsi-2portal", async ({ host, write }) => {
    const inode = (await host.files.status("/dev/sda"))?.inode;
    await write("/proc/locks", `1: OFDLCK ADVISORY  READ  -1 00:06:${inode} 100 101\n`);
    assertEquals((await usersOf(claimed(host, "free"), "/dev/sda")).by, [
      "a virtual machine that has locked it",
    ]);
    assertEquals((await usersOf(claimed(host, "free"), "/dev/sdb")).inUse, false);
  });
});

Deno.test("a claim of the kernel that nothing else explains is a mount", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    assertEquals(await usersOf(claimed(host, "busy"), "/dev/sda"), {
      inUse: true,
      by: ["a mount or another part of the kernel"],
      certain: true,
    });
  });
});

Deno.test("a disk that is gone has no users", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    assertEquals((await usersOf(host, "/dev/tnblock/san/none")).inUse, false);
  });
});

Deno.test("locks are read by kind and file system", () => {
  const locks = [
    "1: POSIX  ADVISORY  WRITE 712 00:06:11 0 EOF",
    "2: OFDLCK ADVISORY  READ  -1 00:06:951 100 101",
    "3: OFDLCK ADVISORY  READ  -1 00:1a:952 201 201",
    "3: -> OFDLCK ADVISORY  WRITE -1 00:06:953 201 201",
    "4: FLOCK  ADVISORY  READ  712 00:06:954 0 EOF",
    "",
  ].join("\n");
  assertEquals([...parseLockedInodes(locks, "0:6")], [951]);
  assertEquals([...parseLockedInodes(locks, "0:26")], [952]);
  assertEquals([...parseLockedInodes(locks, undefined)], [951, 952]);
  const mountinfo = [
    "24 29 0:22 / /proc rw,nosuid shared:13 - proc proc rw",
    "25 29 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw",
    "26 25 0:23 / /dev/pts rw shared:3 - devpts devpts rw",
  ].join("\n");
  assertEquals(deviceOfDev(mountinfo), "0:6");
  assertEquals(deviceOfDev(""), undefined);
});
