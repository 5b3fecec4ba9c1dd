import { assertEquals, assertInstanceOf, assertNotEquals, assertRejects } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { type Host, HostError } from "../../src/host/host.ts";
import { deviceOfDev, parseLockedInodes, usersOf } from "../../src/host/in_use.ts";
import { claimOf } from "../../src/host/linux_use.ts";
import { parseMounts } from "../../src/host/mount_use.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";
import { lastingCommand } from "../support/child.ts";

const MAP = "/dev/disk/by-id/dm-uuid-mpath-36589cfc000000e41f2a3b4c5d6e7f003";

/** The link of `dm-0`, over `sda` and `sdb`. */
const MAP0 = "/dev/disk/by-id/dm-uuid-mpath-36589cfc0000007d3e1f9a2b4c5d60001";

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
    assertEquals(await usersOf(claimed(host, "free"), MAP), { by: [] });
    assertEquals(await usersOf(claimed(host, "unknown"), MAP), { by: [] });
  });
});

Deno.test("a process that has the disk open is named, through whatever link it opened it", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    const resolved = await node.host.files.resolve(MAP);
    await process(node, 4711, "qemu-system-x86", resolved ?? "?");
    const use = await usersOf(claimed(node.host, "free"), MAP);
    assertEquals(use.by, ["qemu-system-x86 (process 4711)"]);
  });
});

Deno.test("below a root a process of this machine that has the played disk open is named", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host, directory }) => {
    const node = await host.files.resolve(MAP);
    const file = `${await Deno.realPath(directory)}${node}`;
    await Deno.writeTextFile(file, "x");
    const tail = lastingCommand("tail", {
      args: ["-c", "1", "-f", file],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    try {
      // It has printed what is there: now it waits for more.
      const output = tail.stdout.getReader();
      await output.read();
      const use = await usersOf(claimed(host, "unknown"), MAP);
      assertEquals(use.by, [`tail (process ${tail.pid})`]);
      await output.cancel();
    } finally {
      tail.kill("SIGKILL");
      await tail.status;
    }
    assertEquals((await usersOf(claimed(host, "unknown"), MAP)).by, []);
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
    assertEquals((await usersOf(claimed(host, "free"), "/dev/dm-0", paths)).by, []);
    await write("/sys/devices/virtual/block/dm-0/holders/dm-9", "");
    assertEquals((await usersOf(claimed(host, "busy"), "/dev/dm-0", paths)).by, [
      "the device dm-9 on top of it",
    ]);
    assertEquals((await usersOf(claimed(host, "busy"), "/dev/sda")).by, [
      "the device dm-0 on top of it",
    ]);
  });
});

/** Sets a loop device up; the kernel writes the name that it was opened by, links followed. */
async function loop(node: NodeFolder, name: string, backing: string): Promise<void> {
  await node.write(`/sys/block/${name}/loop/backing_file`, `${backing}\n`);
}

Deno.test("a loop device over the disk, its map, a path or a partition is a user", async () => {
  for (
    const [backing, device] of [
      ["/dev/dm-0", MAP0],
      ["/dev/sdb", "/dev/dm-0"],
      ["/dev/sda1", "/dev/dm-0"],
      ["/dev/dm-8", "/dev/dm-0"],
      [MAP0, "/dev/dm-0"],
      ["/dev/tnblock/san/vm-100-disk-0", "/dev/tnblock/san/vm-100-disk-0"],
      ["/dev/sdb (deleted)", "/dev/dm-0"],
    ] as const
  ) {
    await withNode("iscsi-2portal-multipathd", async (node) => {
      await node.write("/dev/sda1", "");
      await node.write("/sys/block/sda/sda1/partition", "1\n");
      await node.write("/sys/devices/virtual/block/dm-0/holders/dm-8", "");
      await node.write("/sys/block/dm-8/dm/uuid", "part1-mpath-36589cfc000000e41\n");
      await node.write("/dev/dm-8", "");
      await node.link("/dev/tnblock/san/vm-100-disk-0", MAP0);
      await loop(node, "loop12", backing);
      const use = await usersOf(claimed(node.host, "free"), device, ["/dev/sda", "/dev/sdb"]);
      assertEquals([backing, use.by], [backing, ["the loop device loop12"]]);
    });
  }
});

