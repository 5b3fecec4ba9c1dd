/**
 * Makes a folder look like a freshly installed Proxmox node that has just booted: the identity
 * files that packages make, an empty `/sys` and `/dev`, and the programs that the player answers for.
 */

import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { TnblockError } from "../../common/error.ts";
import { ISCSID_CONF } from "./iscsi_records.ts";
import { FABRICS_OPTIONS } from "./nvme_connect.ts";
import { MAILBOX, PROGRAM } from "./scripts.ts";

/** Says that a folder is a simulated node, so that its `/sys` and `/dev` may be wiped. */
const MARKER = ".array/simulated-node";

/** What a boot makes anew. */
const VOLATILE = ["sys", "dev", "run/udev", "run/simulator", ".array"];

const DIRECTORIES = [
  ".array",
  "proc",
  "sys/block",
  "sys/dev/block",
  ...[
    "nvme",
    "nvme-fabrics",
    "nvme-generic",
    "nvme-subsystem",
    "block",
    "iscsi_session",
    "iscsi_connection",
    "iscsi_host",
    "scsi_host",
    "scsi_device",
    "scsi_disk",
    "scsi_generic",
  ].map((name) => `sys/class/${name}`),
  "sys/devices/platform",
  "sys/devices/virtual/block",
  "sys/devices/virtual/nvme-fabrics/ctl",
  "sys/devices/virtual/nvme-subsystem",
  "sys/module/nvme_core/parameters",
  "dev/block",
  "dev/mapper",
  "dev/disk/by-id",
  "dev/disk/by-path",
  "dev/disk/by-diskseq",
  "run/udev/data",
  "var/lib/iscsi/nodes",
  "etc/pve/priv/storage",
  MAILBOX.slice(1),
];

/** What a node is made with. */
export interface NodeSetup {
  /** The UUID in `/etc/pve/priv/tnblock/cluster-id`. */
  readonly clusterId: string;
  /** Native NVMe multipath. */
  readonly multipath: boolean;
  /** Whether multipath-tools are installed and running. */
  readonly multipathd: boolean;
}

/**
 * Prepares `root`. A simulated node of an earlier run is booted anew and keeps its `/etc` and `/var`.
 * `TnblockError` `invalid` when the folder has a `/sys` or `/dev` that is not a simulated node's.
 */
export function setUpNode(root: string, setup: NodeSetup): void {
  if (!existsSync(join(root, MARKER))) {
    const foreign = VOLATILE.find((name) => existsSync(join(root, name)));
    if (foreign !== undefined) {
      throw new TnblockError(
        "invalid",
        `Cannot play a node in "${root}": there is a "${foreign}" that no simulator made`,
        { hint: "Name an empty folder" },
      );
    }
  }
  for (const name of VOLATILE) rmSync(join(root, name), { recursive: true, force: true });
  for (const name of DIRECTORIES) mkdirSync(join(root, name), { recursive: true });
  writeFileSync(join(root, MARKER), "");

  const hostId = randomUUID();
  const install = (name: string, text: string, mode = 0o644): void => {
    const path = join(root, name);
    if (existsSync(path)) return;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text, { mode });
  };
  install("etc/hostname", "pve1\n");
  install("etc/nvme/hostnqn", `nqn.2014-08.org.nvmexpress:uuid:${hostId}\n`);
  install("etc/nvme/hostid", `${hostId}\n`);
  const initiator = `iqn.1993-08.org.debian:01:${randomBytes(6).toString("hex")}`;
  install("etc/iscsi/initiatorname.iscsi", `InitiatorName=${initiator}\n`, 0o600);
  install("etc/iscsi/iscsid.conf", ISCSID_CONF);
  install("etc/pve/priv/tnblock/cluster-id", `${setup.clusterId}\n`, 0o600);

  install("sys/module/nvme_core/parameters/multipath", setup.multipath ? "Y\n" : "N\n");
  install("sys/module/nvme_core/parameters/iopolicy", "numa\n");
  install("sys/devices/virtual/nvme-fabrics/ctl/uevent", "");
  install("dev/mapper/control", "");
  install("dev/nvme-fabrics", `${FABRICS_OPTIONS}\n`, 0o600);

  const programs = ["blockdev", "iscsiadm", ...setup.multipathd ? ["multipathd"] : []];
  for (const name of ["blockdev", "iscsiadm", "multipathd"]) {
    rmSync(join(root, "usr/sbin", name), { force: true });
  }
  for (const name of programs) install(`usr/sbin/${name}`, PROGRAM, 0o755);
}
