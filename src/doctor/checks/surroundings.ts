/** Checks of what else on the node has to do with the disks: pvestatd, LVM, multipathd. */
import { formatPortal } from "../../common/portal.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { guide } from "../guide.ts";
import { rejectedByLvm } from "../lvm_filter.ts";
import { multipathFaults } from "../multipath_config.ts";
import type { NodeContext } from "../node_context.ts";
import type { StorageContext } from "../storage_context.ts";

/** Seconds after which what pvestatd told is old: it tells every 10 s. */
const STALE_S = 120;

const pveStatus = check({
  id: "pve-status",
  title: "Proxmox VE sees the storage as active",
  needs: "storage",
  run: async (storage) => {
    const { node, id } = storage;
    const [answer, pvestatd, state] = await Promise.all([
      node.daemon(),
      node.unit("pvestatd.service"),
      storage.state(),
    ]);
    if (answer.kind !== "answered") throw new Skipped("without a daemon it is not: see daemon");
    if (pvestatd.active !== "active") throw new Skipped("nobody looks: see pve-services");
    if (state?.memory === undefined || state.memory === null || state.memory.trust === "none") {
      throw new Skipped("the daemon knows nothing of the array yet");
    }
    if (state.memory.error !== null) throw new Skipped("the daemon cannot read the array");
    const text = await node.host.files.readText("/etc/pve/.rrd");
    if (text === undefined || !text.includes("pve")) throw new Skipped("there is no /etc/pve/.rrd");
    const time = toldOf(text, node.host.nodeName, id);
    if (time !== undefined && node.host.now() / 1000 - time < STALE_S) return [];
    return [{
      severity: "error",
      text: time === undefined
        ? `Proxmox VE does not see "${id}" as active on this node, though the daemon can answer for it`
        : `Proxmox VE has not seen "${id}" as active on this node for ${
          Math.round(node.host.now() / 1000 - time)
        } s`,
      guide: guide(
        storage.again("pve-status"),
        `See what Proxmox VE says itself: pvesm status --storage ${id}`,
        "Read what pvestatd complains of, this storage or another one that holds it up: journalctl -u pvestatd -e",
        "See that it runs with the plugin of today: pvesm apiinfo",
        "Let it load the plugin anew: systemctl reload-or-try-restart pvestatd pvedaemon",
      ),
    }];
  },
});

/**
 * When pvestatd last saw a storage active, in epoch seconds: it tells of no other (`update_storage_status`,
 * pve-manager, pvestatd.pm).
 *
 * ```text
 * pve2-storage/pve1/san:1763769600:109951162777600:1073741824
 * pve-storage-9.0/pve1/san:1763769600:109951162777600:1073741824
 * ```
 */
export function toldOf(text: string, node: string, storage: string): number | undefined {
  const times = text.replaceAll("\0", "").split("\n").flatMap((line) => {
    const [key = "", time = ""] = line.split(":");
    const isIt = /^pve(?:2-storage|-storage-[0-9.]+)\//.test(key) &&
      key.endsWith(`/${node}/${storage}`);
    return isIt && /^[0-9]+$/.test(time) ? [Number(time)] : [];
  });
  return times.length === 0 ? undefined : Math.max(...times);
}

const lvmFilter = check({
  id: "lvm-filter",
  title: "LVM of the node leaves the disks of guests alone",
  needs: "storage",
  run: async (storage) => {
    const { node } = storage;
    const text = await node.lvmConfig();
    // Without LVM nobody scans.
    if (text === undefined) return [];
    const [devices, list] = await Promise.all([
      devicesOf(storage),
      node.host.files.status("/etc/lvm/devices/system.devices"),
    ]);
    const open = devices.find(({ names }) => !rejectedByLvm(text, names, list !== undefined));
    if (open === undefined) return [];
    return [{
      severity: "error",
      text:
        `LVM of this node scans the disks of "${storage.id}" (${open.what}): it may activate volume groups of guests`,
      guide: guide(
        storage.again("lvm-filter"),
        "See the filter: lvmconfig --typeconfig full devices/global_filter",
        "See whether it has taken a guest's volume group already: vgs -o vg_name,pv_name; let go of one that is a guest's, and of no other: vgchange -an NAME",
        "Let tnblock add its part of the filter, beside what stands there: tnblock install",
        "See that guests' disks are gone from what LVM sees: pvs -a",
      ),
    }];
  },
});

/** A disk by all its names. */
interface DeviceNames {
  readonly what: string;
  readonly names: readonly string[];
}

