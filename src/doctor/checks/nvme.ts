/** Checks of the kernel's NVMe: module, identity, multipath, time-outs, sizes. */
import { mapBounded, numberAttribute } from "../../host/scan/attributes.ts";
import { check } from "../check.ts";
import { guide } from "../guide.ts";

const NQN = /^nqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[^\s,]+$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const nvmeModule = check({
  id: "nvme-module",
  title: "the kernel can connect NVMe over TCP",
  needs: "storage",
  run: async (storage) => {
    const { transport } = storage.settings;
    if (transport.kind !== "nvme-tcp") return [];
    const options = await storage.node.host.fabricsOptions();
    const steps = (fourth: string) =>
      guide(
        storage.again("nvme-module"),
        "Load the module: modprobe nvme-tcp",
        "Read what the kernel says of it: dmesg | grep -i nvme | tail",
        "See what it offers: cat /dev/nvme-fabrics",
        fourth,
      );
    if (options === undefined) {
      return [{
        severity: "error",
        text: "there is no /dev/nvme-fabrics: the kernel's module nvme-tcp is not loaded",
        guide: steps(
          "Let it be loaded with the node: echo nvme-tcp > /etc/modules-load.d/tnblock.conf",
        ),
      }];
    }
    if (transport.dhchapSecret === undefined || options.includes("dhchap_secret=")) return [];
    return [{
      severity: "error",
      text: "the kernel knows no DH-HMAC-CHAP, and the storage has such a secret",
      guide: steps("Update to a kernel that has it (CONFIG_NVME_HOST_AUTH): apt full-upgrade"),
    }];
  },
});

const nvmeIdentity = check({
  id: "nvme-identity",
  title: "the node has a host NQN and a host id, and its connections use them",
  needs: "storage",
  run: async (storage) => {
    const { transport } = storage.settings;
    if (transport.kind !== "nvme-tcp") return [];
    const { node } = storage;
    const [{ hostNqn, hostId }, { nvme }] = await Promise.all([node.identity(), node.scan()]);
    const wanted = transport.hostNqn ?? hostNqn;
    const live = nvme.controllers.filter((one) => one.subsystem === transport.subsystemNqn);
    const other = live.find((one) => one.hostNqn !== undefined && one.hostNqn !== wanted);
    const text = hostNqn === undefined
      ? "/etc/nvme/hostnqn is not there or empty"
      : !NQN.test(hostNqn)
      ? `/etc/nvme/hostnqn holds no NQN but "${hostNqn.slice(0, 80)}"`
      : hostId === undefined || !UUID.test(hostId)
      ? "/etc/nvme/hostid holds no UUID"
      : other !== undefined
      ? `${other.name} is connected as "${other.hostNqn}", and the node is "${wanted}"`
      : undefined;
    if (text === undefined) return [];
    return [{
      severity: "error",
      text,
      guide: guide(
        storage.again("nvme-identity"),
        "See what the node says: cat /etc/nvme/hostnqn /etc/nvme/hostid",
        "See what its connections say: grep . /sys/class/nvme/nvme*/hostnqn",
        "Make a pair of your own where it is missing or damaged: U=$(cat /proc/sys/kernel/random/uuid); echo $U > /etc/nvme/hostid; echo nqn.2014-08.org.nvmexpress:uuid:$U > /etc/nvme/hostnqn",
        `Allow the new NQN at the subsystem ${transport.subsystemNqn} in TrueNAS, then move the guests away and boot the node`,
      ),
    }];
  },
});

const nvmeMultipath = check({
  id: "nvme-multipath",
  title: "native NVMe multipath is on",
  needs: "storage",
  run: async (storage) => {
    if (storage.settings.transport.kind !== "nvme-tcp") return [];
    const { nvme } = await storage.node.scan();
    if (nvme.multipath !== false) return [];
    return [{
      severity: "error",
      text: "native NVMe multipath is off (nvme_core.multipath=N): each path is a disk of its own",
      guide: guide(
        storage.again("nvme-multipath"),
        "See where it is switched off: grep -rs nvme_core /etc/modprobe.d /etc/kernel/cmdline /etc/default/grub /proc/cmdline",
        "Take that setting away, or say nvme_core.multipath=Y instead",
        "Write the boot files anew: update-initramfs -u -k all; proxmox-boot-tool refresh, or update-grub",
        "Move the guests to other nodes, then boot this one",
      ),
    }];
  },
});

