/** Checks of what exports the volumes: target or subsystem, portals, limits, weight, what this node sees of it. */
import { formatPortal } from "../../common/portal.ts";
import { scanBlockDevices } from "../../host/scan/block_devices.ts";
import { isDirectChild } from "../../transport/direct_child.ts";
import { NAMESPACES_LIMIT, NAMESPACES_WARN } from "../../transport/numbers.ts";
import { iqnOf } from "../../truenas/targets.ts";
import { mayCall } from "../../truenas/privileges.ts";
import { isWeight } from "../../volumes/weight.ts";
import type { ArrayContext } from "../array_context.ts";
import { ifKnown, isIscsi, offersPortal, whatOf } from "../array_facts.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { adopt, cleanUp, count, rebind, some } from "../commands.ts";
import { guide } from "../guide.ts";

const target = check({
  id: "target",
  title: "the target or subsystem is there",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const names = isIscsi(array)
      ? await iscsiNames(array)
      : array.release.can.nvmet
      ? await nvmeNames(array)
      : undefined;
    if (names?.found === true) return [];
    const menu = isIscsi(array) ? menus.targets : menus.subsystems;
    const option = isIscsi(array) ? "tnb-target-iqn" : "tnb-subsystem-nqn";
    const there = names === undefined || names.all.length === 0
      ? "there is none"
      : `there are ${names.all.join(", ")}`;
    return [{
      severity: "error",
      text: names === undefined
        ? `TrueNAS ${array.release.text} has no NVMe-oF: it came with 25.10`
        : `${whatOf(array)} is not on the array: ${there}`,
      guide: guide(
        storage.again("target"),
        `See which ones are there in TrueNAS: ${menu}`,
        names === undefined
          ? "Update TrueNAS to 25.10 or newer, or use iSCSI"
          : "Make it again with exactly that name, and the portals and hosts of this storage",
        `Or name the right one: pvesm set ${storage.id} --${option} NAME`,
        "See that the portals are connected, by themselves: tnblock status",
      ),
    }];
  },
});

async function iscsiNames(array: ArrayContext) {
  const { target, targets, config } = await array.iscsi();
  return {
    found: target !== undefined,
    all: targets.map(({ name }) => iqnOf(name, config.basename)),
  };
}

async function nvmeNames(array: ArrayContext) {
  const { subsystem, subsystems } = await array.nvme();
  return { found: subsystem !== undefined, all: subsystems.map(({ nqn }) => nqn) };
}

const portals = check({
  id: "portals",
  title: "the array offers the storage at every configured portal",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const configured = storage.settings.transport.portals;
    const offered = await Promise.all(configured.map((portal) => offersPortal(array, portal)));
    const missing = configured.filter((_, index) => offered[index] === false).map(formatPortal);
    if (missing.length === 0) return [];
    const right = configured.filter((_, index) => offered[index]).map(formatPortal).join(",");
    return [{
      severity: missing.length === configured.length ? "error" : "warning",
      text: `${whatOf(array)} is not offered at ${missing.join(", ")}`,
      guide: guide(
        storage.again("portals"),
        `See where it is offered: ${isIscsi(array) ? menus.portals : menus.ports}`,
        `See that the array has these addresses: ${menus.network}`,
        isIscsi(array)
          ? `Add the portal there, then to a group of the target: ${menus.targets}`
          : "Add the port there: Ports > Add",
        `Or take it out of the storage: pvesm set ${storage.id} --tnb-portals ${
          right || "ADDRESS:PORT,ADDRESS:PORT"
        }`,
      ),
    }];
  },
});

/** LUNs that TrueNAS has. */
const MOST_LUNS = 16_383;

