/** What Linux's NVMe initiator does, where the product relies on it (docs/kernel-facts.md). */

import { assertEquals, assertMatch } from "@std/assert";
import { awaitLink, nvmeConnect } from "./support/initiator.ts";
import { NQN, uuidOf, withKernelArray } from "./support/kernel_array.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS } from "./support/vm.ts";

const A = "tank/pve/vm-100-disk-0";
const B = "tank/pve/vm-101-disk-0";

export const suite: VmSuite = {
  name: "nvme",
  cases: [
    {
      name: "a kernel is one node: another host from another network namespace is one more path",
      run: ({ vm }) =>
        withKernelArray(vm, async (array) => {
          await array.createZvol(A);
          await array.offer({ namespaces: { 7: A } });
          await nvmeConnect(vm, PORTALS[0]);
          const host = "81f4c7de-2b60-4a39-bd0e-6a4c915fe702";
          const options = `transport=tcp,traddr=${PORTALS[1]},trsvcid=4420,nqn=${NQN},` +
            `hostnqn=nqn.2014-08.org.nvmexpress:uuid:${host},hostid=${host}`;
          await vm.sh(`exec 9<>/dev/nvme-fabrics
            nsenter --net=/run/netns/tgt bash -c "printf %s '${options}' >&9 && head -n 1 <&9"`);
          await awaitLink(vm, `nvme-uuid.${uuidOf(A)}`);
          assertEquals(await vm.sh("cat /sys/class/nvme/nvme*/hostid | sort -u | wc -l"), "2");
          assertEquals(await vm.sh("ls /sys/class/nvme-subsystem | wc -l"), "1");
          await vm.until("[ $(ls -d /sys/block/nvme0c*n1 | wc -l) = 2 ]");
          assertEquals(await vm.sh("ls /dev/nvme*n*"), "/dev/nvme0n1");
        }),
    },
    {
      name: "namespace numbers above 1,000 are found, and the disk's number is not theirs",
      run: ({ vm, note }) =>
        withKernelArray(vm, async (array) => {
          const numbers = [1023, 1024, 5000, 65536];
          const zvols = numbers.map((number) => `tank/pve/vm-${number}-disk-0`);
          for (const zvol of zvols) await array.createZvol(zvol);
          await array.offer({ namespaces: {} });
          await nvmeConnect(vm, PORTALS[0]);
          await array.offer({
            namespaces: Object.fromEntries(numbers.map((number, at) => [number, zvols[at] ?? ""])),
          });
          for (const [at, zvol] of zvols.entries()) {
            const disk = await vm.sh(
              `basename $(readlink -f ${await awaitLink(vm, `nvme-uuid.${uuidOf(zvol)}`)})`,
            );
            const nsid = await vm.sh(`cat /sys/block/${disk}/nsid`);
            note(`NSID ${numbers[at]}: /dev/${disk}, nsid in sysfs ${nsid}`);
            assertEquals(nsid, String(numbers[at]));
          }
        }),
    },
    {
      name: "a controller that is connecting is deleted by delete_controller",
      run: ({ vm, note }) =>
        withKernelArray(vm, async (array) => {
          await array.createZvol(A);
          await array.offer({ namespaces: { 7: A } });
          for (const portal of PORTALS) await nvmeConnect(vm, portal);
          await awaitLink(vm, `nvme-uuid.${uuidOf(A)}`);
          await vm.linkDown(PORTALS[0]);
          await vm.until(`grep -l connecting /sys/class/nvme/nvme*/state`, 60);
          const result = await vm.sh(
            `controller=$(dirname $(grep -l connecting /sys/class/nvme/nvme*/state))
            start=$(date +%s%N); echo 1 >$controller/delete_controller
            echo $(( ($(date +%s%N) - start) / 1000000 )) ms, $([ -e $controller ] && echo still there || echo gone)`,
          );
          note(`delete_controller of a connecting controller: ${result}`);
          assertMatch(result, /gone$/);
          // The other path goes on.
          await vm.hash(`/dev/disk/by-id/nvme-uuid.${uuidOf(A)}`, 1);
          assertEquals(await vm.sh("cat /sys/class/nvme/nvme*/state"), "live");
        }),
    },
    {
      name:
        "a link to the identity dangles when its namespace goes, and finds it under another number",
      run: ({ vm, note }) =>
        withKernelArray(vm, async (array) => {
          await array.createZvol(A);
          await array.createZvol(B);
          await array.offer({ namespaces: { 7: A } });
          await nvmeConnect(vm, PORTALS[0]);
          const link = await awaitLink(vm, `nvme-uuid.${uuidOf(A)}`);
          const content = await vm.fill(link);
          const before = await vm.sh(`readlink -f ${link}`);
          await array.offer({ namespaces: {} });
          await vm.until(`[ ! -e ${link} ]`);
          await array.offer({ namespaces: { 8: B } });
          const other = await awaitLink(vm, `nvme-uuid.${uuidOf(B)}`);
          assertEquals(await vm.sh(`readlink -f ${other}`), before, "the name is taken by another");
          assertEquals((await vm.try(`[ -e ${link} ]`)).status, 1);
          await array.offer({ namespaces: { 8: B, 9: A } });
          await awaitLink(vm, `nvme-uuid.${uuidOf(A)}`);
          note(`before ${before}, after ${await vm.sh(`readlink -f ${link}`)}`);
          assertEquals(await vm.hash(link), content);
        }),
    },
    {
      name: "when a number is re-used at once, the new disk appears after a rescan",
      run: ({ vm, note }) =>
        withKernelArray(vm, async (array) => {
          await array.createZvol(A);
          await array.createZvol(B);
          await array.offer({ namespaces: { 7: A } });
          await nvmeConnect(vm, PORTALS[0]);
          const link = await awaitLink(vm, `nvme-uuid.${uuidOf(A)}`);
          await array.offer({ namespaces: { 7: B } });
          await vm.until(`[ ! -e ${link} ]`);
          const swapped = `/dev/disk/by-id/nvme-uuid.${uuidOf(B)}`;
          const alone = await vm.try(
            `for i in $(seq 30); do [ -b ${swapped} ] && exit 0; sleep 0.1; done; exit 1`,
          );
          note(`new disk within 3 s without a rescan: ${alone.status === 0 ? "yes" : "no"}`);
          await vm.sh("for c in /sys/class/nvme/nvme*; do echo 1 >$c/rescan_controller; done");
          await awaitLink(vm, `nvme-uuid.${uuidOf(B)}`);
        }),
    },
  ],
};