const ctrlLoss = check({
  id: "ctrl-loss",
  title: "live controllers have the time-outs that the storage is configured with",
  needs: "storage",
  run: async (storage) => {
    const { transport } = storage.settings;
    if (transport.kind !== "nvme-tcp") return [];
    const { nvme } = await storage.node.scan();
    const wanted = transport.ctrlLossTmo < 0 ? undefined : transport.ctrlLossTmo;
    // An I/O controller has queues; a discovery one holds no disk.
    const wrong = nvme.controllers.filter((one) =>
      one.subsystem === transport.subsystemNqn && one.state === "live" &&
      one.ctrlLossTmo !== wanted
    );
    if (wrong.length === 0) return [];
    const told = (seconds: number | undefined) =>
      seconds === undefined ? "never gives up" : `gives up after ${seconds} s`;
    const names = wrong.map((one) => `${one.name} ${told(one.ctrlLossTmo)}`).join(", ");
    const value = wanted === undefined ? "-1" : String(wanted);
    return [{
      severity: wanted === undefined ? "error" : "warning",
      text: `${names}: the storage is configured so that it ${told(wanted)}` +
        (wanted === undefined ? ", and guests would see errors after that" : ""),
      guide: guide(
        storage.again("ctrl-loss"),
        "See the time-outs: grep . /sys/class/nvme/nvme*/ctrl_loss_tmo",
        "Find out who connected it, e.g. nvme-cli's service: systemctl status nvmf-autoconnect",
        `Set it right at once, which disturbs nobody: ${
          wrong.map(({ name }) => `echo ${value} > /sys/class/nvme/${name}/ctrl_loss_tmo`).join(
            "; ",
          )
        }`,
        "Keep others from connecting this subsystem: take it out of /etc/nvme/discovery.conf and /etc/nvme/config.json",
      ),
    }];
  },
});

/** KiB of the largest single command that TrueNAS's target was not seen to fail on (truenas-proxmox-plugin, issue 96). */
const MOST_IO_KIB = 1024;

const nvmeIoSize = check({
  id: "nvme-io-size",
  title: "single commands to NVMe disks are of a size that the array takes",
  needs: "storage",
  run: async (storage) => {
    const { transport } = storage.settings;
    if (transport.kind !== "nvme-tcp") return [];
    const { files } = storage.node.host;
    const { nvme } = await storage.node.scan();
    const disks = nvme.disks.filter(({ subsystem, kind }) =>
      subsystem === transport.subsystemNqn && kind !== "path"
    );
    const sizes = await mapBounded(disks, async ({ name }) => ({
      name,
      kib: await numberAttribute(files, `/sys/block/${name}/queue/max_sectors_kb`) ?? 0,
    }));
    const large = sizes.filter(({ kib }) => kib > MOST_IO_KIB);
    const [first] = large;
    if (first === undefined) return [];
    const more = large.length > 1 ? ` and ${large.length - 1} more` : "";
    return [{
      severity: "warning",
      text:
        `${first.name}${more} may get commands of ${first.kib} KiB, which TrueNAS was seen to fail on`,
      guide: guide(
        storage.again("nvme-io-size"),
        "See the limits: grep . /sys/block/nvme*/queue/max_sectors_kb",
        "Let tnblock add its rule for new disks: tnblock install",
        `Set those that are here right at once, which disturbs nobody: echo ${MOST_IO_KIB} | tee ${
          large.slice(0, 8).map(({ name }) => `/sys/block/${name}/queue/max_sectors_kb`).join(" ")
        }`,
        "See that the rule is there: ls -l /etc/udev/rules.d/71-tnblock.rules",
      ),
    }];
  },
});

/** All of them. */
export const NVME_CHECKS = [nvmeModule, nvmeIdentity, nvmeMultipath, ctrlLoss, nvmeIoSize] as const;
