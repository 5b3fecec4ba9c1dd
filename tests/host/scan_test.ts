/** Finding one disk among many, and standing a kernel that changes under the scan. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { HostError, type HostFiles } from "../../src/host/host.ts";
import { scanBlockDevices } from "../../src/host/scan/block_devices.ts";
import { chooseNvmeNode } from "../../src/host/scan/choose.ts";
import { diagnoseMissingLun, diagnoseMissingNamespace } from "../../src/host/scan/diagnose.ts";
import { identify } from "../../src/host/scan/identify.ts";
import { lunOfKernel, parseHctl } from "../../src/host/scan/lun.ts";
import { controllersOf, findNvmeNamespace, parseAddress } from "../../src/host/scan/nvme.ts";
import { findScsiPaths, naaOf, serialOf } from "../../src/host/scan/scsi.ts";
import { withNode } from "../support/node_folder.ts";

const NQN = "nqn.2011-06.com.truenas:uuid:7b0c4d52-3f1e-4a86-9d0a-2c6e8f1b9a47:pve";
const BACKUP = "nqn.2011-06.com.truenas:uuid:7b0c4d52-3f1e-4a86-9d0a-2c6e8f1b9a47:backup";
const UUID = "c0de5a1b-62e7-4f90-a3d4-7788990a1b03";
const IQN = "iqn.2005-10.org.freenas.ctl:pve-storage";
const NAA = "6589cfc000000e41f2a3b4c5d6e7f003";

Deno.test("a namespace is found by subsystem and uuid, whatever the number in its name", async () => {
  await withNode("nvme-multipath-2portal", async ({ host }) => {
    const { disk, ambiguous } = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    assertEquals([disk?.kind, disk?.uuid, disk?.nsid, ambiguous], ["head", UUID, 7, false]);
    assertEquals(disk?.sizeBytes, 3 * 2 ** 30);
  });
});

Deno.test("a namespace is found as well before udev has made its link", async () => {
  await withNode("nvme-multipath-2portal", async ({ host, directory }) => {
    await rm(join(directory, "dev/disk"), { recursive: true });
    const { disk } = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    assertEquals(disk?.uuid, UUID);
  });
});

Deno.test("udev's link is not believed when the disk behind it says otherwise", async () => {
  await withNode("nvme-multipath-2portal", async ({ host, directory, link }) => {
    const right = (await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID })).disk?.name;
    const wrong = ["nvme0n1", "nvme0n2"].find((name) => name !== right);
    await rm(join(directory, `dev/disk/by-id/nvme-uuid.${UUID}`));
    await link(`/dev/disk/by-id/nvme-uuid.${UUID}`, `../../${wrong}`);
    const { disk } = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    assertEquals(disk?.name, right);
  });
});

Deno.test("the same uuid in another subsystem is another disk", async () => {
  await withNode("nvme-two-subsystems", async ({ host }) => {
    assertEquals(
      (await findNvmeNamespace(host.files, { nqn: BACKUP, uuid: UUID })).candidates,
      [],
    );
  });
});

Deno.test("a disk without its node in /dev is a candidate and not chosen", async () => {
  await withNode("nvme-multipath-2portal", async ({ host, directory }) => {
    const found = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    await rm(join(directory, found.disk?.node ?? "?"));
    const { disk, candidates } = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    assertEquals([disk, candidates.length], [undefined, 1]);
  });
});

Deno.test("without native multipath two disks are one namespace, and that is said", async () => {
  await withNode("nvme-multipath-off-2portal", async ({ host }) => {
    const wanted = { nqn: NQN, uuid: UUID };
    const scan = await scanBlockDevices(host.files);
    const fast = await findNvmeNamespace(host.files, wanted);
    assertEquals(fast, chooseNvmeNode(scan.nvme, wanted));
    assertEquals([fast.ambiguous, fast.disk, fast.candidates.length], [true, undefined, 2]);
    assertStringIncludes(diagnoseMissingNamespace(scan.nvme, wanted), "multipath is off");
  });
});

Deno.test("a single plain disk is used", async () => {
  await withNode("nvme-multipath-off-2portal", async ({ host, directory }) => {
    for (const name of ["nvme1n1", "nvme1n2", "nvme1n3"]) {
      await rm(join(directory, "sys/block", name));
    }
    const { disk, ambiguous } = await findNvmeNamespace(host.files, { nqn: NQN, uuid: UUID });
    assertEquals([disk?.kind, ambiguous], ["plain", false]);
  });
});

Deno.test("hidden path disks are never chosen", async () => {
  await withNode("nvme-multipath-2portal", async ({ host }) => {
    const scan = await scanBlockDevices(host.files);
    const paths = scan.nvme.disks.filter((disk) => disk.kind === "path");
    assertEquals(paths.length, 6);
    const choice = chooseNvmeNode({ disks: paths }, { nqn: NQN, uuid: UUID });
    assertEquals(choice, { disk: undefined, ambiguous: false, candidates: [] });
  });
});

Deno.test("the paths of a LUN are found by number and by identity alike", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    const all = (await scanBlockDevices(host.files)).scsi.disks.filter((disk) => disk.naa === NAA);
    const byName = (disks: typeof all) => disks.map((disk) => disk.name).sort();
    assertEquals(byName(await findScsiPaths(host.files, { iqn: IQN, lun: 5 })), byName(all));
    assertEquals(byName(await findScsiPaths(host.files, { iqn: IQN, naa: NAA })), byName(all));
    assertEquals(await findScsiPaths(host.files, { iqn: IQN, lun: 5, naa: "0".repeat(32) }), []);
    assertEquals(await findScsiPaths(host.files, { iqn: `${IQN}2`, lun: 5 }), []);
    assertEquals(all.length, 2);
  });
});

Deno.test("the narrow look at a LUN reads the same as the whole scan", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host }) => {
    const all = (await scanBlockDevices(host.files)).scsi.disks.filter((disk) => disk.lun === 5);
    assertEquals(await findScsiPaths(host.files, { iqn: IQN, lun: 5 }), all);
  });
});

Deno.test("a LUN is compared in flat space addressing as well", () => {
  assertEquals([0, 255, 300, 16383].map(lunOfKernel), [0, 255, 300, 16383]);
  assertEquals([16384, 16384 + 300, 32767].map(lunOfKernel), [0, 300, 16383]);
  assertEquals(parseHctl("3:0:0:16684"), { target: "3:0:0", lun: 300 });
  assertEquals(parseHctl("target3:0:0"), undefined);
});

Deno.test("a disk that vanishes during the scan is left out, the others stay", async () => {
  await withNode("nvme-multipath-2portal", async ({ host, directory }) => {
    const gone = new Set(["nvme0n2", "nvme0c1n2"]);
    let cut = false;
    const files: HostFiles = {
      ...host.files,
      async readText(path) {
        // The kernel takes the disk away after its first attribute was read.
        const text = await host.files.readText(path);
        if (path.endsWith("/nvme0n2/nsid") && !cut) {
          cut = true;
          for (const name of gone) await rm(join(directory, "sys/block", name));
        }
        return text;
      },
    };
    const names = (await scanBlockDevices(files)).nvme.disks.map((disk) => disk.name);
    assert(cut);
    assert(!names.includes("nvme0n2"));
    assert(names.includes("nvme0n1") && names.includes("nvme0n3"));
  });
});

Deno.test("an attribute that cannot be read is undefined", async () => {
  await withNode("iscsi-2portal", async ({ host, directory }) => {
    await rm(
      join(
        directory,
        "sys/devices/platform/host0/session1/target0:0:0/0:0:0:5/wwid",
      ),
    );
    const disks = await findScsiPaths(host.files, { iqn: IQN, lun: 5 });
    assertEquals(disks.map((disk) => disk.naa).sort(), [NAA, undefined]);
  });
});

Deno.test("running out of file descriptors is not taken for an empty machine", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    const files: HostFiles = {
      ...host.files,
      readText: () => Promise.reject(new HostError("EMFILE", "too many open files")),
    };
    const error = await assertRejects(() => scanBlockDevices(files), "too many open files");
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
  });
});

Deno.test("a link that cannot be followed is the node's fault, not another disk", async () => {
  await withNode("iscsi-2portal", async ({ host, link }) => {
    await link("/dev/circle", "circle");
    const error = await assertRejects(() => identify(host.files, "/dev/circle"), "ELOOP");
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
  });
});

Deno.test("disks that are not ours do not disturb", async () => {
  await withNode(undefined, async ({ host, write }) => {
    for (const name of ["loop0", "zd0", "sr0", "vda", "md127"]) {
      await write(`/sys/block/${name}/size`, "2048\n");
    }
    await write("/sys/block/sda/device/wwid", "naa.5000c500a1b2c3d4\n");
    await write("/sys/block/dm-0/dm/uuid", "LVM-abc\n");
    const scan = await scanBlockDevices(host.files);
    assertEquals(scan, {
      nvme: { disks: [], controllers: [], multipath: undefined },
      scsi: { disks: [], sessions: [], maps: [] },
    });
  });
});

Deno.test("a machine without sysfs has nothing", async () => {
  await withNode(undefined, async ({ host }) => {
    assertEquals((await scanBlockDevices(host.files)).nvme.disks, []);
  });
});

Deno.test("a link is identified by the disk that it leads to", async () => {
  await withNode("iscsi-2portal-multipathd", async ({ host }) => {
    const map = await identify(host.files, `/dev/disk/by-id/dm-uuid-mpath-3${NAA}`);
    assertEquals([map?.kind, map?.naa, map?.slaves.length], ["multipath", NAA, 2]);
    const path = await identify(host.files, `/dev/${map?.slaves[0]}`);
    assertEquals([path?.kind, path?.naa, path?.sizeBytes], ["scsi", NAA, 3 * 2 ** 30]);
    assertEquals((await identify(host.files, "/dev/vda"))?.kind, "other");
    assertEquals(await identify(host.files, "/dev/disk/by-id/wwn-0x1"), undefined);
  });
  await withNode("nvme-single-path", async ({ host }) => {
    const disk = await identify(host.files, `/dev/disk/by-id/nvme-uuid.${UUID}`);
    assertEquals([disk?.kind, disk?.uuid, disk?.subsystem], ["nvme", UUID, NQN]);
  });
});

Deno.test("controllers are told apart by what their address means, not by its spelling", async () => {
  assertEquals(parseAddress("traddr=10.0.0.5,trsvcid=4420,src_addr=10.0.0.9"), {
    portal: { address: "10.0.0.5", port: 4420 },
    source: "10.0.0.9",
  });
  await withNode("nvme-two-subsystems", async ({ host }) => {
    const { controllers } = (await scanBlockDevices(host.files)).nvme;
    const portal = { address: "10.99.1.1", port: 4420 };
    assertEquals(controllersOf(controllers, BACKUP, portal).map(({ name }) => name), ["nvme3"]);
    assertEquals(controllersOf(controllers, NQN).length, 2);
  });
});

Deno.test("identities are read from the forms that the kernel gives them", () => {
  assertEquals(naaOf("naa.6589CFC000000e41f2a3b4c5d6e7f003"), NAA);
  assertEquals(naaOf("t10.ATA     QEMU"), undefined);
  assertEquals(naaOf(undefined), undefined);
  assertEquals(serialOf(Uint8Array.of(0, 0x80, 0, 4, 0x61, 0x62, 0x20, 0)), "ab");
  assertEquals(serialOf(Uint8Array.of(0, 0x83, 0, 1, 0x61)), undefined);
});

Deno.test("a missing LUN is explained by what is there instead", async () => {
  await withNode("iscsi-2portal", async ({ host }) => {
    const { scsi } = await scanBlockDevices(host.files);
    const told = diagnoseMissingLun(scsi, { iqn: IQN, lun: 5, naa: "0".repeat(32) });
    assertStringIncludes(told, "session1 to 10.99.1.1:3260 is LOGGED_IN");
    assertStringIncludes(told, `with naa ${NAA}`);
    assertStringIncludes(diagnoseMissingLun(scsi, { iqn: "iqn.x:y", lun: 5 }), "no session");
  });
});