Deno.test("another node of the disk below a loop device is known by its number", async () => {
  await withNode("iscsi-2portal", async (node) => {
    const { files } = node.host;
    const device = (await files.readText("/sys/block/sda/dev"))?.trim();
    await loop(node, "loop0", "/dev/mapper/x");
    await node.write("/dev/mapper/x", "");
    const number = (at: string | undefined): Host => ({
      ...claimed(node.host, "free"),
      files: {
        ...files,
        status: async (path) => {
          const status = await files.status(path);
          return status && path === "/dev/mapper/x" ? { ...status, device: at } : status;
        },
      },
    });
    assertEquals((await usersOf(number(device), "/dev/sda")).by, ["the loop device loop0"]);
    assertEquals((await usersOf(number("7:77"), "/dev/sda")).by, []);
    assertEquals((await usersOf(number(undefined), "/dev/sda")).by, []);
  });
});

Deno.test("loop devices over files and other disks, and those that are not set up, do not count", async () => {
  await withNode("iscsi-2portal", async (node) => {
    await node.write("/sys/block/loop0/size", "0\n");
    await loop(node, "loop1", "/mnt/dead/images/100/disk.raw");
    await loop(node, "loop2", "/dev/sdb");
    await loop(node, "loop3", "/dev/sdaa (deleted)");
    await loop(node, "zram0", "/dev/sda");
    const { files } = node.host;
    // The share that the file lies on hangs: nobody may go there.
    const host: Host = {
      ...claimed(node.host, "free"),
      files: {
        ...files,
        resolve: (path) => {
          if (path.startsWith("/mnt/")) throw new Error("hangs");
          return files.resolve(path);
        },
      },
    };
    assertEquals((await usersOf(host, "/dev/sda")).by, []);
  });
});

Deno.test("the lock of a virtual machine is seen when its process is not", async () => {
  await withNode("iscsi-2portal", async ({ host, write }) => {
    const inode = (await host.files.status("/dev/sda"))?.inode;
    await write("/proc/locks", `1: OFDLCK ADVISORY  READ  -1 00:06:${inode} 100 101\n`);
    assertEquals((await usersOf(claimed(host, "free"), "/dev/sda")).by, [
      "a virtual machine that has locked it",
    ]);
    assertEquals((await usersOf(claimed(host, "free"), "/dev/sdb")).by, []);
  });
});

Deno.test("a claim of the kernel that nothing else explains is a mount", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    assertEquals((await usersOf(claimed(host, "busy"), "/dev/sda")).by, [
      "a mount or another part of the kernel",
    ]);
  });
});

Deno.test("a disk that is gone has no users", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    assertEquals((await usersOf(host, "/dev/tnblock/san/none")).by, []);
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

/** A line of mountinfo. */
function mount(device: string, point: string, source: string): string {
  return `90 25 ${device} / ${point} rw,relatime shared:7 master:1 - ext4 ${source} rw\n`;
}

Deno.test("a mount is seen by number or source where the kernel cannot be asked for its claim", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    const host = claimed(node.host, "unknown");
    const number = async (name: string) =>
      (await host.files.readText(`/sys/block/${name}/dev`))?.trim() ?? "?";
    const paths = ["/dev/sda", "/dev/sdb"];
    const seen = async (text: string) => {
      await node.write("/proc/self/mountinfo", text);
      return (await usersOf(host, "/dev/dm-0", paths)).by;
    };
    assertEquals(await seen(mount(await number("dm-0"), "/mnt/a\\040b", "/dev/mapper/x")), [
      'a mount at "/mnt/a b"',
    ]);
    assertEquals(await seen(mount(await number("sdb"), "/mnt", "/dev/sdb")), [
      'a mount at "/mnt"',
    ]);
    assertEquals(await seen(mount("0:77", "/mnt/btrfs", "/dev/dm-0")), [
      'a mount at "/mnt/btrfs"',
    ]);
    assertEquals(await seen(mount(await number("sdc"), "/mnt", "/dev/sdc")), []);
    assertEquals(await seen(mount("0:78", "/sys", "sysfs")), []);
  });
});

Deno.test("a mount of a container is seen once, a process that cannot be read hides nothing", async () => {
  await withNode("iscsi-2portal", async (node) => {
    const device = (await node.host.files.readText("/sys/block/sda/dev"))?.trim() ?? "?";
    await node.write("/proc/self/mountinfo", mount("0:5", "/", "rpool"));
    await node.link("/proc/self/ns/mnt", "mnt:[1]");
    for (const [pid, space] of [[1, 1], [70, 2], [71, 2], [72, 2]]) {
      await node.link(`/proc/${pid}/ns/mnt`, `mnt:[${space}]`);
      if (pid !== 70) await node.write(`/proc/${pid}/mountinfo`, mount(device, "/data", "/x"));
    }
    assertEquals((await usersOf(claimed(node.host, "unknown"), "/dev/sda")).by, [
      'a mount at "/data" of process 71',
    ]);
    assertEquals((await usersOf(claimed(node.host, "busy"), "/dev/sda")).by, [
      'a mount at "/data" of process 71',
    ]);
  });
});