const limits = check({
  id: "limits",
  title: "the target or subsystem is not nearly full",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const [count, warn, most] = isIscsi(array)
      ? [await lunCount(array), 0.9 * MOST_LUNS, MOST_LUNS]
      : [await namespaceCount(array), NAMESPACES_WARN, NAMESPACES_LIMIT];
    if (count < warn) return [];
    const isFull = count >= most;
    return [{
      severity: isFull ? "error" : "warning",
      text: `${whatOf(array)} holds ${count} volumes of at most ${most}`,
      guide: guide(
        storage.again("limits"),
        `See which ones there are: pvesm list ${storage.id}`,
        `Remove those that nobody needs: ${cleanUp(storage.id)}`,
        `Make another ${isIscsi(array) ? "target" : "subsystem"} and dataset: ${
          isIscsi(array) ? menus.targets : menus.subsystems
        }`,
        "Add a storage with it, and move disks there: tnblock setup, then qm disk move VMID DISK STORAGE",
      ),
    }];
  },
});

async function lunCount(array: ArrayContext): Promise<number> {
  const { target, mappings } = await array.iscsi();
  return mappings.filter((row) => row.target === target?.id).length;
}

async function namespaceCount(array: ArrayContext): Promise<number> {
  if (!array.release.can.nvmet) return 0;
  const { subsystem, namespaces } = await array.nvme();
  return namespaces.filter((row) => row.subsystem === subsystem?.id).length;
}

const weight = check({
  id: "weight",
  title: "an iSCSI target has its weight, so that it does not vanish with its last volume",
  needs: "array",
  run: async (array) => {
    const { storage } = array;
    if (!isIscsi(array)) return [];
    const { target, extents, mappings } = await array.iscsi();
    if (target === undefined) return [];
    const mapped = new Set(
      mappings.filter((row) => row.target === target.id).map(({ extent }) => extent),
    );
    const isWeighted = extents.some(({ id, zvol, enabled }) =>
      enabled && mapped.has(id) && zvol !== undefined && isWeight({ name: zvol })
    );
    if (isWeighted) return [];
    return [{
      severity: "warning",
      text: `${
        whatOf(array)
      } has no weight: when its last volume is deleted in TrueNAS, the target goes with it`,
      guide: guide(
        storage.again("weight"),
        `See what the target has: ${array.menus.targets}`,
        `See whether the weight's zvol is there: ${array.menus.datasets} > ${storage.settings.dataset} > tnb-weight-...`,
        `Let tnblock make it, which it does with each allocation too: pvesm set ${storage.id} --tnb-debug 0`,
        "Read why it could not, if it did not: journalctl -u tnblock -g weight -e",
      ),
    }];
  },
});

/** A namespace that was made a moment ago is on its way. */
const SEEN_AGAIN_MS = 2_000;

const exportsSeen = check({
  id: "exports-seen",
  title: "what the array says that it exports is what this node sees",
  needs: "array",
  run: async (array) => isIscsi(array) ? await goneLuns(array) : await unseenNamespaces(array),
});

async function unseenNamespaces(array: ArrayContext): Promise<Problem[]> {
  if (!array.release.can.nvmet) return [];
  const { storage, menus } = array;
  const { host } = storage.node;
  const portals = await storage.portals();
  if (!portals.some(({ state }) => state === "live")) {
    throw new Skipped("no portal is connected: see sessions");
  }
  if ((await array.service())?.running === false) throw new Skipped("see service");
  if (await array.isLocked()) throw new Skipped("the dataset is locked: see dataset");
  const { subsystem, namespaces } = await array.nvme();
  const { dataset } = storage.settings;
  const there = new Set((await array.listing())?.zvols.map(({ name }) => name));
  const wanted = namespaces.filter(({ subsystem: id, zvol, enabled }) =>
    enabled && id === subsystem?.id && zvol !== undefined && isDirectChild(zvol, dataset) &&
    there.has(zvol)
  );
  const unseen = async () => {
    const { nvme } = await scanBlockDevices(host.files);
    const uuids = new Set(nvme.disks.map(({ uuid }) => uuid));
    return wanted.filter(({ uuid }) => !uuids.has(uuid));
  };
  if ((await unseen()).length === 0) return [];
  await host.wait(SEEN_AGAIN_MS);
  const missing = await unseen();
  if (missing.length === 0) return [];
  const names = missing.map(({ zvol }) => zvol?.slice(dataset.length + 1) ?? "");
  return [{
    severity: "error",
    text: `the array says that it exports ${some(names)}, and this node does not see it`,
    guide: guide(
      storage.again("exports-seen"),
      `Let the kernel look again: for c in /sys/class/nvme/nvme*; do grep -q ${
        storage.settings.transport.kind === "nvme-tcp"
          ? storage.settings.transport.subsystemNqn
          : ""
      } $c/subsysnqn && echo 1 > $c/rescan_controller; done`,
      `See in TrueNAS whether the namespace is there and enabled: ${menus.namespaces}`,
      `Where it is, TrueNAS ${array.release.text} has left it out of its kernel, which it does when setting up fails ` +
        `half-way: in a quiet moment, best with the guests of this array stopped, restart NVMe-oF: ${menus.services}`,
      "See that all disks are back: tnblock scan",
    ),
  }];
}

