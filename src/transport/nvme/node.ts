/** The node half of NVMe/TCP: controllers to every portal, and the one disk with the right uuid. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import { formatPortal } from "../../common/portal.ts";
import type { NvmeSettings, Portal } from "../../common/storage_settings.ts";
import { NVME_GONE_MS, NVME_RESCAN_AFTER_MS } from "../../common/timing.ts";
import type { Host } from "../../host/host.ts";
import { flushBuffers } from "../../host/flush_buffers.ts";
import { usersOf } from "../../host/in_use.ts";
import { nvmeTarget } from "../../host/links.ts";
import {
  connectPortal,
  type HostIdentity,
  hostIdentity,
  probePortal,
  rescanController,
} from "../../host/nvme_fabrics.ts";
import { scanBlockDevices } from "../../host/scan/block_devices.ts";
import { diagnoseMissingNamespace } from "../../host/scan/diagnose.ts";
import { identify } from "../../host/scan/identify.ts";
import { controllersOf, findNvmeNamespace, scanNvmeControllers } from "../../host/scan/nvme.ts";
import type { NvmeController, NvmeDisk } from "../../host/scan/types.ts";
import { waitUntil } from "../../host/wait_until.ts";
import { awaitLink } from "../await_link.ts";
import { connectAll, DISK_WAIT_MS } from "../connect_all.ts";
import type { AttachedDisk, PortalGlance } from "../transport.ts";
import { fits, type WantedSize, wantedText } from "../wanted_size.ts";

/** What the node half needs. */
export interface NvmeNodeParts {
  readonly settings: NvmeSettings;
  readonly host: Host;
  readonly log: Log;
}

/** The configured portals and the state of their controllers. */
export async function portalsOf(parts: NvmeNodeParts): Promise<PortalGlance[]> {
  const { settings, host } = parts;
  const controllers = await scanNvmeControllers(host.files);
  return settings.portals.map((portal) => {
    const there = controllersOf(controllers, settings.subsystemNqn, portal);
    const isLive = there.some((controller) => controller.state === "live");
    return { portal, state: isLive ? "live" : there.length > 0 ? "recovering" : "missing" };
  });
}

/** Connects one portal. */
export async function connectOne(
  parts: NvmeNodeParts,
  portal: Portal,
  deadline: Deadline,
  identity?: HostIdentity,
): Promise<void> {
  const { settings, host } = parts;
  await connectPortal(host, {
    portal,
    nqn: settings.subsystemNqn,
    ...(identity ?? await identityFor(parts)),
    nrIoQueues: settings.nrIoQueues,
    keepAliveTmo: settings.keepAliveTmo,
    reconnectDelay: settings.reconnectDelay,
    ctrlLossTmo: settings.ctrlLossTmo,
    dhchapSecret: settings.dhchapSecret,
    dhchapCtrlSecret: settings.dhchapCtrlSecret,
  }, deadline.signal);
}

/** Connects the portals that have no controller; one that is reconnecting is left to the kernel. */
export async function connect(parts: NvmeNodeParts, deadline: Deadline): Promise<void> {
  const { settings, log } = parts;
  const found = await portalsOf(parts);
  const isMissing = found.some(({ state }) => state === "missing");
  const identity = isMissing ? await identityFor(parts) : undefined;
  await connectAll(
    log,
    `subsystem "${settings.subsystemNqn}"`,
    settings.portals,
    async (portal) => {
      const state = found.find((one) => one.portal === portal)?.state;
      if (state === "live" || state === "recovering") return state;
      await connectOne(parts, portal, deadline, identity);
      return "live";
    },
  );
}

