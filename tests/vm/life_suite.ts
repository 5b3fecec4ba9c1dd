/** The whole life of a volume on real kernels: snapshots, clones, templates, growth, export and import. */

import { assert, assertEquals, assertMatch, assertNotEquals, fail } from "@std/assert";
import {
  addFiles,
  assertClean,
  cachedHash,
  fillEnd,
  makeFileSystem,
  sizeOf,
  sumOfFiles,
  whileOpen,
  whileWritten,
  wholeHash,
} from "./support/disk_work.ts";
import { MIB } from "./support/kernel_array.ts";
import type { Node } from "./support/node.ts";
import { forEachTransport as forEach } from "./support/product.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS } from "./support/vm.ts";

export const suite: VmSuite = {
  name: "life",
  needsProduct: true,
  cases: [
    ...forEach(
      "a rollback brings back content and size, and no cache keeps what was written since",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const before = await vm.fill(path);
        await node.must("volume_snapshot", { volname, snapshot: "before" });
        await node.must("volume_resize", { volname, size: 96 * MIB, running: false });
        await vm.sh(`head -c 4M /dev/urandom | dd of=${path} conv=nocreat,notrunc status=none`);
        assertNotEquals(await cachedHash(vm, path), before);
        await node.must("volume_snapshot_rollback", { volname, snapshot: "before" });
        // Active it was, and active it is.
        assertEquals(await cachedHash(vm, path), before);
        assertEquals(await vm.hash(path), before);
        assertEquals(await sizeOf(vm, path), 64 * MIB);
        assertEquals(await node.livePaths(path), PORTALS.length);
        await node.must("activate_volume", { volname });
        await node.must("volume_snapshot_delete", { volname, snapshot: "before" });
        assertEquals(await vm.hash(path), before);
        await node.free(volname);
      },
    ),

    ...forEach(
      "a disk grows while it is written: on return each path that is there has the size, a lost one when it is back",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const everywhere = (size: number) => Array(PORTALS.length + 1).fill(size);
        await whileWritten(vm, path, 8, async () => {
          await node.must("volume_resize", { volname, size: 96 * MIB, running: true });
          assertEquals(await sizesBelow(node, path), everywhere(96 * MIB));
          await fillEnd(vm, path);

          await vm.linkDown(PORTALS[1]);
          await node.must("volume_resize", { volname, size: 128 * MIB, running: true });
          assertEquals(await sizeOf(vm, path), 128 * MIB);
          await fillEnd(vm, path);
          await vm.linkUp(PORTALS[1]);
          await vm.until(
            `! grep -qv live /sys/class/nvme/nvme*/state 2>/dev/null &&
             ! grep -qv LOGGED_IN /sys/class/iscsi_session/*/state 2>/dev/null`,
            180,
          );
          // PVE activates the storage before each volume.
          await node.must("activate_storage");
          await node.must("activate_volume", { volname });
          assertEquals(await sizesBelow(node, path), everywhere(128 * MIB));
          assertEquals(await node.livePaths(path), PORTALS.length);
        });
        await node.free(volname);
      },
    ),

    ...forEach(
      "a snapshot is another disk, with the old content, while its volume is written and not rolled back",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const before = await vm.fill(path);
        await node.must("volume_snapshot", { volname, snapshot: "before" });
        const reading = { volname, snapshot: "before" };
        await whileWritten(vm, path, 4, async () => {
          await node.must("activate_volume", reading);
          const old = node.pathOf(volname, "before");
          assertNotEquals(old, path);
          assertEquals(await vm.hash(old), before);
          assertEquals((await node.must("list_images") as unknown[]).length, 1);
          await node.must("deactivate_volume", reading);
          assertEquals((await vm.try(`[ -e ${old} ]`)).status, 1);
          assertEquals(await node.refusal("volume_snapshot_rollback", reading), "in-use");
        });
        await node.must("volume_snapshot_delete", reading);
        await node.free(volname);
      },
    ),

    ...forEach(
      "a clone has the snapshot's content, and neither side sees what the other writes",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const before = await vm.fill(path);
        await node.must("volume_snapshot", { volname, snapshot: "before" });
        const now = await vm.fill(path);
        const clone = await clonedDisk(node, { volname, vmid: 101, snapshot: "before" });
        assertEquals(await vm.hash(clone.path), before);
        const clones = await vm.fill(clone.path);
        assertEquals(await vm.hash(path), now);
        await node.must("deactivate_volume", { volname });
        assertEquals(
          await node.refusal("volume_snapshot_delete", { volname, snapshot: "before" }),
          "has-dependents",
        );
        await node.must("activate_volume", { volname });
        assertEquals([await vm.hash(path), await vm.hash(clone.path)], [now, clones]);
        await node.free(clone.volname);
        await node.free(volname);
      },
    ),

    ...forEach(
      "another guest's disk, and then a template, keep identity and content; linked clones write for themselves",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const content = await vm.fill(path);
        const identity = await identityOf(node, path);
        await whileOpen(vm, path, async () => {
          assertEquals(
            await node.refusal("rename_volume", { volname, targetVmid: 200 }),
            "in-use",
          );
          assertEquals(await node.refusal("create_base", { volname }), "in-use");
        });
        const moved = String(await node.must("rename_volume", { volname, targetVmid: 200 }));
        assertMatch(moved, /^vol-vm-200-disk-0-/);
        await node.must("activate_volume", { volname: moved });
        const movedPath = node.pathOf(moved);
        assertEquals(await identityOf(node, movedPath), identity);
        assertEquals(await vm.hash(movedPath), content);
        const base = String(await node.must("create_base", { volname: moved }));
        assertMatch(base, /^vol-base-200-disk-0-/);
        await node.must("activate_volume", { volname: base });
        const basePath = node.pathOf(base);
        assertEquals(await identityOf(node, basePath), identity);
        assertEquals(await vm.hash(basePath), content);
        assertEquals(await vm.sh("ls -A /dev/tnblock/san"), "base-200-disk-0");

        const one = await clonedDisk(node, { volname: base, vmid: 101 });
        const other = await clonedDisk(node, { volname: base, vmid: 102 });
        const written = await vm.fill(one.path);
        assertEquals(
          [await vm.hash(one.path), await vm.hash(other.path), await vm.hash(basePath)],
          [written, content, content],
        );
        await node.must("deactivate_volume", { volname: base });
        assertEquals(
          await node.refusal("free_image", { volname: base, isBase: true, finish: true }),
          "has-dependents",
        );
        for (const clone of [one, other]) await node.free(clone.volname);
        await node.must("free_image", { volname: base, isBase: true, finish: true });
        assertEquals(await node.must("list_images"), []);
      },
    ),

    ...forEach(
      "a container's file system is snapshotted frozen, read as it was, rolled back, and is clean",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        await makeFileSystem(vm, path, "/run/rootfs");
        const before = await addFiles(vm, "/run/rootfs", "before");
        // As PVE does to a container that runs.
        await vm.sh("fsfreeze --freeze /run/rootfs");
        const taken = node.must("volume_snapshot", { volname, snapshot: "before" });
        await taken.finally(() => vm.sh("fsfreeze --unfreeze /run/rootfs"));
        const after = await addFiles(vm, "/run/rootfs", "after");
        assertNotEquals(after, before);

        // As vzdump does in snapshot mode.
        const reading = { volname, snapshot: "before" };
        await node.must("activate_volume", reading);
        const old = node.pathOf(volname, "before");
        await vm.sh(`mkdir -p /run/backup; mount -o ro,noload ${old} /run/backup`);
        assertEquals(await sumOfFiles(vm, "/run/backup"), before);
        assertEquals(await node.refusal("deactivate_volume", reading), "in-use");
        await vm.sh("umount /run/backup");
        await node.must("deactivate_volume", reading);

        assertEquals(await node.refusal("volume_snapshot_rollback", reading), "in-use");
        assertEquals(await sumOfFiles(vm, "/run/rootfs"), after);
        await vm.sh("umount /run/rootfs");
        await node.must("volume_snapshot_rollback", reading);
        await assertClean(vm, path);
        await vm.sh(`mount ${path} /run/rootfs`);
        assertEquals(await sumOfFiles(vm, "/run/rootfs"), before);

        await node.must("volume_resize", { volname, size: 96 * MIB, running: true });
        await vm.sh(`resize2fs ${path}`);
        await addFiles(vm, "/run/rootfs", "more");
        await vm.sh("umount /run/rootfs");
        await assertClean(vm, path);
        await node.free(volname);
      },
    ),

    ...forEach(
      "export and import through the Perl shim make the same disk; a stream cut short makes none",
      async (node) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        await vm.fill(path);
        await fillEnd(vm, path);
        const content = await wholeHash(vm, path);
        await node.must("deactivate_volume", { volname });
        const exported = await node.transfer("volume_export", volname, ">/data/stream");
        assertEquals(exported.status, 0, exported.stderr);
        assertEquals(
          await vm.sh("stat -c %s /data/stream; head -c 8 /data/stream | od -An -tu8"),
          `${64 * MIB + 8}\n             ${64 * MIB}`,
        );
        const { stdout, stderr } = await node.transfer(
          "volume_import",
          "vm-101-disk-0",
          "</data/stream",
        );
        const imported = /^san:(vol-vm-101-disk-0-\S+)$/.exec(stdout.trim())?.[1] ?? fail(stderr);
        await node.must("activate_volume", { volname: imported });
        assertEquals(await wholeHash(vm, node.pathOf(imported)), content);

        const objects = () => node.control("GET", "/objects");
        const before = await objects();
        const cut = await node.transfer(
          "volume_import",
          "vm-102-disk-0",
          "< <(head -c 40M /data/stream)",
        );
        assert(cut.status !== 0, cut.stdout);
        assertEquals(await objects(), before);
        assertEquals(await vm.sh("ls -A /dev/tnblock/san"), "vm-101-disk-0");
        await vm.sh("rm /data/stream");
        for (const name of [volname, imported]) await node.free(name);
      },
    ),
  ],
};

/** Bytes of a disk and of every path below its map; of a namespace, as often as it has paths. */
async function sizesBelow(node: Node, path: string): Promise<number[]> {
  const sectors = await node.vm.sh(
    `disk=$(basename $(readlink -f ${path}))
     case $disk in
       nvme*) cat /sys/block/$disk/size /sys/block/\${disk%n*}c*\${disk#\${disk%n*}}/size ;;
       *) cat /sys/block/$disk/size /sys/block/$disk/slaves/*/size ;;
     esac`,
  );
  return sectors.split("\n").map((line) => Number(line) * 512);
}

/** What a disk says of itself. */
async function identityOf(node: Node, path: string): Promise<string> {
  return await node.vm.sh(
    `disk=$(basename $(readlink -f ${path}))
     case $disk in nvme*) cat /sys/block/$disk/wwid ;; *) cat /sys/block/$disk/dm/uuid ;; esac`,
  );
}

/** A clone that is active. */
async function clonedDisk(
  node: Node,
  args: Readonly<Record<string, unknown>>,
): Promise<{ volname: string; path: string }> {
  const volname = String(await node.must("clone_image", args));
  await node.must("activate_volume", { volname });
  return { volname, path: node.pathOf(volname) };
}
