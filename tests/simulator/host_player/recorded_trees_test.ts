/** The simulated node's trees against those recorded from real kernels in the same situation. */

import { assert, assertEquals } from "@std/assert";
import { lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { untar } from "../../support/tar.ts";
import { iscsi, lun, namespace, nvme, PORTALS, until, withNode } from "./support.ts";
import type { TestNode } from "./support.ts";

const GIB = 1 << 30;
const [FIRST, SECOND] = PORTALS;

/** Statistics, power, events, error counters, other drivers' children: no client looks for a disk there. */
const UNREAD = new Set(
  ("alignment_offset capability discard_alignment events events_async events_poll_msecs ext_range " +
    "inflight partscan passthru_err_log_enabled range stat hwmon0 hwmon1 bsg blacklist cdl_enable " +
    "cdl_supported device_busy dh_state eh_timeout evt_capacity_change_reported " +
    "evt_inquiry_change_reported evt_lun_change_reported evt_media_change " +
    "evt_mode_parameter_change_reported evt_soft_threshold_reached inquiry iocounterbits iodone_cnt " +
    "ioerr_cnt iorequest_cnt iotmo_cnt modalias preferred_path access_state queue_ramp_up_period " +
    "queue_type vpd_pgb0 vpd_pgb1 vpd_pgb2 cmd_per_lun eh_deadline host_busy nr_hw_queues " +
    "prot_capabilities prot_guard_type sg_prot_tablesize sg_tablesize supported_mode use_blk_mq " +
    "data_digest exp_statsn header_digest local_port max_recv_dlength max_xmit_dlength ping_tmo " +
    "recv_tmo abort_tmo creator data_pdu_in_order data_seq_in_order erl fast_abort first_burst_len " +
    "immediate_data initial_r2t lu_reset_tmo max_burst_len max_outstanding_r2t tgt_reset_tmo")
    .split(" "),
);
/** Files that can only be written, so that no recording has them. */
const CONTROLS = [
  "delete",
  "delete_controller",
  "rescan",
  "rescan_controller",
  "reset_controller",
  "scan",
];
/** Their values count something up, or differ between targets; only their form is compared. */
const VARYING = new Set([
  "dev",
  "diskseq",
  "uevent",
  "recovery_tmo",
  "vpd_pg0",
  "vpd_pg80",
  "vpd_pg83",
]);

/** Runs `use` with an unpacked recording. */
async function withRecording(name: string, use: (root: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "tnblock-recording-"));
  try {
    untar(new URL(`../../fixtures/sysfs/${name}.tar.gz`, import.meta.url), folder);
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a directory holds, as name and form; numbers in names and in varying values become `#`. */
function formOf(directory: string): Record<string, string> {
  const form: Record<string, string> = {};
  for (const name of readdirSync(directory).sort()) {
    if (UNREAD.has(name)) continue;
    const path = join(directory, name);
    const status = lstatSync(path);
    const entry = status.isSymbolicLink()
      ? `-> ${anonymous(readlinkSync(path))}`
      : status.isDirectory()
      ? "directory"
      : valueForm(name, readFileSync(path, "latin1"));
    form[anonymous(name)] = entry;
  }
  return form;
}

function valueForm(name: string, value: string): string {
  if (name.startsWith("vpd_")) return `page ${value.charCodeAt(1)}`;
  return VARYING.has(name) ? anonymous(value) : value;
}

function anonymous(text: string): string {
  return text.replace(/\bsd[a-z]+\b/g, "sd#").replace(/\d+/g, "#");
}

/** Asserts that the simulated directory has all that the recorded one has, in the same form. */
function assertLikeRecorded(recorded: string, simulated: string, what: string): void {
  const actual = formOf(simulated);
  for (const control of CONTROLS) delete actual[control];
  assertEquals(actual, formOf(recorded), what);
}

/** Asserts that what the simulated directory has is as recorded. */
function assertPartLikeRecorded(recorded: string, simulated: string): void {
  const [expected, actual] = [formOf(recorded), formOf(simulated)];
  const names = Object.keys(actual);
  assertEquals(actual, Object.fromEntries(names.map((name) => [name, expected[name] ?? "absent"])));
}

/** Finds, in a class directory, the entry for which `file` has this value. */
function entryWith(root: string, parent: string, file: string, value: string): string {
  const directory = join(root, parent);
  const found = readdirSync(directory).find((name) => {
    try {
      return readFileSync(join(directory, name, file), "utf8") === value;
    } catch {
      return false;
    }
  });
  assert(found !== undefined, `no ${parent} with ${file} ${value.trim()}`);
  return join(directory, found);
}

/** The disk with this wwid (in `file`) whose name matches. */
function disks(root: string, pattern: RegExp): string[] {
  return readdirSync(join(root, "sys/block")).filter((name) => pattern.test(name))
    .map((name) => join(root, "sys/block", name));
}

const RECORDED_NAMESPACES = [
  namespace(1, {
    uuid: "3f2b7c1e-8d4a-4c6f-9b21-5e0d7a6c1f01",
    nguid: "5d1c0f8a-4b27-4e19-8f63-a0b1c2d3e401",
    size: GIB,
  }),
  namespace(2, {
    uuid: "9a64d0f2-17b3-4e58-8c0d-b1f2a3c4d502",
    nguid: "6e2d1a9b-5c38-4f2a-9074-b1c2d3e4f502",
    size: 2 * GIB,
  }),
  namespace(7, {
    uuid: "c0de5a1b-62e7-4f90-a3d4-7788990a1b03",
    nguid: "7f3e2bac6d49403ba185c2d3e4f50603",
    size: 3 * GIB,
  }),
];

async function connectBoth(node: TestNode): Promise<void> {
  await node.player.apply(nvme(RECORDED_NAMESPACES));
  await node.connectTo(FIRST);
  await node.connectTo(SECOND);
  for (const { uuid } of RECORDED_NAMESPACES) await node.link(`nvme-uuid.${uuid}`);
}

function compareNvme(root: string, node: TestNode, patterns: readonly RegExp[]): void {
  for (const name of ["nvme0", "nvme1"]) {
    const path = `sys/class/nvme/${name}`;
    assertLikeRecorded(join(root, path), node.at(path), path);
  }
  const subsystem = "sys/class/nvme-subsystem/nvme-subsys0";
  assertLikeRecorded(join(root, subsystem), node.at(subsystem), subsystem);
  for (const pattern of patterns) {
    for (const recorded of disks(root, pattern)) {
      const wwid = readFileSync(join(recorded, "wwid"), "utf8");
      const simulated = disks(node.at("/"), pattern)
        .find((path) => readFileSync(join(path, "wwid"), "utf8") === wwid);
      assert(simulated !== undefined, `no disk like ${recorded}`);
      assertLikeRecorded(recorded, simulated, recorded);
      assertPartLikeRecorded(join(recorded, "queue"), join(simulated, "queue"));
    }
    assertEquals(disks(node.at("/"), pattern).length, disks(root, pattern).length);
  }
}

/** All links of a folder of `/dev/disk`, without those of the recorder's own disks. */
function linkForms(root: string, folder: string): string[] {
  return readdirSync(join(root, "dev/disk", folder))
    .filter((name) => !/virtio|pci-/.test(name))
    .map((name) => `${name} ${anonymous(readlinkSync(join(root, "dev/disk", folder, name)))}`)
    .sort();
}

Deno.test("two NVMe portals look as recorded from a real kernel", () =>
  withRecording("nvme-multipath-2portal", (root) =>
    withNode(async (node) => {
      await connectBoth(node);
      compareNvme(root, node, [/^nvme0n/, /^nvme0c0n/, /^nvme0c1n/]);
      assertEquals(linkForms(node.at("/"), "by-id"), linkForms(root, "by-id"));
    })));

Deno.test("a lost NVMe portal looks as recorded from a real kernel", () =>
  withRecording("nvme-multipath-one-path-down", (root) =>
    withNode(async (node) => {
      await connectBoth(node);
      await node.player.setPortalUp(SECOND, 4420, false);
      compareNvme(root, node, [/^nvme0n/, /^nvme0c1n/]);
    })));

Deno.test("NVMe without native multipath looks as recorded from a real kernel", () =>
  withRecording("nvme-multipath-off-2portal", (root) =>
    withNode(async (node) => {
      await connectBoth(node);
      compareNvme(root, node, [/^nvme0n/, /^nvme1n/]);
    }, { multipath: false })));

const RECORDED_LUNS = [
  lun(0, { naa: "6589cfc0000007d3e1f9a2b4c5d60001", size: GIB }),
  lun(1, { naa: "6589cfc0000000c9b8a7f6e5d4c3b002", size: 2 * GIB }),
  lun(5, { naa: "6589cfc000000e41f2a3b4c5d6e7f003", size: 3 * GIB }),
];

async function loginBoth(node: TestNode): Promise<void> {
  await node.player.apply(iscsi(RECORDED_LUNS));
  // The recording's session 1 is that of the second portal.
  for (const address of [SECOND, FIRST]) {
    await node.iscsiadm(address, "new");
    await node.iscsiadm(address, "--login");
  }
}

const SCSI_DEVICE = "sys/devices/platform/host0/session1/target0:0:0/0:0:0:5";

/** Every directory of one session with one of its disks; the disk's letters differ from run to run. */
function compareIscsi(root: string, node: TestNode): void {
  const device = (base: string) => {
    const block = readdirSync(join(base, SCSI_DEVICE, "block"))[0] ?? "";
    return ["", "scsi_device/0:0:0:5", "scsi_disk/0:0:0:5", `block/${block}`].map((path) =>
      join(base, SCSI_DEVICE, path)
    );
  };
  const recorded = device(root);
  device(node.at("/")).forEach((path, index) => {
    const like = recorded[index] ?? "";
    // scsi_disk has many tunables; those that are there must look alike.
    if (path.includes("scsi_disk")) assertPartLikeRecorded(like, path);
    else assertLikeRecorded(like, path, like);
  });
}

/** What does not depend on the recorder's own identity. */
function withoutIdentity(form: Record<string, string>): Record<string, string> {
  const { initiatorname: _initiator, ...rest } = form;
  return rest;
}

Deno.test("two iSCSI portals look as recorded from a real kernel", () =>
  withRecording("iscsi-2portal", (root) =>
    withNode(async (node) => {
      await loginBoth(node);
      for (const { naa } of RECORDED_LUNS) await node.link(`wwn-0x${naa}`);
      await until("all by-path links", () => node.list("/dev/disk/by-path").length === 6);
      compareIscsi(root, node);
      const session = "sys/class/iscsi_session/session1";
      assertEquals(
        withoutIdentity(formOf(node.at(session))),
        withoutIdentity(formOf(join(root, session))),
      );
      for (
        const path of [
          "sys/class/iscsi_connection/connection1:0",
          "sys/class/iscsi_host/host0",
          "sys/class/scsi_host/host0",
          "sys/devices/platform/host0/session1",
          "sys/devices/platform/host0",
        ]
      ) assertLikeRecorded(join(root, path), node.at(path), path);
      assertEquals(linkForms(node.at("/"), "by-id"), linkForms(root, "by-id"));
      assertEquals(linkForms(node.at("/"), "by-path"), linkForms(root, "by-path"));
    }, { multipathd: false })));

Deno.test("maps over two iSCSI portals look as recorded from a real kernel", () =>
  withRecording("iscsi-2portal-multipathd", (root) =>
    withNode(async (node) => {
      await loginBoth(node);
      for (const { naa } of RECORDED_LUNS) await node.link(`dm-uuid-mpath-3${naa}`);
      await until("all paths are in maps", () =>
        [0, 1, 2].every((n) => node.list(`/sys/block/dm-${n}/slaves`).length === 2));
      compareIscsi(root, node);
      for (const { naa } of RECORDED_LUNS) {
        const [recorded, simulated] = [root, node.at("/")].map((base) =>
          entryWith(base, "sys/block", "dm/uuid", `mpath-3${naa}\n`)
        );
        assertLikeRecorded(recorded ?? "", simulated ?? "", naa);
        for (const part of ["dm", "slaves"]) {
          assertLikeRecorded(join(recorded ?? "", part), join(simulated ?? "", part), naa);
        }
      }
      assertEquals(linkForms(node.at("/"), "by-id"), linkForms(root, "by-id"));
    })));