/** The kernel takes one host identity for the whole node, whatever a storage asks for. */
async function identityFor(parts: NvmeNodeParts) {
  const identity = await hostIdentity(parts.host);
  const wanted = parts.settings.hostNqn;
  if (wanted === undefined || wanted === identity.hostNqn) return identity;
  throw new TnblockError(
    "config",
    `Cannot connect as "${wanted}": this node is "${identity.hostNqn}"`,
    {
      field: "tnb-hostnqn",
      hint:
        "A node has one host NQN: put it into /etc/nvme/hostnqn on this node, or leave tnb-hostnqn out",
    },
  );
}

/** Whether any portal answers as NVMe/TCP; each is given a second. */
export async function anyPortalAnswers(parts: NvmeNodeParts): Promise<boolean> {
  const probes = parts.settings.portals.map((portal) => probePortal(parts.host, portal));
  return await Promise.any(probes).then(() => true, () => false);
}

function tooMany(uuid: string, disks: readonly NvmeDisk[]): TnblockError {
  return new TnblockError(
    "unsupported",
    `Cannot choose a disk for namespace ${uuid}: ${
      disks.map((disk) => disk.name).join(" and ")
    } are both it, because native NVMe multipath is off`,
    { hint: "Boot with nvme_core.multipath=Y (the default), or configure one portal only" },
  );
}

/** Finds the namespace's disk and udev's link to it. */
export async function attach(
  parts: NvmeNodeParts,
  uuid: string,
  size: WantedSize,
  deadline: Deadline,
): Promise<AttachedDisk> {
  const { host, settings } = parts;
  const nqn = settings.subsystemNqn;
  let rescanAt = host.monotonicMs() + NVME_RESCAN_AFTER_MS;
  const limit = deadline.bounds(DISK_WAIT_MS);
  const found = await waitUntil(host, limit, async () => {
    const choice = await findNvmeNamespace(host.files, { nqn, uuid });
    if (choice.ambiguous) throw tooMany(uuid, choice.candidates);
    if (choice.disk !== undefined && fits(choice.disk.sizeBytes, size)) return choice.disk;
    if (host.monotonicMs() >= rescanAt) {
      rescanAt = host.monotonicMs() + NVME_RESCAN_AFTER_MS;
      await rescanAll(parts, deadline);
    }
    return undefined;
  });
  if (found === undefined) throw await notFound(parts, uuid, size, limit.deadlineMs);
  const link = nvmeTarget(uuid);
  await awaitLink(host, link, found.value.node, deadline);
  const controllers = await liveControllers(parts);
  return {
    link,
    device: found.value.node ?? "",
    size: found.value.sizeBytes,
    paths: controllers.length,
    attempts: found.attempts,
    ms: Math.round(found.ms),
  };
}

async function liveControllers(parts: NvmeNodeParts): Promise<NvmeController[]> {
  const all = await scanNvmeControllers(parts.host.files);
  return controllersOf(all, parts.settings.subsystemNqn).filter((controller) =>
    controller.state === "live"
  );
}

/** After an nsid was reused the kernel drops the disk and brings the new one only when asked (nvme/host/core.c). */
async function rescanAll(parts: NvmeNodeParts, deadline: Deadline): Promise<void> {
  const controllers = await liveControllers(parts);
  await Promise.all(
    controllers.map((controller) => rescanController(parts.host, controller.name, deadline.signal)),
  );
}

