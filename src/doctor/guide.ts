/**
 * The five steps that put a finding right, and where things are in the menus of TrueNAS. A guide has five steps by
 * its type, so that nobody is left with four and a half.
 */
import type { Release } from "../truenas/dialect.ts";

/** Exactly five steps, in their order; each is a sentence, with the command or the menu path in it. */
export type Guide = readonly [string, string, string, string, string];

/**
 * A guide: what to do in four steps, and the look at it again as the fifth.
 *
 * @param again the command that looks again.
 */
export function guide(again: string, ...steps: readonly [string, string, string, string]): Guide {
  return [...steps, `Check again: ${again}`];
}

/** Where things are in the web interface. */
export interface Menus {
  readonly apiKeys: string;
  readonly privileges: string;
  readonly services: string;
  readonly datasets: string;
  readonly pools: string;
  readonly targets: string;
  readonly portals: string;
  readonly initiators: string;
  readonly extents: string;
  readonly subsystems: string;
  readonly hosts: string;
  readonly ports: string;
  readonly namespaces: string;
  readonly network: string;
  readonly time: string;
  readonly certificates: string;
  readonly update: string;
}

/**
 * The menus of a release; those of 25.10 where it is not known.
 *
 * Sources: the side menu in truenas/webui (`navigation.service.ts`, as of 25.04, 25.10 and the branch after 26), and
 * truenas/documentation (`Credentials/Users/ManageUsers.md`, `Shares/iSCSI/AddingISCSIShares.md`,
 * `Shares/NVMe-oF/Managing-NVMe-of-Subsystems.md`). Up to 25.04 the keys of a user are reached by the menu of
 * one's own account only; NVMe-oF came with 25.10; the `Configure` button of the iSCSI card became its heading.
 */
export function menusOf(release: Pick<Release, "numbers"> | undefined): Menus {
  const [major = 25, minor = 10] = release?.numbers ?? [];
  const isOld = major === 25 && minor < 10;
  const iscsi = isOld
    ? "Shares > Block (iSCSI) Shares Targets > Configure"
    : "Shares > Block (iSCSI) Shares Targets";
  const nvme = isOld
    ? "(NVMe-oF needs TrueNAS 25.10 or newer)"
    : "Shares > NVMe-oF Subsystems > (the subsystem)";
  return {
    apiKeys: isOld
      ? "(account menu at the top right) > My API Keys"
      : "Credentials > Users > (the user) > Access > View API Keys",
    privileges: "Credentials > Groups > Privileges",
    services: "System > Services",
    datasets: "Datasets",
    pools: "Storage",
    targets: `${iscsi} > Targets`,
    portals: `${iscsi} > Portals`,
    initiators: `${iscsi} > Initiators`,
    extents: `${iscsi} > Extents`,
    subsystems: isOld ? nvme : "Shares > NVMe-oF Subsystems",
    hosts: isOld ? nvme : `${nvme} > Associated Hosts`,
    ports: isOld ? nvme : `${nvme} > Ports`,
    namespaces: isOld ? nvme : `${nvme} > Namespaces`,
    network: "System > Network",
    time: "System > General Settings > NTP Servers",
    certificates: "System > General Settings > GUI > Settings > GUI SSL Certificate",
    update: "System > Update",
  };
}
