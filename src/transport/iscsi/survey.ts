/** What an iSCSI export needs of the array: the service, the target, its portals, the LUNs taken. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import { canonicalAddress } from "../../common/portal.ts";
import type { IscsiSettings } from "../../common/storage_settings.ts";
import type { Host } from "../../host/host.ts";
import type { Caller } from "../../truenas/caller.ts";
import * as iscsiGlobal from "../../truenas/iscsi_global.ts";
import * as portals from "../../truenas/portals.ts";
import * as services from "../../truenas/services.ts";
import * as targetExtents from "../../truenas/target_extents.ts";
import * as targets from "../../truenas/targets.ts";
import { checkPortals, EVERY_ADDRESS } from "../check_portals.ts";
import { pickLun, whyFull } from "../numbers.ts";
import type { Groundwork } from "../transport.ts";

/** What the array half needs of its storage. */
export interface IscsiArrayParts {
  readonly settings: IscsiSettings;
  readonly storage: string;
  readonly host: Host;
  readonly log: Log;
}

/** Target, LUNs and portals, in one round of parallel reads. */
export async function survey(
  parts: IscsiArrayParts,
  array: Caller,
  deadline: Deadline,
): Promise<Groundwork> {
  const wait = deadline.bounds();
  const [running, config, allTargets, allPortals, mappings] = await Promise.all([
    services.isRunning(array, "iscsitarget", wait),
    iscsiGlobal.read(array, wait),
    targets.all(array, wait),
    portals.all(array, wait),
    targetExtents.all(array, wait),
  ]);
  if (!running) {
    throw new TnblockError(
      "config",
      "Cannot use the array for iSCSI: its iSCSI service is not running",
      {
        hint: "Start it in TrueNAS: System > Services > iSCSI, and let it start automatically",
      },
    );
  }
  const { targetIqn } = parts.settings;
  const target = allTargets.find((one) => targets.iqnOf(one.name, config.basename) === targetIqn);
  if (target === undefined) {
    throw missingTarget(
      targetIqn,
      allTargets.map((one) => targets.iqnOf(one.name, config.basename)),
    );
  }
  const offered = allPortals
    .filter((portal) => target.groups.some((group) => group.portal === portal.id))
    .flatMap((portal) => portal.addresses);
  const taken = new Set(mappings.filter((row) => row.target === target.id).map((row) => row.lun));
  return {
    parent: target.id,
    taken,
    full: whyFull(() => pickLun(taken, () => 0)),
    warnings: checkPortals({
      what: `target "${targetIqn}"`,
      configured: parts.settings.portals,
      offered: offered.map((address) => ({ address, port: config.port })),
      isOffered: (portal) =>
        portal.port === config.port &&
        (offered.some((address) => EVERY_ADDRESS.includes(address)) ||
          offered.map(canonicalAddress).includes(canonicalAddress(portal.address))),
      remedy: "Add the portals to the target's groups in TrueNAS",
    }),
  };
}

function missingTarget(iqn: string, there: readonly string[]): TnblockError {
  const list = there.length === 0 ? "there is none" : `there are ${there.join(", ")}`;
  return new TnblockError("config", `Cannot find the iSCSI target "${iqn}" on the array: ${list}`, {
    field: "tnb-target-iqn",
    hint:
      "Make it in TrueNAS (Shares > Block (iSCSI) Shares Targets > Wizard or Targets > Add, with the portals of this storage), or run tnblock setup",
  });
}

/** The row id of the storage's target. */
export async function targetId(
  parts: IscsiArrayParts,
  array: Caller,
  deadline: Deadline,
): Promise<number> {
  const wait = deadline.bounds();
  const [config, all] = await Promise.all([
    iscsiGlobal.read(array, wait),
    targets.all(array, wait),
  ]);
  const iqn = parts.settings.targetIqn;
  const target = all.find((one) => targets.iqnOf(one.name, config.basename) === iqn);
  if (target === undefined) {
    throw missingTarget(iqn, all.map((one) => targets.iqnOf(one.name, config.basename)));
  }
  return target.id;
}
