import { assertEquals } from "@std/assert";
import { guestVolnames } from "../../src/host/guest_volnames.ts";
import { withNode } from "../support/node_folder.ts";

const VM = `scsi0: san:vol-vm-100-disk-0-lun5,size=32G
ide2: san:vm-100-cloudinit,media=cdrom
scsi1: other:vol-vm-100-disk-9-lun9
unused0: san:vol-vm-100-disk-1-lun7
#scsi5: san:vol-vm-100-disk-5-lun55

[PENDING]
scsi2: san:vol-vm-100-disk-2-lun8,size=1G

[before]
vmstate: san:vol-vm-100-state-before-lun9
scsi0: san:vol-vm-100-disk-0-lun5
`;

const CT = "rootfs: san:vol-base-9-disk-0-lun1/vol-vm-200-disk-0-lun2,size=8G\n";

Deno.test("all volumes that guests of any node name are found, those of snapshots and pending ones too", async () => {
  await withNode(undefined, async (node) => {
    await node.write("/etc/pve/nodes/pve1/qemu-server/100.conf", VM);
    await node.write("/etc/pve/nodes/pve2/lxc/200.conf", CT);
    await node.write("/etc/pve/nodes/pve2/lxc/notes.txt", "x: san:vol-vm-1-disk-0-lun1\n");
    const { volnames, unread } = await guestVolnames(node.host, "san");
    assertEquals([...volnames].sort(), [
      "vm-100-cloudinit",
      "vol-base-9-disk-0-lun1/vol-vm-200-disk-0-lun2",
      "vol-vm-100-disk-0-lun5",
      "vol-vm-100-disk-1-lun7",
      "vol-vm-100-disk-2-lun8",
      "vol-vm-100-state-before-lun9",
    ]);
    assertEquals(unread, []);
  });
});

Deno.test("what cannot be read is told", async () => {
  await withNode(undefined, async (node) => {
    await node.write("/etc/pve/nodes/pve1/qemu-server/100.conf/file", "");
    const { unread } = await guestVolnames(node.host, "san");
    assertEquals(unread, ["/etc/pve/nodes/pve1/qemu-server/100.conf"]);
  });
});

Deno.test("without pmxcfs it is not known what guests name", async () => {
  await withNode(undefined, async (node) => {
    assertEquals((await guestVolnames(node.host, "san")).unread, ["/etc/pve/nodes"]);
  });
});
