/** Two nodes of a cluster, each with a kernel of its own: what one does to a disk that the other knows. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { cachedHash, fillEnd, sizeOf, whileWritten, wholeHash } from "./support/disk_work.ts";
import { MIB } from "./support/kernel_array.ts";
import { forTwoNodes } from "./support/product.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

/** Longer than this, and Proxmox VE's status loop, which asks all day, stands still. */
const VGS_MS = 1000;

export const suite: VmSuite = {
  name: "nodes",
  needsProduct: true,
  cases: [
    ...forTwoNodes("what one node writes, the other reads", async (one, other) => {
      const { volname, path } = await one.activeDisk();
      const content = await one.vm.fill(path);
      await other.must("activate_storage");
      await other.must("activate_volume", { volname });
      assertEquals(await other.vm.hash(path), content);
      assertEquals(await other.livePaths(path), PORTALS.length);
      await other.must("deactivate_volume", { volname });
      await one.free(volname);
    }),

    ...forTwoNodes(
      "a disk that one node grows has its size on the other, once it is activated there",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        // As in a live migration: both nodes have the disk.
        await other.must("activate_volume", { volname });
        await whileWritten(one.vm, path, 4, async () => {
          await one.must("volume_resize", { volname, size: 96 * MIB, running: true });
          await fillEnd(one.vm, path);
        });
        const content = await wholeHash(one.vm, path);
        await one.must("deactivate_volume", { volname });
        await other.must("activate_volume", { volname });
        assertEquals(await sizeOf(other.vm, path), 96 * MIB);
        assertEquals(await other.livePaths(path), PORTALS.length);
        assertEquals(await wholeHash(other.vm, path), content);
        await other.free(volname);
      },
    ),

    ...forTwoNodes(
      "a disk that one node rolls back, to a smaller size, is so on the other",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        const before = await one.vm.fill(path);
        await one.must("volume_snapshot", { volname, snapshot: "before" });
        await one.must("volume_resize", { volname, size: 96 * MIB, running: false });
        await one.vm.fill(path);
        await other.must("activate_volume", { volname });
        assertNotEquals(await cachedHash(other.vm, path), before);
        await one.must("volume_snapshot_rollback", { volname, snapshot: "before" });
        await other.must("activate_volume", { volname });
        assertEquals(await sizeOf(other.vm, path), 64 * MIB);
        assertEquals(await cachedHash(other.vm, path), before);
        await other.must("deactivate_volume", { volname });
        await one.free(volname);
      },
    ),

    ...forTwoNodes(
      "vgs returns within a second while another node frees a disk",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        await one.vm.fill(path);
        await other.must("activate_storage");
        await other.must("activate_volume", { volname });
        await other.must("deactivate_volume", { volname });
        await vgsGoesOn(other.vm, () => one.free(volname));
      },
    ),

    // Of a guest that was moved away, say, and whose end a node did not live to see.
    ...forTwoNodes(
      "vgs returns within a second on a node that still has a disk which another frees",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        await one.vm.fill(path);
        await other.must("activate_volume", { volname });
        await vgsGoesOn(other.vm, () => one.free(volname));
      },
      ["nvme-tcp"],
    ),

    // Nothing tells a node that a LUN has gone for good: its map waits for it, and vgs for the map.
    ...forTwoNodes(
      "vgs returns on a node that still has a disk which another freed, once that node lets go of it",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        await one.vm.fill(path);
        await other.must("activate_volume", { volname });
        await one.free(volname);
        const waiting = other.vm.sh("vgs", { timeoutSeconds: 300 });
        waiting.catch(() => {});
        await other.must("deactivate_volume", { volname });
        await waiting;
        await vgsGoesOn(other.vm, () => Promise.resolve());
      },
      ["iscsi"],
    ),
  ],
};

/** Asks `vgs` over and over, twice before something is done, meanwhile, and twice more: none may be slow. */
async function vgsGoesOn(vm: Vm, act: () => Promise<unknown>): Promise<void> {
  const times = "/run/vgs-times";
  await vm.sh(`rm -f ${times} /run/enough; touch ${times}
    (until [ -e /run/enough ]; do
      begun=$(date +%s%N)
      timeout -k 1 20 vgs >/dev/null 2>&1
      echo $((($(date +%s%N) - begun) / 1000000)) >>${times}
      sleep 0.1
    done) >/dev/null 2>&1 </dev/null &`);
  const taken = async () =>
    (await vm.sh(`cat ${times}`)).split("\n").filter((line) => line !== "").map(Number);
  const more = async (count: number) => {
    const wanted = (await taken()).length + count;
    await vm.until(`[ "$(wc -l <${times})" -ge ${wanted} ]`, 90);
    return await taken();
  };
  const before = await more(2);
  await act();
  // The first to end may have begun before.
  const all = await more(3);
  await vm.sh("touch /run/enough");
  // On a machine that is short of time, vgs takes long by itself.
  const limit = Math.max(VGS_MS, 3 * Math.max(...before));
  assert(Math.max(...all) <= limit, `vgs took, in ms: ${all.join(", ")}`);
}
