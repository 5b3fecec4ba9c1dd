/** The simulated array's own data side: what the product is tested against must itself be right. */

import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { awaitLink, iscsiLogin, nvmeConnect, scanLun } from "./support/initiator.ts";
import {
  IQN,
  type KernelArray,
  MIB,
  naaOf,
  NQN,
  uuidOf,
  withKernelArray,
} from "./support/kernel_array.ts";
import type { VmCase, VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

const A = "tank/pve/vm-100-disk-0";
const B = "tank/pve/vm-101-disk-0";

function arrayCase(name: string, run: (vm: Vm, array: KernelArray) => Promise<void>): VmCase {
  return { name, run: ({ vm }) => withKernelArray(vm, (array) => run(vm, array)) };
}

async function namespaceOf(vm: Vm, zvol: string): Promise<string> {
  return await awaitLink(vm, `nvme-uuid.${uuidOf(zvol)}`);
}

async function diskOf(vm: Vm, zvol: string, lun: number): Promise<string> {
  await scanLun(vm, lun);
  return await awaitLink(vm, `wwn-0x${naaOf(zvol)}`);
}

export const suite: VmSuite = {
  name: "array",
  cases: [
    arrayCase("snapshot, clone and rollback share blocks and keep content", async (vm, array) => {
      await array.createZvol(A);
      await array.offer({ namespaces: { 7: A } });
      for (const portal of PORTALS) await nvmeConnect(vm, portal);
      const disk = await namespaceOf(vm, A);
      const first = await vm.fill(disk, 16);
      const used = async () =>
        Number(await vm.sh("sync -f /data; df --output=used -k /data | tail -n 1"));

      const before = await used();
      await array.call("createSnapshot", A, "one");
      await array.createZvol(B, 64 * MIB, `${A}@one`);
      assertEquals(await used() - before < 2048, true, "a snapshot and a clone take no room");

      const second = await vm.fill(disk, 16);
      await array.offer({ namespaces: { 7: A, 8: B } });
      assertEquals(await vm.hash(await namespaceOf(vm, B), 16), first);
      assertEquals(await vm.hash(disk, 16), second);
      await array.call("rollback", A, "one");
      assertEquals(await vm.hash(disk, 16), first);
    }),

    arrayCase("a rollback to a smaller size is told to nobody", async (vm, array) => {
      await array.createZvol(A);
      await array.createZvol(B);
      await array.offer({ luns: { 5: A }, namespaces: { 7: B } });
      await nvmeConnect(vm, PORTALS[0]);
      await iscsiLogin(vm, PORTALS[0]);
      const disk = await diskOf(vm, A, 5);
      const namespace = await namespaceOf(vm, B);
      const contents = [await vm.fill(disk), await vm.fill(namespace)];
      for (const zvol of [A, B]) {
        await array.call("createSnapshot", zvol, "one");
        await array.resizeZvol(zvol, 96 * MIB);
      }
      const rescan = `echo 1 >/sys/block/$(basename $(readlink -f ${disk}))/device/rescan`;
      await vm.sh(rescan);
      for (const path of [disk, namespace]) {
        await vm.until(`[ $(blockdev --getsize64 ${path}) = ${96 * MIB} ]`);
        await vm.fill(path);
      }
      for (const zvol of [A, B]) await array.call("rollback", zvol, "one");
      assertEquals([await vm.hash(disk), await vm.hash(namespace)], contents);

      // nvmet looks when a host identifies the namespace; the iSCSI target only when it opens the zvol.
      await vm.sh("echo 1 >/sys/class/nvme/nvme0/rescan_controller");
      await vm.until(`[ $(blockdev --getsize64 ${namespace}) = ${64 * MIB} ]`);
      await vm.sh(rescan);
      assertEquals(await vm.sh(`blockdev --getsize64 ${disk}`), String(96 * MIB));
      await array.offer({ luns: {}, namespaces: { 7: B } });
      await array.offer({ luns: { 5: A }, namespaces: { 7: B } });
      await vm.sh(rescan);
      assertEquals(await vm.sh(`blockdev --getsize64 ${disk}`), String(64 * MIB));
    }),

    arrayCase(
      "a promoted clone has its origin's snapshots, and everything goes with its zvol",
      async (vm, array) => {
        await array.createZvol(A);
        await array.offer({ namespaces: { 7: A } });
        await nvmeConnect(vm, PORTALS[0]);
        const disk = await namespaceOf(vm, A);
        const first = await vm.fill(disk);
        await array.call("createSnapshot", A, "one");
        const second = await vm.fill(disk);
        await array.call("createSnapshot", A, "two");
        await array.createZvol(B, 64 * MIB, `${A}@two`);
        await array.call("promote", B);
        await array.offer({});
        await array.destroyZvol(A);
        // As the simulated API does after the zvol.
        await array.call("destroySnapshot", A, "two");
        await array.offer({ namespaces: { 8: B } });
        const clone = await namespaceOf(vm, B);
        assertEquals(await vm.hash(clone), second);
        await array.call("rollback", B, "one");
        assertEquals(await vm.hash(clone), first);
      },
    ),

    arrayCase("a namespace has blocks of 512 bytes, as a zvol has", async (vm, array) => {
      await array.createZvol(A);
      await array.offer({ namespaces: { 7: A } });
      await nvmeConnect(vm, PORTALS[0]);
      assertEquals(await vm.sh(`blockdev --getss ${await namespaceOf(vm, A)}`), "512");
    }),

    arrayCase("a LUN has the array's NAA, vendor, product and block size", async (vm, array) => {
      await array.createZvol(A);
      await array.offer({ luns: { 5: A } });
      for (const portal of PORTALS) await iscsiLogin(vm, portal);
      const disk = await diskOf(vm, A, 5);
      const seen = await vm.sh(
        `cd /sys/block/$(basename $(readlink -f ${disk})); cat device/{wwid,vendor,model} queue/logical_block_size size`,
      );
      assertEquals(seen.split("\n").map((line) => line.trim()), [
        `naa.${naaOf(A)}`,
        "TrueNAS",
        "iSCSI Disk",
        "512",
        String(64 * MIB / 512),
      ]);
      assertEquals(await vm.sh(`ls /sys/class/iscsi_session | wc -l`), "2");
    }),

    arrayCase(
      "a LUN can be re-pointed while it is mapped, and sessions stay",
      async (vm, array) => {
        await array.createZvol(A);
        await array.createZvol(B);
        await array.offer({ luns: { 5: A } });
        await iscsiLogin(vm, PORTALS[0]);
        const disk = await vm.sh(`readlink -f ${await diskOf(vm, A, 5)}`);
        const content = await vm.fill(disk);
        await array.offer({ luns: { 5: B } });
        assertNotEquals(await vm.hash(disk), content, "the same device reads the other volume");
        assertEquals(
          await vm.sh(`cat /sys/block/$(basename ${disk})/device/wwid`),
          `naa.${naaOf(A)}`,
        );
        assertEquals(await vm.sh("cat /sys/class/iscsi_session/*/state"), "LOGGED_IN");
      },
    ),

    arrayCase(
      "a resize reaches connected NVMe hosts, and initiators that look again",
      async (vm, array) => {
        await array.createZvol(A);
        await array.createZvol(B);
        await array.offer({ luns: { 5: A }, namespaces: { 7: B } });
        await nvmeConnect(vm, PORTALS[0]);
        await iscsiLogin(vm, PORTALS[0]);
        const disk = await diskOf(vm, A, 5);
        const namespace = await namespaceOf(vm, B);
        await array.resizeZvol(A, 96 * MIB);
        await array.resizeZvol(B, 96 * MIB);
        await vm.until(`[ $(blockdev --getsize64 ${namespace}) = ${96 * MIB} ]`);
        assertEquals(await vm.sh(`blockdev --getsize64 ${disk}`), String(64 * MIB));
        await vm.sh(`echo 1 >/sys/block/$(basename $(readlink -f ${disk}))/device/rescan`);
        assertEquals(await vm.sh(`blockdev --getsize64 ${disk}`), String(96 * MIB));
      },
    ),

    arrayCase("a namespace goes at once, also while it is written to", async (vm, array) => {
      await array.createZvol(A);
      await array.offer({ namespaces: { 7: A } });
      await nvmeConnect(vm, PORTALS[0]);
      const disk = await namespaceOf(vm, A);
      await vm.sh(
        `(while dd if=/dev/zero of=${disk} bs=64k count=100 oflag=direct conv=nocreat 2>/dev/null
        do :; done) >/dev/null 2>&1 &`,
      );
      await array.offer({ namespaces: {} });
      await vm.until(`[ ! -e ${disk} ]`);
      await array.destroyZvol(A);
    }),

    arrayCase(
      "a zvol that is exported is busy, and a renamed one stays exported",
      async (vm, array) => {
        await array.createZvol(A);
        await array.offer({ luns: { 5: A } });
        await iscsiLogin(vm, PORTALS[0]);
        const content = await vm.fill(await diskOf(vm, A, 5));
        await assertRejects(() => array.call("destroyZvol", A), "users");
        await array.call("renameZvol", A, B);
        assertEquals(await vm.hash(`/dev/disk/by-id/wwn-0x${naaOf(A)}`), content);
        // The next reload finds nothing under the old name.
        await array.offer({ luns: {} });
        await assertRejects(() => vm.hash(`/dev/disk/by-id/wwn-0x${naaOf(A)}`), "status");
        await array.call("renameZvol", B, A);
      },
    ),

    arrayCase("CHAP is asked for, and asked of the array too", async (vm, array) => {
      await array.createZvol(A);
      const chap = {
        user: "pve",
        secret: "secret-secret1",
        peerUser: "array",
        peerSecret: "secret-secret2",
      };
      await array.offer({ luns: { 5: A }, target: { chap } });
      await assertRejects(() => iscsiLogin(vm, PORTALS[0]), "status");
      const set = (name: string, value: string) => ` -n node.session.auth.${name} -v ${value}`;
      await vm.sh(
        `iscsiadm -m node -T ${IQN} -p ${PORTALS[0]}:3260,1 -o update` +
          set("authmethod", "CHAP") + set("username", chap.user) + set("password", chap.secret) +
          set("username_in", chap.peerUser) + set("password_in", chap.peerSecret),
      );
      await vm.sh(`iscsiadm -m node -T ${IQN} -p ${PORTALS[0]}:3260,1 --login`);
      await diskOf(vm, A, 5);
    }),

    arrayCase("only listed initiators log in, and see new LUNs", async (vm, array) => {
      await array.createZvol(A);
      await array.createZvol(B);
      await array.offer({ luns: { 5: A }, target: { initiators: ["iqn.2001-01.example:other"] } });
      await assertRejects(() => iscsiLogin(vm, PORTALS[0]), "status");
      const initiator = "iqn.1993-08.org.debian:01:vm";
      await array.offer({ luns: { 5: A }, target: { initiators: [initiator] } });
      await iscsiLogin(vm, PORTALS[0]);
      await diskOf(vm, A, 5);
      await array.offer({ luns: { 5: A, 6: B }, target: { initiators: [initiator] } });
      await diskOf(vm, B, 6);
      assertEquals((await array.sessions()).iscsi, [
        { iqn: IQN, initiator, address: "10.99.0.2" },
      ]);
    }),

    arrayCase("DH-HMAC-CHAP is asked for", async (vm, array) => {
      await array.createZvol(A);
      const key = "DHHC-1:01:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYOtVl3:";
      const hosts = [{ nqn: vm.hostNqn, key, hash: "SHA-256", dhGroup: "2048-BIT" }];
      await array.offer({ namespaces: { 7: A }, subsystem: { allowAnyHost: false, hosts } });
      await assertRejects(() => nvmeConnect(vm, PORTALS[0]), "status");
      await nvmeConnect(vm, PORTALS[0], `,dhchap_secret=${key}`);
      await namespaceOf(vm, A);
      assertEquals((await array.sessions()).nvmet, [
        { nqn: NQN, hostNqn: vm.hostNqn, address: "10.99.0.2", portAddress: "10.99.0.1" },
      ]);
    }),

    arrayCase(
      "a service that is stopped ends its connections, and starts again",
      async (vm, array) => {
        await array.createZvol(A);
        await array.createZvol(B);
        const offer = { luns: { 5: A }, namespaces: { 7: B } };
        await array.offer(offer);
        await array.offer({ ...offer, iscsiRunning: false, nvmetRunning: false });
        assertEquals(await vm.sh("nsenter --net=/run/netns/tgt ss -tlnH"), "");
        await array.offer(offer);
        for (const portal of PORTALS) await nvmeConnect(vm, portal);
        await namespaceOf(vm, B);
      },
    ),
  ],
};
