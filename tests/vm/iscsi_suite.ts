/**
 * What Linux's iSCSI initiator and multipathd do, where the product relies on it
 * (docs/kernel-facts.md). The target is LIO; TrueNAS has SCST.
 */

import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { awaitLink, iscsiLogin, scanLun } from "./support/initiator.ts";
import { type KernelArray, naaOf, withKernelArray } from "./support/kernel_array.ts";
import type { VmCase, VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

const A = "tank/pve/vm-100-disk-0";
const B = "tank/pve/vm-101-disk-0";

type Body = (vm: Vm, array: KernelArray, note: (line: string) => void) => Promise<void>;

function iscsiCase(name: string, run: Body): VmCase {
  return { name, run: ({ vm, note }) => withKernelArray(vm, (array) => run(vm, array, note)) };
}

/** Exports A at LUN 5 over both portals, with multipathd running on this configuration. */
async function multipathed(vm: Vm, array: KernelArray, findMultipaths: string): Promise<void> {
  await array.createZvol(A);
  await array.createZvol(B);
  await array.offer({ luns: { 5: A } });
  await vm.sh(`cat >/etc/multipath.conf <<'END'
defaults {
  find_multipaths ${findMultipaths}
  user_friendly_names no
  no_path_retry queue
}
blacklist {
  devnode "^(loop|vd)"
}
END
    multipathd >/dev/null 2>&1 </dev/null`);
  await vm.until("multipathd show status");
  for (const portal of PORTALS) await iscsiLogin(vm, portal);
  await scanLun(vm, 5);
}

const mapLink = (zvol: string) => `dm-uuid-mpath-3${naaOf(zvol)}`;
/** Shell: the kernel names of A's two disks. */
const PATHS = `$(grep -l ${naaOf(A)} /sys/block/sd*/device/wwid | cut -d/ -f4)`;

export const suite: VmSuite = {
  name: "iscsi",
  cases: [
    iscsiCase("LUNs from 255 up are scanned one by one", async (vm, array, note) => {
      const numbers = [255, 256, 300, 511, 512, 1000, 16383];
      const zvols = numbers.map((number) => `tank/pve/vm-${number}-disk-0`);
      for (const zvol of zvols) await array.createZvol(zvol);
      await array.offer({
        luns: Object.fromEntries(numbers.map((number, at) => [number, zvols[at] ?? ""])),
      });
      await iscsiLogin(vm, PORTALS[0]);
      for (const [at, number] of numbers.entries()) {
        await scanLun(vm, number);
        const zvol = zvols[at] ?? "";
        const address = await vm.sh(
          `basename $(dirname $(grep -l ${naaOf(zvol)} /sys/bus/scsi/devices/*/wwid))`,
        );
        note(`scan of "0 0 ${number}": the disk is at ${address}`);
        assertMatch(address, new RegExp(`:0:${number}$`));
        await awaitLink(vm, `wwn-0x${naaOf(zvol)}`);
      }
    }),

    iscsiCase(
      "multipathd makes a map by itself with find_multipaths no",
      async (vm, array, note) => {
        await multipathed(vm, array, "no");
        const link = await awaitLink(vm, mapLink(A));
        await vm.until(
          `[ $(ls /sys/block/$(basename $(readlink -f ${link}))/slaves | wc -l) = 2 ]`,
        );
        const content = await vm.fill(link);
        assertEquals(await vm.hash(link), content);
        note(
          await vm.sh(
            "multipathd show maps format '%n %w %N paths'; ls -l /dev/disk/by-id | sed 's/.*root//'",
          ),
        );
      },
    ),

    iscsiCase(
      "with find_multipaths strict a map is made when asked for",
      async (vm, array, note) => {
        await multipathed(vm, array, "strict");
        await awaitLink(vm, `wwn-0x${naaOf(A)}`);
        await vm.sh("udevadm settle -t 30");
        assertEquals(await vm.sh("ls -d /sys/block/dm-* 2>/dev/null || true"), "");
        note(`add map WWID: ${await vm.sh(`multipathd add map 3${naaOf(A)}; true`)}`);
        await vm.until(`multipathd show maps format %w | grep -q 3${naaOf(A)}`, 5).catch(
          async () => {
            note("no map after add map; registering the WWID and adding the paths");
            note(
              await vm.sh(
                `multipath -a 3${naaOf(A)}; for p in ${PATHS}; do multipathd add path $p; done`,
              ),
            );
          },
        );
        const link = await awaitLink(vm, mapLink(A));
        await vm.until(
          `[ $(ls /sys/block/$(basename $(readlink -f ${link}))/slaves | wc -l) = 2 ]`,
        );
        note(
          `wwids file: ${await vm.sh(
            "grep -v '^#' /etc/multipath/wwids 2>/dev/null || echo none",
          )}`,
        );
      },
    ),

    iscsiCase(
      "an exclusive open fails on a path below a map, and on a map that is claimed",
      async (vm, array, note) => {
        await multipathed(vm, array, "no");
        const link = await awaitLink(vm, mapLink(A));
        await vm.until(
          `[ $(ls /sys/block/$(basename $(readlink -f ${link}))/slaves | wc -l) = 2 ]`,
        );
        const probe = (path: string) =>
          vm.sh(
            `perl -MFcntl -e 'print sysopen(my $f, $ARGV[0], O_RDONLY|O_EXCL) ? "opened" : "$!"' ${path}`,
          );
        for (const path of (await vm.sh(`echo ${PATHS}`)).split(" ")) {
          const answer = await probe(`/dev/${path}`);
          note(`O_RDONLY|O_EXCL on /dev/${path}: ${answer}`);
          assertEquals(answer, "Device or resource busy");
        }
        assertEquals(await probe(link), "opened");
        await vm.sh(`dmsetup create above --table "0 2048 linear ${link} 0"`);
        assertEquals(await probe(link), "Device or resource busy");
        await vm.sh("dmsetup remove above");
      },
    ),

    iscsiCase(
      "a map keeps its path when the LUN becomes another volume, and reads that",
      async (vm, array, note) => {
        await multipathed(vm, array, "no");
        const link = await awaitLink(vm, mapLink(A));
        await vm.until(
          `[ $(ls /sys/block/$(basename $(readlink -f ${link}))/slaves | wc -l) = 2 ]`,
        );
        const content = await vm.fill(link);
        await array.offer({ luns: { 5: B } });
        assertNotEquals(await vm.hash(link), content);
        const identities = () =>
          vm.sh(
            `cd /sys/block; for p in sd*; do echo $p $(cat $p/device/wwid) below $(ls $p/holders); done`,
          );
        note(
          `after the swap, map ${mapLink(A)} reads the other volume; paths:\n${await identities()}`,
        );
        await vm.sh(
          "for p in /sys/block/sd*; do echo 1 >$p/device/rescan; done; udevadm settle -t 30",
        );
        note(`after device/rescan of each path:\n${await identities()}`);
        assertEquals((await vm.sh("cat /sys/block/sd*/device/wwid")).split("\n"), [
          `naa.${naaOf(B)}`,
          `naa.${naaOf(B)}`,
        ]);
        note(`multipathd's view:\n${await vm.sh("multipathd show paths format '%d %w %m %t'")}`);
        note(
          `links:\n${await vm.sh(
            "cd /dev/disk/by-id; for l in dm-uuid* wwn-*; do echo $l $(readlink $l); done",
          )}`,
        );
        // The way out: neither a rescan nor a re-connection, only without the map and its paths.
        await vm.sh(
          `multipathd disablequeueing map 3${naaOf(A)} && multipathd remove map 3${naaOf(A)}
          for p in /sys/block/sd*; do echo 1 >$p/device/delete; done`,
        );
        await scanLun(vm, 5);
        await awaitLink(vm, mapLink(B));
        assertEquals((await vm.try(`[ -e ${link} ]`)).status, 1);
      },
    ),

    iscsiCase(
      "a link to a map's identity dangles without it, and finds it under another number",
      async (vm, array, note) => {
        await multipathed(vm, array, "no");
        const link = await awaitLink(vm, mapLink(A));
        const content = await vm.fill(link);
        const before = await vm.sh(`readlink -f ${link}`);
        await vm.sh(
          `ln -s ${link} /run/link; multipathd disablequeueing map 3${
            naaOf(A)
          }; multipathd remove map 3${naaOf(A)}`,
        );
        await vm.until(`[ ! -e /run/link ]`);
        // Another map takes the number.
        await vm.sh("dmsetup create other --table '0 2048 zero'");
        await vm.sh(`multipathd add map 3${naaOf(A)}`);
        await awaitLink(vm, mapLink(A));
        const after = await vm.sh("readlink -f /run/link");
        note(`before ${before}, after ${after}`);
        assertNotEquals(after, before);
        assertEquals(await vm.hash("/run/link"), content);
        await vm.sh("dmsetup remove other; rm /run/link");
      },
    ),

    iscsiCase(
      "who reads a map whose LUN has gone waits while the sessions live, until queueing is disabled",
      async (vm, array, note) => {
        await multipathed(vm, array, "no");
        const link = await awaitLink(vm, mapLink(A));
        await vm.until(
          `[ $(ls /sys/block/$(basename $(readlink -f ${link}))/slaves | wc -l) = 2 ]`,
        );
        await vm.fill(link);
        // Another LUN stays, as the weight does on a target of the product's.
        await array.offer({ luns: { 6: B } });
        await vm.until(
          "[ $(multipathd show paths format '%m %t' | grep -c failed) = 2 ]",
          60,
        );
        await vm.sh(
          `(dd if=${link} of=/dev/null bs=4096 count=1 iflag=direct; echo $? >/run/read-ended) \
            >/dev/null 2>&1 </dev/null &`,
        );
        await vm.until("grep -q '^State:.D' /proc/$(pidof dd)/status");
        await vm.sh("for p in /sys/block/sd*; do echo 1 >$p/device/rescan; done");
        // What tells this map from one that lost its paths. udev may wait for the map, too: it is not settled.
        await vm.until("! grep -qvx 0 /sys/block/sd*/size");
        assertEquals(await vm.sh("cat /sys/class/iscsi_session/*/state"), "LOGGED_IN\nLOGGED_IN");
        note(`paths:\n${await vm.sh("multipathd show paths format '%d %w %t %o %T'")}`);
        await vm.sh("pidof dd && [ ! -e /run/read-ended ]");
        await vm.sh(`multipathd disablequeueing map 3${naaOf(A)}`);
        await vm.until("[ -s /run/read-ended ]");
        assertNotEquals(await vm.sh("cat /run/read-ended; rm /run/read-ended"), "0");
      },
    ),

    iscsiCase(
      "/dev/disk/by-id is not there before the first disk, nor after the last",
      async (vm, array) => {
        const absent = "[ ! -e /dev/disk/by-id ]";
        await vm.sh(absent);
        await array.createZvol(A);
        await array.offer({ luns: { 5: A } });
        await iscsiLogin(vm, PORTALS[0]);
        await scanLun(vm, 5);
        await awaitLink(vm, `wwn-0x${naaOf(A)}`);
        await vm.sh("for p in /sys/block/sd*; do echo 1 >$p/device/delete; done");
        await vm.until(absent);
      },
    ),
  ],
};
