/** Faults of the way from the node to its disks. */
import { portal } from "../daemon/state_examples.ts";
import type { Healthy } from "./healthy.ts";
import type { Plant } from "./planted.ts";

const nvme = { transport: "nvme-tcp", severity: "error" } as const;
const iscsi = { transport: "iscsi", severity: "error" } as const;

/** The first file below a folder whose name fits. */
async function find(healthy: Healthy, folder: string, name: RegExp): Promise<string> {
  for await (const entry of Deno.readDir(`${healthy.directory}${folder}`)) {
    const path = `${folder}/${entry.name}`;
    if (name.test(entry.name)) return path;
    if (entry.isDirectory) {
      const below = await find(healthy, path, name).catch(() => undefined);
      if (below !== undefined) return below;
    }
  }
  throw new Error(`nothing like ${name} below ${folder}`);
}

/** Waits until the played kernel has done something. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!await condition()) {
    if (Date.now() > end) throw new Error("the played kernel does nothing");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const isThere = (path: string) => Deno.lstat(path).then(() => true, () => false);

/** See {@link Plant}. */
export const NODE_SIDE_PLANTS: readonly Plant[] = [
  {
    ...nvme,
    check: "nvme-module",
    what: "a kernel without the module",
    plant: (healthy) => healthy.remove("/dev/nvme-fabrics"),
  },
  {
    ...nvme,
    check: "nvme-identity",
    what: "a host NQN that is none",
    plant: (healthy) => healthy.write("/etc/nvme/hostnqn", "pve1\n"),
  },
  {
    ...nvme,
    check: "nvme-identity",
    what: "a host id that is not there",
    plant: (healthy) => healthy.remove("/etc/nvme/hostid"),
  },
  {
    ...nvme,
    check: "nvme-multipath",
    what: "native multipath that is off",
    plant: (healthy) => healthy.write("/sys/module/nvme_core/parameters/multipath", "N\n"),
  },
  {
    ...nvme,
    check: "ctrl-loss",
    what: "a controller that gives up after a while",
    plant: (healthy) => healthy.write("/sys/class/nvme/nvme0/ctrl_loss_tmo", "600\n"),
  },
  {
    ...nvme,
    check: "nvme-io-size",
    what: "a disk that takes commands of any size",
    severity: "warning",
    plant: async (healthy) => {
      const folder = await Deno.realPath(`${healthy.directory}/sys/block/nvme0n1`);
      await Deno.mkdir(`${folder}/queue`, { recursive: true });
      await Deno.writeTextFile(`${folder}/queue/max_sectors_kb`, "4096\n");
    },
  },
  {
    ...iscsi,
    check: "iscsi-initiator",
    what: "an initiator without a name",
    plant: (healthy) => healthy.write("/etc/iscsi/initiatorname.iscsi", "GenerateName=yes\n"),
  },
  {
    ...iscsi,
    check: "iscsi-records",
    what: "a record that logs in at boot",
    severity: "warning",
    plant: async (healthy) => {
      const path = await find(healthy, "/var/lib/iscsi/nodes", /^default$/);
      const text = await healthy.read(path);
      await healthy.write(path, text.replace("node.startup = manual", "node.startup = automatic"));
    },
  },
  {
    ...nvme,
    check: "portal-reach",
    what: "a portal that does not answer",
    severity: "warning",
    plant: async (healthy) => {
      const port = await healthy.administer("nvmet.port.create", {
        addr_trtype: "TCP",
        addr_traddr: "127.0.0.77",
        addr_trsvcid: 4420,
      });
      const link = { port_id: (port as { id: number }).id, subsys_id: 1 };
      await healthy.administer("nvmet.port_subsys.create", link);
      const portals = healthy.place.simulator.ready.portals.nvme;
      await healthy.writeCfg({ "tnb-portals": [...portals, "127.0.0.77:4420"].join(",") });
    },
  },
  {
    ...nvme,
    check: "sessions",
    what: "a portal that answers and is not connected",
    severity: "warning",
    plant: async (healthy) => {
      const folder = `${healthy.directory}/sys/class/nvme/nvme1`;
      await Deno.writeTextFile(`${folder}/delete_controller`, "1");
      await until(async () => !await isThere(folder));
    },
  },
  {
    ...iscsi,
    check: "sessions",
    what: "a target that is connected over no portal",
    plant: async (healthy) => {
      await healthy.place.must("deactivate_volume", { volname: healthy.volname });
      const { targetIqn } = healthy.place.simulator.ready;
      await logOut(healthy, targetIqn);
    },
  },
  {
    ...iscsi,
    check: "paths",
    what: "a disk that lacks a path",
    severity: "warning",
    plant: async (healthy) => {
      const disk = `${healthy.directory}/sys/block/sda`;
      await Deno.writeTextFile(`${disk}/device/delete`, "1");
      await until(async () => !await isThere(disk));
    },
  },
  {
    ...nvme,
    check: "links",
    what: "a link that leads to another disk",
    plant: async (healthy) => {
      const second = await healthy.place.alloc(100);
      await healthy.place.must("activate_volume", { volname: second });
      const names = [healthy.volname, second];
      await healthy.writeGuest(names.map((name, index) => `scsi${index}: san:${name}\n`).join(""));
      const [first, other] = names.map((name) => {
        const uuid = /ns([0-9a-f-]{36})$/.exec(name)?.[1];
        return `${healthy.directory}/dev/disk/by-id/nvme-uuid.${uuid}`;
      });
      const target = await Deno.readLink(other ?? "");
      await Deno.remove(first ?? "");
      await Deno.symlink(target, first ?? "");
    },
  },
  ...[nvme, iscsi].map((on): Plant => ({
    ...on,
    check: "links",
    what: "a link that leads nowhere",
    severity: "warning",
    plant: (healthy) => {
      const name = on === nvme
        ? "nvme-uuid.00000000-0000-4000-8000-000000000000"
        : `dm-uuid-mpath-36589cfc000000${"0".repeat(19)}`;
      return Deno.symlink(
        `../../disk/by-id/${name}`,
        `${healthy.directory}/dev/tnblock/san/vm-200-disk-0`,
      );
    },
  })),
];

/** As `iscsiadm --logout` of an administrator. */
async function logOut(healthy: Healthy, iqn: string): Promise<void> {
  for (const portal of healthy.place.simulator.ready.portals.iscsi) {
    const args = ["-m", "node", "-T", iqn, "-p", `${portal},1`, "--logout"];
    const { status } = await healthy.host.run("/usr/sbin/iscsiadm", args, { deadlineMs: 10_000 });
    if (status !== 0) throw new Error(`iscsiadm ended with ${status}`);
  }
  for (const one of healthy.daemonState.storages[0]?.portals ?? []) {
    Object.assign(one, portal(one.address, { state: "missing", error: "connection refused" }));
  }
}
