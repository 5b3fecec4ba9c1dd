/** Faults of what is installed and configured on the node. */
import type { Plant } from "./planted.ts";

const nvme = { transport: "nvme-tcp", severity: "error" } as const;
const iscsi = { transport: "iscsi", severity: "error" } as const;

const SHIM = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/** See {@link Plant}. */
export const NODE_PLANTS: readonly Plant[] = [
  {
    ...nvme,
    check: "storage-cfg",
    what: "a storage.cfg that is not there",
    plant: (healthy) => healthy.remove("/etc/pve/storage.cfg"),
  },
  {
    ...iscsi,
    check: "storage-cfg",
    what: "a storage that is for other nodes",
    severity: "warning",
    plant: (healthy) => healthy.writeCfg({ nodes: "pve2,pve3" }),
  },
  {
    ...nvme,
    check: "binary",
    what: "a program that is not installed",
    plant: (healthy) => healthy.remove("/usr/local/bin/tnblock"),
  },
  {
    ...nvme,
    check: "binary",
    what: "a program that anybody can change",
    plant: (healthy) => healthy.write("/usr/local/bin/tnblock", "#!/bin/sh\n", 0o777),
  },
  {
    ...nvme,
    check: "shim",
    what: "a plugin of another version",
    plant: (healthy) => healthy.write(SHIM, "package Tnblock; # old\n1;\n"),
  },
  {
    ...nvme,
    check: "shim",
    what: "a plugin that is not there",
    plant: (healthy) => healthy.remove(SHIM),
  },
  {
    ...nvme,
    check: "pve-api",
    what: "a Proxmox VE that is too old",
    plant: (healthy) => healthy.write("/run/pvesm", "APIVER 10\nAPIAGE 1\n"),
  },
  {
    ...nvme,
    check: "pve-api",
    what: "a Proxmox VE that is newer than known",
    severity: "warning",
    plant: (healthy) => healthy.write("/run/pvesm", "APIVER 17\nAPIAGE 8\n"),
  },
  {
    ...nvme,
    check: "pve-api",
    what: "a plugin that Proxmox VE complains about",
    plant: (healthy) =>
      healthy.write("/run/pvesm.err", 'Plugin "TnblockPlugin.pm" is skipped: syntax error\n'),
  },
  {
    ...nvme,
    check: "pve-api",
    what: "a pvesm that does not run",
    plant: (healthy) => healthy.remove("/run/pvesm"),
  },
  {
    ...nvme,
    check: "pve-services",
    what: "a pvedaemon that has failed",
    plant: (healthy) => healthy.unit("pvedaemon.service", "failed", "enabled"),
  },
  {
    ...nvme,
    check: "daemon",
    what: "a daemon that does not run",
    plant: (healthy) => healthy.stopDaemon(),
  },
  {
    ...iscsi,
    check: "daemon",
    what: "a daemon of another version",
    severity: "warning",
    plant: (healthy) => void (healthy.daemonState.daemon!.version = "0.9.0"),
  },
  {
    ...nvme,
    check: "daemon",
    what: "a daemon that does not start with the node",
    severity: "warning",
    plant: (healthy) => healthy.unit("tnblock.service", "active", "disabled"),
  },
  {
    ...nvme,
    check: "daemon",
    what: "a daemon that is late",
    severity: "warning",
    plant: (healthy) => void (healthy.daemonState.daemon!.loopLagSeconds = 3),
  },
  {
    ...nvme,
    check: "socket",
    what: "a socket that others can use",
    plant: async (healthy) => {
      await healthy.stopDaemon();
      await healthy.startDaemon(0o666);
    },
  },
  {
    ...nvme,
    check: "perl-plugin",
    what: "a plugin of another maker that nobody uses",
    severity: "warning",
    plant: (healthy) =>
      healthy.write("/usr/share/perl5/PVE/Storage/Custom/TrueNASPlugin.pm", "1;\n"),
  },
  {
    ...nvme,
    check: "perl-plugin",
    what: "another plugin on the same dataset",
    plant: async (healthy) => {
      const text = await healthy.read("/etc/pve/storage.cfg");
      const section = "truenasplugin: old\n\ttn_dataset tank/pve\n\tcontent images\n";
      await healthy.write("/etc/pve/storage.cfg", `${text}\n${section}`);
    },
  },
  {
    ...nvme,
    check: "journal",
    what: "an operation that was given up",
    plant: (healthy) =>
      void healthy.daemonState.journal.open.push({
        id: "7f3a",
        op: "rename",
        storage: "san",
        zvol: "vm-1-disk-0",
        startedAt: "2026-03-01T11:00:00.000Z",
        failures: 9,
        isGivenUp: true,
        why: "the array says no",
      }),
  },
  {
    ...nvme,
    check: "journal",
    what: "an entry of the journal that cannot be read",
    plant: (healthy) =>
      void healthy.daemonState.journal.unread.push("/var/lib/tnblock/journal/x.json"),
  },
  {
    ...nvme,
    check: "options",
    what: "an option that there is not",
    plant: (healthy) => healthy.writeCfg({ "tnb-datset": "tank/x" }),
  },
  {
    ...iscsi,
    check: "options",
    what: "a value that an option does not take",
    plant: (healthy) => healthy.writeCfg({ "tnb-lock-timeout": "5" }),
  },
  {
    ...nvme,
    check: "secrets",
    what: "a file of secrets that everybody can read",
    plant: (healthy) => Deno.chmod(`${healthy.directory}/etc/pve/priv/storage/san.tnblock`, 0o644),
  },
  {
    ...nvme,
    check: "secrets",
    what: "a file of secrets that is not there",
    plant: (healthy) => healthy.remove("/etc/pve/priv/storage/san.tnblock"),
  },
  {
    ...nvme,
    check: "secrets",
    what: "a file of secrets that is damaged",
    plant: (healthy) => healthy.write("/etc/pve/priv/storage/san.tnblock", '{"tnb-api', 0o600),
  },
  {
    ...nvme,
    check: "shared-target",
    what: "a second storage with the same subsystem",
    plant: async (healthy) => {
      const text = await healthy.read("/etc/pve/storage.cfg");
      const host = healthy.place.simulator.ready.host;
      const nqn = healthy.place.simulator.ready.subsystemNqn;
      const section =
        `tnblock: other\n\tdisable 1\n\ttnb-api-host ${host}\n\ttnb-subsystem-nqn ${nqn}\n`;
      await healthy.write("/etc/pve/storage.cfg", `${text}\n${section}`);
    },
  },
  {
    ...nvme,
    check: "content",
    what: "a storage for backups",
    plant: async (healthy) => {
      const text = await healthy.read("/etc/pve/storage.cfg");
      await healthy.write("/etc/pve/storage.cfg", text.replace("content images", "content none"));
    },
  },
  {
    ...nvme,
    check: "pve-status",
    what: "a storage that pvestatd sees as inactive",
    plant: (healthy) => healthy.tellPve(Date.now() / 1000 - 1000),
  },
  ...[nvme, iscsi].map((on): Plant => ({
    ...on,
    check: "lvm-filter",
    what: "an LVM that scans everything",
    plant: (healthy) => healthy.write("/run/lvm", 'global_filter=["r|/dev/zd.*|"]\n'),
  })),
  {
    ...iscsi,
    check: "multipath",
    what: "a multipathd that does not run",
    plant: (healthy) => healthy.unit("multipathd.service", "inactive", "disabled"),
  },
  {
    ...iscsi,
    check: "multipath",
    what: "two portals without multipath",
    severity: "warning",
    plant: (healthy) => healthy.writeCfg({ "tnb-use-multipath": 0 }),
  },
  {
    ...iscsi,
    check: "multipath",
    what: "a blacklist with the array's disks",
    plant: (healthy) =>
      healthy.write("/run/multipath", 'blacklist {\n\tdevice {\n\t\tvendor ".*"\n\t}\n}\n'),
  },
  {
    ...iscsi,
    check: "multipath",
    what: "a multipathd that lets guests see errors",
    plant: (healthy) => healthy.write("/run/multipath", 'overrides {\n\tno_path_retry "fail"\n}\n'),
  },
];
