/** Checks of the way to the disks: portals, sessions, paths, links. */
import { formatPortal, samePortal } from "../../common/portal.ts";
import type { Portal } from "../../common/storage_settings.ts";
import { admission, admits, ifKnown, obstacle, offersPortal, ownName } from "../array_facts.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { editStorage, tryPort } from "../commands.ts";
import { guide } from "../guide.ts";
import type { StorageContext } from "../storage_context.ts";

const portalReach = check({
  id: "portal-reach",
  title: "every portal answers from this node",
  needs: "storage",
  run: async (storage) => {
    const answers = await storage.portalAnswers();
    // One that the array does not offer at all is told by the check that asks the array.
    const told = await Promise.all(answers.map(({ portal }) => isNotOffered(storage, portal)));
    const silent = answers.filter(({ error }, index) => error !== undefined && !told[index]);
    const inTheWay = silent.length === 0 ? undefined : await obstacle(storage);
    if (inTheWay !== undefined) throw new Skipped(inTheWay);
    const isAll = silent.length === answers.length;
    return silent.map(({ portal, error }): Problem => ({
      severity: isAll ? "error" : "warning",
      text: `the portal ${formatPortal(portal)} does not answer from this node (${error})`,
      guide: guide(
        storage.again("portal-reach"),
        `See which interface leads there, and whether it is up: ip route get ${portal.address}; ip -br link`,
        `See whether it answers: ${tryPort(portal.address, portal.port)}`,
        "See in TrueNAS that the interface is up and has the address: System > Network",
        "Look at cables, switch ports, VLAN and MTU (the same on both ends), and at firewalls; the path comes back by itself",
      ),
    }));
  },
});

/** Whether the array says that it does not offer the portal; false when it cannot be asked. */
async function isNotOffered(storage: StorageContext, portal: Portal): Promise<boolean> {
  const array = await storage.array();
  if (array instanceof Error) return false;
  return await ifKnown(() => offersPortal(array, portal)) === false;
}

const sessions = check({
  id: "sessions",
  title: "every portal that answers is connected",
  needs: "storage",
  run: async (storage) => {
    const answer = await storage.node.daemon();
    if (answer.kind !== "answered") throw new Skipped("no daemon connects portals: see daemon");
    const [answers, portals] = await Promise.all([storage.portalAnswers(), storage.portals()]);
    const state = await storage.state();
    const array = await storage.array();
    const lost = portals.filter(({ portal, state }) =>
      state !== "live" &&
      answers.some((one) => one.error === undefined && samePortal(one.portal, portal))
    );
    const isAll = lost.length === portals.length;
    // Nobody has wanted a disk yet.
    const isYoung = state?.portals.every((one) => one.state === "unseen") ?? false;
    if (isYoung || lost.length === 0) return [];
    const inTheWay = await obstacle(storage);
    if (inTheWay !== undefined) throw new Skipped(inTheWay);
    const { transport } = storage.settings;
    if (!(array instanceof Error)) {
      const who = await ifKnown(() => admission(array));
      if (who !== undefined && !admits(who, await ownName(array))) {
        throw new Skipped("the array does not let this node in: see hosts-allowed");
      }
    }
    return lost.map(({ portal }): Problem => {
      const told = state?.portals.find(({ address }) => address === formatPortal(portal))?.error;
      return {
        severity: isAll ? "error" : "warning",
        text: `the portal ${formatPortal(portal)} answers, and is not connected` +
          (told === undefined || told === null ? "" : `: ${told}`),
        guide: guide(
          storage.again("sessions"),
          "See what is connected: tnblock scan",
          "Read what the daemon says of it: journalctl -u tnblock -g portal -e",
          transport.kind === "iscsi"
            ? `See whether the target asks for CHAP, and whether the storage has it: grep chap /etc/pve/storage.cfg; in TrueNAS: Shares > Block (iSCSI) Shares Targets > Targets`
            : `See in TrueNAS whether the subsystem asks for a key: Shares > NVMe-oF Subsystems > (the subsystem) > Associated Hosts; set it by: ${
              editStorage(storage.id)
            }`,
          "Let the daemon try at once: systemctl restart tnblock",
        ),
      };
    });
  },
});

const paths = check({
  id: "paths",
  title: "disks in use have a path over every connected portal",
  needs: "storage",
  run: async (storage) => {
    const [{ held }, portals] = await Promise.all([storage.around(), storage.portals()]);
    const live = portals.filter(({ state }) => state === "live").length;
    const short = held.filter(({ disk }) => disk !== undefined && disk.paths.up < live);
    if (short.length === 0) return [];
    const names = short.slice(0, 3).map(({ name }) => name).join(", ");
    const more = short.length > 3 ? ` and ${short.length - 3} more` : "";
    return [{
      severity: "warning",
      text: `fewer paths than the ${live} connected portals carry ${names}${more}`,
      guide: guide(
        storage.again("paths"),
        "See the disks and their paths: tnblock scan",
        "See what the daemon tells of them: tnblock status",
        "Read why a path was left out: journalctl -u tnblock -g path -e",
        "Let the daemon attach it at once: systemctl restart tnblock",
      ),
    }];
  },
});

const links = check({
  id: "links",
  title: "every link to a disk leads to the disk that it names",
  needs: "storage",
  run: async (storage) => {
    const [{ held }, portals] = await Promise.all([storage.around(), storage.portals()]);
    // With no portal there is no disk, and the links wait for it.
    if (!portals.some(({ state }) => state === "live")) return [];
    const wrong = held.filter(({ disk }) => (disk?.strangers.length ?? 0) > 0);
    const stale = held.filter(({ isLinked, disk }) => isLinked && disk === undefined);
    const steps = (third: string) =>
      guide(
        storage.again("links"),
        `See where the links lead: ls -l /dev/tnblock/${storage.id}`,
        "See which disks there are: tnblock scan",
        third,
        "Activate the volume anew, which makes the link right or says why not: start its guest",
      );
    return [
      ...wrong.map(({ name, disk }): Problem => ({
        severity: "error",
        text: `the link of "${name}" leads to another disk by now (${disk?.strangers.join(", ")})`,
        guide: steps(
          `Stop the guest that has "${name}", and start it on no node until this is right`,
        ),
      })),
      ...stale.map(({ name }): Problem => ({
        severity: "warning",
        text: `the link of "${name}" leads nowhere: its disk is not on this node`,
        guide: steps(
          `See whether the volume is there still: pvesm list ${storage.id} | grep ${
            name.split("@")[0]
          }`,
        ),
      })),
    ];
  },
});

/** All of them. */
export const PATH_CHECKS = [portalReach, sessions, paths, links] as const;