async function notFound(
  parts: NvmeNodeParts,
  uuid: string,
  size: WantedSize,
  waitedMs: number,
): Promise<TnblockError> {
  const nqn = parts.settings.subsystemNqn;
  const choice = await findNvmeNamespace(parts.host.files, { nqn, uuid });
  const [disk] = choice.candidates;
  if (disk !== undefined && !fits(disk.sizeBytes, size)) {
    return new TnblockError(
      "host-fault",
      `Cannot use the disk ${disk.name}: it has ${disk.sizeBytes} bytes, the volume ${
        wantedText(size)
      }`,
    );
  }
  if (disk !== undefined) {
    return new TnblockError(
      "host-fault",
      `Cannot use the disk ${disk.name}: there is no node for it in /dev`,
      {
        hint: "Look at: systemctl status systemd-udevd",
      },
    );
  }
  const live = await liveControllers(parts);
  if (live.length === 0) {
    return new TnblockError(
      "unreachable",
      `Cannot find the namespace ${uuid}: no controller of "${nqn}" is live`,
      {
        hint: `Check the network to ${parts.settings.portals.map(formatPortal).join(", ")}`,
      },
    );
  }
  return new TnblockError(
    "array-fault",
    `Cannot find the namespace ${uuid}: the array says that it exports it, but it did not appear in ${
      Math.round(waitedMs / 1000)
    } s`,
    {
      hint: diagnoseMissingNamespace((await scanBlockDevices(parts.host.files)).nvme, {
        nqn,
        uuid,
      }),
      steps: [
        `Look at the controllers: cat /sys/class/nvme/*/state; ${
          live.map((one) => one.name).join(", ")
        } should be live`,
        "Print what this node sees: tnblock scan",
        "On TrueNAS, look whether the namespace is enabled: Shares > NVMe-oF Subsystems",
        "On TrueNAS, look at the kernel's messages for nvmet: dmesg | grep nvmet",
        "Restart the NVMe-oF service on TrueNAS when no guest is running on it, and try again",
      ],
    },
  );
}

/** The disk when all is as it must be: live uuid, size, link. */
export async function attached(
  parts: NvmeNodeParts,
  uuid: string,
  size: WantedSize,
): Promise<AttachedDisk | undefined> {
  const { host, settings } = parts;
  const start = host.monotonicMs();
  const link = nvmeTarget(uuid);
  const disk = await identify(host.files, link);
  if (disk?.uuid !== uuid || disk.subsystem !== settings.subsystemNqn) return undefined;
  if (!fits(disk.sizeBytes, size)) return undefined;
  const choice = await findNvmeNamespace(host.files, { nqn: settings.subsystemNqn, uuid });
  if (choice.disk?.node !== disk.node) return undefined;
  const paths = (await liveControllers(parts)).length;
  return {
    link,
    device: disk.node,
    size: disk.sizeBytes,
    paths,
    attempts: 1,
    ms: Math.round(host.monotonicMs() - start),
  };
}

/**
 * Waits a moment until this node has seen the disk go, which the array has just switched off: whoever attaches it
 * when it is on again would find the one that is about to go.
 */
export async function awaitGone(parts: NvmeNodeParts, uuid: string): Promise<void> {
  const { host, settings } = parts;
  await waitUntil(host, { deadlineMs: NVME_GONE_MS }, async () => {
    const { disk } = await findNvmeNamespace(host.files, { nqn: settings.subsystemNqn, uuid });
    return disk === undefined ? true : undefined;
  });
}

/** Who uses the disk here. */
export async function users(parts: NvmeNodeParts, uuid: string): Promise<readonly string[]> {
  const choice = await findNvmeNamespace(parts.host.files, {
    nqn: parts.settings.subsystemNqn,
    uuid,
  });
  const uses = await Promise.all(
    choice.candidates.flatMap((disk) =>
      disk.node === undefined ? [] : [usersOf(parts.host, disk.node)]
    ),
  );
  return uses.flatMap((use) => use.by);
}

/**
 * Drops what this node caches of the disk; see `Transport.dropCaches`. The kernel hears of a new size by
 * itself, and is asked to look all the same: it does so on its own time.
 */
export async function dropCaches(
  parts: NvmeNodeParts,
  uuid: string,
  deadline: Deadline,
): Promise<void> {
  const { host, settings } = parts;
  const choice = await findNvmeNamespace(host.files, { nqn: settings.subsystemNqn, uuid });
  const nodes = choice.candidates.flatMap((disk) => disk.node === undefined ? [] : [disk.node]);
  if (nodes.length === 0) return;
  await Promise.all(nodes.map((node) => flushBuffers(host, node, deadline.signal)));
  await rescanAll(parts, deadline);
}
