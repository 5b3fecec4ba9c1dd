/** The scanner against recorded kernels: equal to what was recorded, and to what the usual tools said at that moment. */
import { readFile } from "node:fs/promises";
import { assert, assertEquals } from "@std/assert";
import { scanBlockDevices } from "../../src/host/scan/block_devices.ts";
import type { BlockScan } from "../../src/host/scan/types.ts";
import { withNode } from "../support/node_folder.ts";

const FIXTURES = [
  "nvme-single-path",
  "nvme-multipath-2portal",
  "nvme-multipath-one-path-down",
  "nvme-multipath-off-2portal",
  "nvme-two-subsystems",
  "iscsi-2portal",
  "iscsi-2portal-multipathd",
];

async function text(name: string): Promise<string> {
  return await readFile(new URL(`../fixtures/sysfs/${name}`, import.meta.url), "utf8");
}

/** The output of the recorded command that begins so. */
function said(transcript: string, command: string): string {
  const part = transcript.split(/^(?=\$ )/m).find((each) => each.startsWith(`$ ${command}`));
  assert(part !== undefined, `no "${command}" in the transcript`);
  return part.slice(part.indexOf("\n") + 1);
}

const scans = new Map<string, Promise<BlockScan>>();

/** Each fixture is unpacked and scanned once, whichever test asks first. */
function scanned(fixture: string): Promise<BlockScan> {
  const scan = scans.get(fixture) ??
    withNode(fixture, ({ host }) => scanBlockDevices(host.files));
  scans.set(fixture, scan);
  return scan;
}

for (const fixture of FIXTURES) {
  Deno.test(`${fixture} is read as recorded`, async () => {
    const expected = JSON.parse(await text(`${fixture}.expected.json`));
    assertEquals(JSON.parse(JSON.stringify(await scanned(fixture))), expected);
  });
}

for (const fixture of FIXTURES.filter((name) => name.startsWith("nvme"))) {
  Deno.test(`${fixture} shows the disks that nvme list and lsblk showed`, async () => {
    const [scan, transcript] = [await scanned(fixture), await text(`${fixture}.txt`)];
    const listed = JSON.parse(said(transcript, "nvme list -o json")).Devices as {
      NameSpace: number;
      DevicePath: string;
      PhysicalSize: number;
      SectorSize: number;
    }[];
    const rows = new Map(
      said(transcript, "lsblk").split("\n").map((line) => line.trim().split(/\s+/))
        .map((row) => [row[1], row] as const),
    );
    const visible = scan.nvme.disks.filter((disk) => disk.kind !== "path");
    assertEquals(
      visible.map((disk) => ({
        NameSpace: disk.nsid,
        DevicePath: disk.node,
        PhysicalSize: disk.sizeBytes,
        SectorSize: disk.logicalBlockSize,
        device: rows.get(disk.name)?.[3],
        wwn: rows.get(disk.name)?.[4],
      })),
      listed.map(({ NameSpace, DevicePath, PhysicalSize, SectorSize }) => {
        const disk = visible.find((each) => each.node === DevicePath);
        return {
          NameSpace,
          DevicePath,
          PhysicalSize,
          SectorSize,
          device: disk?.device,
          wwn: `uuid.${disk?.uuid}`,
        };
      }),
    );
  });

  Deno.test(`${fixture} shows the controllers that nvme list-subsys showed`, async () => {
    const [scan, transcript] = [await scanned(fixture), await text(`${fixture}.txt`)];
    const hosts = JSON.parse(said(transcript, "nvme list-subsys -o json")) as {
      HostNQN: string;
      HostID: string;
      Subsystems: {
        NQN: string;
        Paths: { Name: string; Transport: string; Address: string; State: string }[];
      }[];
    }[];
    const listed = hosts.flatMap((host) =>
      host.Subsystems.flatMap((subsystem) =>
        subsystem.Paths.map((path) => ({
          name: path.Name,
          subsystem: subsystem.NQN,
          transport: path.Transport,
          state: path.State,
          address: path.Address,
          hostNqn: host.HostNQN,
          hostId: host.HostID,
        }))
      )
    ).sort((a, b) => a.name.localeCompare(b.name));
    assertEquals(
      scan.nvme.controllers.map((controller) => ({
        name: controller.name,
        subsystem: controller.subsystem,
        transport: controller.transport,
        state: controller.state,
        address: `traddr=${controller.portal?.address},trsvcid=${controller.portal?.port}` +
          (controller.sourceAddress === undefined ? "" : `,src_addr=${controller.sourceAddress}`),
        hostNqn: controller.hostNqn,
        hostId: controller.hostId,
      })),
      listed,
    );
  });
}