async function goneLuns(array: ArrayContext): Promise<Problem[]> {
  const { storage } = array;
  const [{ held }, { extents }] = await Promise.all([storage.around(), array.iscsi()]);
  const naas = new Set(extents.map(({ naa }) => naa));
  const gone = held.filter(({ disk, known, linked, isLinked }) => {
    const identity = known?.identity ?? linked;
    return isLinked && disk !== undefined && identity?.kind === "iscsi" && !naas.has(identity.naa);
  });
  return gone.map(({ name }): Problem => ({
    severity: "error",
    text: `"${name}" is attached to this node, and the array has no export of it any more`,
    guide: guide(
      storage.again("exports-seen"),
      `Stop the guest that has it, if one runs: qm list, and grep -r "${name}" /etc/pve/nodes/*/qemu-server`,
      `See in TrueNAS whether its zvol is there still: ${array.menus.datasets} > ${storage.settings.dataset}`,
      `Give a zvol that is there its export back: ${rebind(storage.id, name)}`,
      "Idle paths of what is gone go by themselves after a minute: tnblock scan",
    ),
  }));
}

const oldSubsystems = check({
  id: "old-subsystems",
  title: "no subsystem of its own exports a volume of the dataset",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const { dataset } = storage.settings;
    if (!array.release.can.nvmet) return [];
    const privileges = await ifKnown(() => array.privileges());
    if (privileges === undefined || !mayCall(privileges, "nvmet.subsys.query")) {
      throw new Skipped(
        "the API key may not read subsystems, which an iSCSI storage does not need",
      );
    }
    const { subsystem, subsystems, namespaces } = await array.nvme();
    if (subsystem === undefined && !isIscsi(array)) {
      throw new Skipped("which one is the storage's is not known: see target");
    }
    const foreign = namespaces.filter(({ zvol, subsystem: id }) =>
      id !== subsystem?.id && zvol !== undefined && isDirectChild(zvol, dataset)
    );
    if (foreign.length === 0) return [];
    const ids = new Set(foreign.map((row) => row.subsystem));
    const names = subsystems.filter(({ id }) => ids.has(id)).map(({ name }) => name);
    return [{
      severity: "warning",
      text: `${count(foreign.length, "zvol")} of "${dataset}" exported by other subsystems: ${
        some(names)
      }`,
      guide: guide(
        storage.again("old-subsystems"),
        `See what they export: ${menus.subsystems}`,
        "Find out who made them: an older tool that makes one for each volume, or another storage or cluster",
        "Stop what uses such a volume, and delete its namespace there; the zvol and its data stay",
        `Export it by this storage's subsystem: ${
          adopt(storage.id)
        }; then delete the empty subsystem yourself`,
      ),
    }];
  },
});

/** All of them. */
export const EXPORT_CHECKS = [target, portals, limits, weight, exportsSeen, oldSubsystems] as const;