/** The disks of a storage that are here, with udev's names; else what one would be called. */
async function devicesOf(storage: StorageContext): Promise<DeviceNames[]> {
  const { node } = storage;
  const scan = await node.scan();
  const { transport } = storage.settings;
  const nodes = transport.kind === "nvme-tcp"
    ? scan.nvme.disks.filter(({ subsystem, kind }) =>
      subsystem === transport.subsystemNqn && kind !== "path"
    )
    : [
      ...scan.scsi.maps.filter(({ slaves }) =>
        scan.scsi.disks.some(({ name, targetIqn }) =>
          targetIqn === transport.targetIqn && slaves.includes(name)
        )
      ),
      ...scan.scsi.disks.filter(({ targetIqn }) => targetIqn === transport.targetIqn),
    ];
  const named = await Promise.all(
    nodes.slice(0, 16).flatMap((disk) =>
      disk.node === undefined ? [] : [namesOf(node, disk.node, disk.device)]
    ),
  );
  if (named.length > 0) return named;
  const naa = "6589cfc0000000000000000000000000";
  return transport.kind === "nvme-tcp"
    ? [{
      what: "an NVMe disk",
      names: [
        "/dev/nvme9n1",
        "/dev/disk/by-id/nvme-uuid.00000000-0000-4000-8000-000000000000",
        // The model that TrueNAS gives its subsystems, and the serial number (udev's 60-persistent-storage.rules).
        "/dev/disk/by-id/nvme-TrueNAS_00000000000000000000_1",
      ],
    }]
    : [{
      what: "an iSCSI disk",
      names: ["/dev/sdz", `/dev/disk/by-id/wwn-0x${naa}`, `/dev/disk/by-id/scsi-3${naa}`],
    }, {
      what: "a multipath map",
      names: [`/dev/mapper/3${naa}`, "/dev/dm-99", `/dev/disk/by-id/dm-uuid-mpath-3${naa}`],
    }];
}

/** udev's record of a device has its links in lines such as `S:disk/by-id/nvme-uuid.3f2b...`. */
async function namesOf(
  { host }: NodeContext,
  path: string,
  device: string | undefined,
): Promise<DeviceNames> {
  const record = device === undefined
    ? undefined
    : await host.files.readText(`/run/udev/data/b${device}`).catch(() => undefined);
  const links = [...(record ?? "").matchAll(/^S:(.+)$/gm)].map(([, link]) => `/dev/${link}`);
  return { what: path, names: [path, ...links] };
}

const multipath = check({
  id: "multipath",
  title: "multipathd runs, takes the array's disks, and lets them wait while no path is there",
  needs: "storage",
  run: async (storage) => {
    const { node, settings } = storage;
    const { transport } = settings;
    if (transport.kind !== "iscsi") return [];
    const steps = (
      second: string,
      third: string,
      fourth = "See that it takes the array's disks: multipath -ll",
    ) =>
      guide(
        storage.again("multipath"),
        "See how multipathd is, and what it does with the array's disks: systemctl status multipathd; multipath -ll",
        second,
        third,
        fourth,
      );
    if (!transport.useMultipath) {
      const { portals } = transport;
      if (portals.length < 2) return [];
      return [{
        severity: "warning",
        text: `"${storage.id}" has ${portals.length} portals (${
          portals.map(formatPortal).join(", ")
        }) and no multipath: a disk has one path, and waits when that is lost`,
        guide: steps(
          "Install it: apt install multipath-tools",
          `Switch it on for the storage: pvesm set ${storage.id} --tnb-use-multipath 1; each disk takes it at its next start`,
        ),
      }];
    }
    const [program, unit, config] = await Promise.all([
      node.host.files.status("/usr/sbin/multipathd"),
      node.unit("multipathd.service"),
      node.multipathConfig(),
    ]);
    if (program === undefined || (unit.active !== "" && unit.active !== "active")) {
      return [{
        severity: "error",
        text: program === undefined
          ? `"${storage.id}" uses multipath, and multipath-tools is not installed`
          : `"${storage.id}" uses multipath, and multipathd does not run`,
        guide: steps(
          "Install it: apt install multipath-tools",
          "Start it, now and with the node: systemctl enable --now multipathd",
        ),
      }];
    }
    if (config === undefined) throw new Skipped("multipathd does not tell its configuration");
    return multipathFaults(config).map((text): Problem => ({
      severity: "error",
      text,
      guide: steps(
        "See what is in force: multipathd show config | less; and where it comes from: ls /etc/multipath.conf /etc/multipath/conf.d",
        "Let tnblock add its settings for TrueNAS, and take away what stands against them: tnblock install",
        "Let multipathd read it, which disturbs no guest: multipathd reconfigure",
      ),
    }));
  },
});

/** All of them. */
export const SURROUNDINGS_CHECKS = [pveStatus, lvmFilter, multipath] as const;
