/** The product on real kernels: whole lives of disks, lost paths, and attacks on a disk's identity. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { type Node, zvolOf } from "./support/node.ts";
import { forEachTransport as forEach, withNode } from "./support/product.ts";
import { wholeStory } from "./support/story.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS } from "./support/vm.ts";

export const suite: VmSuite = {
  name: "product",
  needsProduct: true,
  cases: [
    ...forEach(
      "a disk keeps its content over deactivation, and leaves nothing when freed",
      async (node) => {
        await node.must("activate_storage");
        const { volname, path } = await node.activeDisk();
        assertEquals(await node.path(volname), path);
        const content = await node.vm.fill(path);
        await node.must("deactivate_volume", { volname });
        await node.must("activate_volume", { volname });
        assertEquals(await node.vm.hash(path), content);
        await node.free(volname);
        assertEquals((await node.vm.try(`[ -e ${path} ]`)).status, 1);
        assertEquals(await node.must("list_images"), []);
      },
    ),

    ...forEach("a disk in use is neither deactivated nor freed", async (node) => {
      const { volname, path } = await node.activeDisk();
      await node.vm.sh(
        `(echo 'read 0 4k'; sleep 600) | qemu-io -f raw -n ${path} >/dev/null 2>&1 &`,
      );
      await node.vm.until(`ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q "$(readlink -f ${path})$"`);
      assertEquals(await node.refusal("deactivate_volume", { volname }), "in-use");
      assertEquals(await node.refusal("free_image", { volname, finish: true }), "in-use");
      await node.vm.sh("kill $(pidof qemu-io)");
      await node.vm.until("! pidof qemu-io >/dev/null");
      await node.free(volname);
    }),

    ...forEach("reads and writes go on while either path is lost", async (node) => {
      const { volname, path } = await node.activeDisk();
      const content = await node.vm.fill(path);
      for (const portal of PORTALS) {
        await node.vm.linkDown(portal);
        assertEquals(await node.vm.hash(path), content);
        await node.vm.linkUp(portal);
        await node.vm.until(
          `! grep -qv live /sys/class/nvme/nvme*/state 2>/dev/null &&
           ! grep -qv LOGGED_IN /sys/class/iscsi_session/*/state 2>/dev/null &&
           ! multipathd show paths format %t 2>/dev/null | grep -q failed`,
          180,
        );
      }
      await node.free(volname);
    }),

    ...forEach("a path that is missing is no file, whoever opens it", async (node) => {
      const { volname, path } = await node.activeDisk();
      await node.must("deactivate_volume", { volname });
      await node.free(volname);
      const folder = path.slice(0, path.lastIndexOf("/"));
      for (const name of [path, `${folder}/vm-999-disk-0`]) {
        assert((await node.vm.try(`dd if=/dev/zero of=${name} bs=4k count=1`)).status !== 0);
        assert((await node.vm.try(`qemu-img create -f raw ${name} 1M`)).status !== 0);
        assertEquals((await node.vm.try(`[ -e ${name} ]`)).status, 1);
      }
      assertEquals(await node.vm.sh("find /dev /run/tnblock/links -xdev -type f"), "");
    }),

    ...forEach("two disks keep their contents apart", async (node) => {
      const disks = [];
      for (let number = 0; number < 2; number++) disks.push(await node.activeDisk(100 + number));
      const contents = [];
      for (const { path } of disks) contents.push(await node.vm.fill(path, 1));
      for (const [at, { volname, path }] of disks.entries()) {
        await node.must("deactivate_volume", { volname });
        await node.must("activate_volume", { volname });
        assertEquals(await node.vm.hash(path, 1), contents[at]);
      }
      for (const { volname } of disks) await node.free(volname);
    }),

    ...forEach(
      "disks whose numbers are exchanged while they are active are not taken for each other",
      async (node) => {
        const contents = new Map<string, string>();
        for (const vmid of [100, 101]) {
          const { volname, path } = await node.activeDisk(vmid);
          contents.set(zvolOf(volname), await node.vm.fill(path));
        }
        const before = await volnames(node);
        const [one = "", other = ""] = [...contents.keys()];
        await node.swap(one, other);

        // A guest's configuration holds the old names. Those with a number now mean another disk.
        for (const volname of before.filter((name) => name.includes("-lun"))) {
          assertEquals(await node.refusal("activate_volume", { volname }), "volume-replaced");
          assertEquals(
            await node.refusal("free_image", { volname, finish: true }),
            "volume-replaced",
          );
        }
        for (const volname of await volnames(node)) {
          await node.must("activate_volume", { volname });
          const path = await node.path(volname);
          assertEquals(await node.vm.hash(path), contents.get(zvolOf(volname)), volname);
          await node.free(volname);
        }
      },
    ),

    {
      name:
        "iscsi: with the API away, a LUN that leads to another disk is refused by what the node sees",
      run: ({ vm }) =>
        withNode(vm, "iscsi", async (node) => {
          const disks = [await node.activeDisk(100), await node.activeDisk(101)];
          for (const { path } of disks) await node.vm.fill(path);
          const [one, other] = disks.map(({ volname }) => zvolOf(volname));
          await node.swap(one ?? "", other ?? "");
          const away = node.with({ "tnb-api-port": 9, "tnb-api-retry-max": 0 });
          for (const { volname } of disks) {
            assertEquals(await away.refusal("activate_volume", { volname }), "volume-replaced");
          }
        }),
    },

    {
      name: "iscsi: a map that is made anew under another minor number is reached by the same link",
      run: ({ vm }) =>
        withNode(vm, "iscsi", async (node) => {
          const { volname, path } = await node.activeDisk();
          const content = await node.vm.fill(path);
          const before = await vm.sh(`stat -Lc %T ${path}`);
          await vm.sh(`set -e
            map=$(cat /sys/block/dm-*/dm/name | head -1)
            multipathd disablequeueing map $map; multipathd remove map $map
            dmsetup create squatter --table "0 8 zero"
            multipathd add map $map`);
          await vm.until(`[ -b ${path} ]`);
          assertNotEquals(await vm.sh(`stat -Lc %T ${path}`), before);
          assertEquals(await vm.hash(path), content);
          await node.must("activate_volume", { volname });
          assertEquals(await vm.hash(path), content);
          await vm.sh("dmsetup remove squatter");
          await node.free(volname);
        }),
    },

    {
      name: "nvme-tcp: a namespace made anew under the same NSID is another disk",
      run: ({ vm }) =>
        withNode(vm, "nvme-tcp", async (node) => {
          const { volname, path } = await node.activeDisk();
          await node.remake(zvolOf(volname));
          assertEquals(await node.refusal("activate_volume", { volname }), "volume-replaced");
          assertEquals((await vm.try(`dd if=${path} bs=4k count=1 status=none`)).status, 1);
          const [today = ""] = await volnames(node);
          assertNotEquals(today, volname);
          await node.must("activate_volume", { volname: today });
          await node.free(today);
        }),
    },

    ...forEach(
      "the whole story through the Perl shim: a path lost while writing, two disks, nothing left",
      wholeStory,
    ),

    {
      name:
        "tnblock simulate --kernel exports for real, and takes everything back when it is ended",
      run: async ({ vm }) => {
        await vm.sh(
          `tnblock simulate --kernel --data /data --netns tgt --portals ${
            PORTALS.join(",")
          } --volumes 2 >/run/cli.ready 2>/run/cli.log </dev/null &
          echo $! >/run/cli.pid`,
        );
        await vm.until("grep -q '}$' /run/cli.ready", 120);
        assertEquals(
          await vm.sh("ls /sys/kernel/config/nvmet/subsystems/*/namespaces | wc -l"),
          "2",
        );
        await vm.sh("kill $(cat /run/cli.pid)");
        await vm.until("! kill -0 $(cat /run/cli.pid) 2>/dev/null", 60);
        assertEquals(
          await vm.sh(
            "ls /sys/kernel/config/nvmet/subsystems /sys/kernel/config/target/iscsi 2>/dev/null | grep -c 'nqn\\|iqn' || true",
          ),
          "0",
        );
      },
    },
  ],
};

/** The volume names of today. */
async function volnames(node: Node): Promise<string[]> {
  const rows = await node.must("list_images") as { volid: string }[];
  return rows.map(({ volid }) => volid.slice(volid.indexOf(":") + 1));
}