for (const fixture of FIXTURES.filter((name) => name.startsWith("iscsi"))) {
  Deno.test(`${fixture} shows the disks that lsblk showed`, async () => {
    const [scan, transcript] = [await scanned(fixture), await text(`${fixture}.txt`)];
    const rows = said(transcript, "lsblk").split("\n")
      .filter((line) => line.includes(" iscsi "))
      .map((line) => line.trim().split(/\s+/));
    assertEquals(
      scan.scsi.disks.map((disk) => [
        disk.name,
        `${disk.sizeBytes / 2 ** 30}G`,
        disk.device,
        `0x${disk.naa}`,
        disk.serial,
        disk.hctl,
      ]),
      // NAME KNAME SIZE MAJ:MIN WWN SERIAL VENDOR MODEL(2 words) TRAN HCTL LOG-SEC
      rows.map((row) => [row[1], row[2], row[3], row[4], row[5], row[10]]),
    );
  });

  Deno.test(`${fixture} shows the sessions that iscsiadm showed`, async () => {
    const [scan, transcript] = [await scanned(fixture), await text(`${fixture}.txt`)];
    const printed = said(transcript, "iscsiadm -m session -P 3");
    const iqn = /^Target: (\S+)/m.exec(printed)?.[1];
    const listed = printed.split("\tCurrent Portal: ").slice(1).map((part) => ({
      targetIqn: iqn,
      portal: `${/Persistent Portal: (\S+),1/.exec(part)?.[1]}`,
      name: `session${/SID: (\d+)/.exec(part)?.[1]}`,
      state: /iSCSI Session State: (\S+)/.exec(part)?.[1],
      recoveryTmo: Number(/Recovery Timeout: (\d+)/.exec(part)?.[1]),
      host: Number(/Host Number: (\d+)/.exec(part)?.[1]),
      disks: [...part.matchAll(/Lun: (\d+)\n\s*Attached scsi disk (\S+)\s+State: (\S+)/g)].map(
        ([, lun, name, state]) => `${name} ${lun} ${state}`,
      ),
    }));
    assertEquals(
      scan.scsi.sessions.map((session) => ({
        targetIqn: session.targetIqn,
        portal: `${session.portal?.address}:${session.portal?.port}`,
        name: session.name,
        state: session.state,
        recoveryTmo: session.recoveryTmo,
        host: session.host,
        disks: scan.scsi.disks.filter((disk) => disk.session === session.name)
          .map((disk) => `${disk.name} ${disk.lun} ${disk.state}`),
      })) as unknown,
      listed,
    );
  });
}

Deno.test("iscsi-2portal-multipathd shows the maps that multipath -ll showed", async () => {
  const scan = await scanned("iscsi-2portal-multipathd");
  const printed = said(await text("iscsi-2portal-multipathd.txt"), "multipath -ll");
  const listed = printed.trim().split(/^(?=3)/m).map((part) => ({
    wwid: part.split(" ")[0],
    name: part.split(" ")[1],
    slaves: [...part.matchAll(/- \d+:\d+:\d+:\d+ (\S+)/g)].map((match) => match[1]),
    size: /size=(\S+)/.exec(part)?.[1],
  })).sort((a, b) => `${a.name}`.localeCompare(`${b.name}`));
  assertEquals(
    scan.scsi.maps.map((map) => ({
      wwid: map.wwid,
      name: map.name,
      slaves: [...map.slaves],
      size: `${(map.sizeBytes / 2 ** 30).toFixed(1)}G`,
    })) as unknown,
    listed,
  );
});
