import { assertEquals, assertThrows } from "@std/assert";
import { type Host, HostError, LockError } from "../../src/host/host.ts";
import { missingMounts } from "../../src/host/linux_mount.ts";
import {
  ensureLink,
  linkPath,
  multipathTarget,
  nvmeTarget,
  readLinkTarget,
  removeLink,
  singlePathTarget,
} from "../../src/host/links.ts";
import { withNode } from "../support/node_folder.ts";

const UUID = "c0de5a1b-62e7-4f90-a3d4-7788990a1b03";
const NAA = "6589cfc000000e41f2a3b4c5d6e7f003";

Deno.test("a link is made once, moved when its target changes, and removed", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host }) => {
    const path = linkPath("san", "vm-100-disk-0");
    assertEquals(path, "/dev/tnblock/san/vm-100-disk-0");
    assertEquals(await readLinkTarget(host, path), undefined);
    assertEquals(await ensureLink(host, path, singlePathTarget(NAA)), true);
    assertEquals(await ensureLink(host, path, multipathTarget(NAA)), true);
    assertEquals(await ensureLink(host, path, multipathTarget(NAA)), false);
    assertEquals(await readLinkTarget(host, path), `/dev/disk/by-id/dm-uuid-mpath-3${NAA}`);
    assertEquals(await host.files.resolve(path), "/dev/dm-2");
    assertEquals(await removeLink(host, path), true);
    assertEquals(await removeLink(host, path), false);
  });
});

Deno.test("a link may dangle: its disk can come later", async () => {
  await withNode(undefined, async ({ host }) => {
    const path = linkPath("san", "vm-100-disk-0", "before");
    await ensureLink(host, path, nvmeTarget(UUID));
    assertEquals(path, "/dev/tnblock/san/vm-100-disk-0@before");
    assertEquals(await host.files.resolve(path), undefined);
    assertEquals(await readLinkTarget(host, path), `/dev/disk/by-id/nvme-uuid.${UUID}`);
  });
});

Deno.test("the mounts behind links are seen to for a link that is right already, too", async () => {
  await withNode(undefined, async ({ host }) => {
    const path = linkPath("san", "vm-100-disk-0");
    let times = 0;
    const counting: Host = {
      ...host,
      prepareLinks: () => {
        times += 1;
        return host.prepareLinks();
      },
    };
    assertEquals(await ensureLink(counting, path, nvmeTarget(UUID)), true);
    assertEquals(await ensureLink(counting, path, nvmeTarget(UUID)), false);
    assertEquals(times, 2);
  });
});

Deno.test("what the node cannot do with a link is told as the node's fault", async () => {
  await withNode(undefined, async ({ host }) => {
    const path = linkPath("san", "vm-100-disk-0");
    const failing = (error: Error): Host => ({
      ...host,
      prepareLinks: () => Promise.reject(error),
      files: { ...host.files, readLink: () => Promise.reject(error) },
    });
    const full = failing(new HostError("ENOSPC", "no room"));
    const taken = failing(new LockError("prepare-links", 1));
    const code = (work: Promise<unknown>) => work.catch((error) => error.code);
    assertEquals(await code(ensureLink(full, path, nvmeTarget(UUID))), "host-fault");
    assertEquals(await code(readLinkTarget(full, path)), "host-fault");
    assertEquals(await code(ensureLink(taken, path, nvmeTarget(UUID))), "busy");
  });
});

Deno.test("no link is made to a name that does not say which disk it is", async () => {
  await withNode(undefined, async ({ host }) => {
    for (
      const target of [
        "/dev/sda",
        "/dev/dm-0",
        "/dev/nvme0n1",
        "/dev/disk/by-path/ip-10.0.0.1",
        "/dev/disk/by-id/nvme-TrueNAS_8f1b9a472c6e4d527b0c",
        `/dev/disk/by-id/nvme-uuid.${UUID}/../../../sda`,
        `/dev/disk/by-id/wwn-0x${NAA}-part1`,
      ]
    ) {
      const error = await ensureLink(host, linkPath("san", "a"), target).catch((reason) => reason);
      assertEquals(error.code, "internal", target);
    }
    assertEquals(await host.files.list("/dev"), undefined);
  });
  assertThrows(() => nvmeTarget("../../sda"));
  assertThrows(() => multipathTarget("0x1"));
});

Deno.test("names cannot climb out of the folder", () => {
  for (const name of ["..", ".", "", "a/b", "-x", "a\n"]) {
    assertThrows(() => linkPath("san", name));
    assertThrows(() => linkPath(name, "a"));
    assertThrows(() => linkPath("san", "a", name));
  }
});

Deno.test("only the mounts that are missing are made, each with those that rest on it", () => {
  const lines = [
    "25 29 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw",
    "40 28 0:44 / /run/tnblock/links rw,nosuid - tmpfs tnblock rw,size=1m",
    "41 25 0:44 / /dev/tnblock ro,nosuid shared:21 - tmpfs tnblock rw,size=1m",
    "42 41 0:6 / /dev/tnblock/.dev ro,nosuid - devtmpfs udev rw",
  ];
  const missing = (count: number) =>
    missingMounts(lines.slice(0, count).join("\n")).map(({ at }) => at);
  const [folder, view, devices] = ["/run/tnblock/links", "/dev/tnblock", "/dev/tnblock/.dev"];
  assertEquals([1, 2, 3, 4].map(missing), [
    [folder, view, devices],
    [view, devices],
    [devices],
    [],
  ]);
  assertEquals(missingMounts(lines.filter((line) => !line.startsWith("40")).join("\n")).length, 3);
});