Deno.test("swap is seen where the kernel cannot be asked for its claim", async () => {
  await withNode("iscsi-2portal", async ({ host, write }) => {
    const heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    await write("/proc/swaps", `${heading}/dev/sda    partition\t1024\t0\t-2\n`);
    assertEquals((await usersOf(claimed(host, "unknown"), "/dev/sda")).by, ["swap on it"]);
    assertEquals((await usersOf(claimed(host, "unknown"), "/dev/sdb")).by, []);
  });
});

Deno.test("users of a partition are users of its disk", async () => {
  await withNode("iscsi-2portal", async (node) => {
    await node.write("/dev/sda1", "");
    await node.write("/sys/block/sda/sda1/partition", "1\n");
    await node.write("/sys/block/sda/sda1/dev", "8:1\n");
    const by = async (claim: "free" | "unknown") =>
      (await usersOf(claimed(node.host, claim), "/dev/sda")).by;
    assertEquals(await by("unknown"), []);
    await node.write("/proc/self/mountinfo", mount("8:1", "/mnt", "/dev/sda1"));
    assertEquals(await by("unknown"), ['a mount at "/mnt"']);
    await node.write("/sys/block/sda/sda1/holders/dm-7", "");
    assertEquals(await by("free"), ["the device dm-7 on top of it"]);
    await process(node, 80, "dd", "/dev/sda1");
    assertEquals((await by("free"))[0], "dd (process 80)");
  });
});

Deno.test("partitions that kpartx made over a map are no use of it; who uses them is", async () => {
  await withNode("iscsi-2portal-multipathd", async (node) => {
    await node.write("/sys/devices/virtual/block/dm-0/holders/dm-8", "");
    await node.write("/sys/block/dm-8/dm/uuid", "part1-mpath-36589cfc000000e41\n");
    await node.write("/dev/dm-8", "");
    const probed: string[] = [];
    const host = (claim: "free" | "busy"): Host => ({
      ...node.host,
      probeExclusive: (path) => {
        probed.push(path);
        return Promise.resolve(claim);
      },
    });
    assertEquals((await usersOf(host("free"), "/dev/dm-0")).by, []);
    // The map itself is claimed by the map over it, always.
    assertEquals(probed, ["/dev/dm-8"]);
    assertNotEquals((await usersOf(host("busy"), "/dev/dm-0")).by, []);
    await process(node, 81, "dd", "/dev/dm-8");
    assertEquals((await usersOf(host("free"), "/dev/dm-0")).by, ["dd (process 81)"]);
  });
});

Deno.test("a dead path cannot say whether it is claimed; our own limits are no answer", () => {
  for (const code of ["ENXIO", "ENODEV", "ENOENT", "EIO", "EINVAL", "EEXIST"]) {
    assertEquals(claimOf(code), "unknown", code);
  }
  for (const code of ["EMFILE", "EACCES", undefined]) assertEquals(claimOf(code), undefined);
  assertEquals(claimOf("EBUSY"), "busy");
});

Deno.test("a node that went away meanwhile is held open by nobody", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    assertEquals(await host.holders(["/dev/none"]), []);
  });
});

Deno.test("a look that fails is the node's fault, and never says that nobody is there", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    const fail = () => Promise.reject(new HostError("EMFILE", "too many open files"));
    for (
      const broken of [
        { ...host, holders: fail },
        { ...host, probeExclusive: fail },
        { ...host, files: { ...host.files, readText: fail } },
        { ...host, files: { ...host.files, resolve: fail } },
      ]
    ) {
      const error = await assertRejects(() => usersOf(broken, "/dev/sda"));
      assertInstanceOf(error, TnblockError);
      assertEquals(error.code, "host-fault");
    }
  });
});

Deno.test("mounts are read whatever number of fields stands before the dash", () => {
  const text = [
    "36 35 98:0 / /mnt/a\\011b rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw",
    "37 35 98:1 / /mnt/- rw - ext3 /dev/r\\040 rw",
    "",
  ].join("\n");
  assertEquals(parseMounts(text), [
    { device: "98:0", point: "/mnt/a\tb", source: "/dev/root" },
    { device: "98:1", point: "/mnt/-", source: "/dev/r " },
  ]);
});
