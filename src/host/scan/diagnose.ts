/** Words for a disk that did not come: what the node does see. For messages only; nothing is decided here. */
import { formatPortal } from "../../common/portal.ts";
import { chooseNvmeNode, type NvmeWanted } from "./choose.ts";
import { controllersOf } from "./nvme.ts";
import type { ScsiWanted } from "./scsi.ts";
import type { NvmeScan, ScsiScan } from "./types.ts";

/** Why a namespace may not be there, as sentences. */
export function diagnoseMissingNamespace(scan: NvmeScan, wanted: NvmeWanted): string {
  const controllers = controllersOf(scan.controllers, wanted.nqn);
  if (controllers.length === 0) return "This node has no connection to the subsystem";
  const lines = [
    `Connections: ${
      controllers.map(({ name, portal, state }) =>
        `${name} to ${portal === undefined ? "?" : formatPortal(portal)} is ${state ?? "gone"}`
      ).join(", ")
    }`,
  ];
  const choice = chooseNvmeNode(scan, wanted);
  if (choice.ambiguous) {
    const names = choice.candidates.map((disk) => disk.name).join(" and ");
    lines.push(`Native multipath is off: ${names} are the same namespace`);
  } else if (choice.candidates.length > 0) {
    lines.push(`${choice.candidates[0]?.name} is in sysfs but has no node in /dev yet`);
  } else if (
    scan.disks.some((disk) => disk.uuid === wanted.uuid && disk.subsystem === wanted.nqn)
  ) {
    lines.push("A path to it is there, but no disk over the paths");
  }
  const ours = scan.disks.filter((disk) => disk.kind !== "path" && disk.subsystem === wanted.nqn);
  lines.push(`The subsystem shows ${ours.length} other disks${newest(ours, (disk) => disk.uuid)}`);
  return lines.join(". ");
}

/** Why a LUN may not be there, as sentences. */
export function diagnoseMissingLun(scan: ScsiScan, wanted: ScsiWanted): string {
  const sessions = scan.sessions.filter((session) => session.targetIqn === wanted.iqn);
  if (sessions.length === 0) return "This node has no session with the target";
  const lines = [
    `Sessions: ${
      sessions.map(({ name, portal, state }) =>
        `${name} to ${portal === undefined ? "?" : formatPortal(portal)} is ${state ?? "gone"}`
      ).join(", ")
    }`,
  ];
  const disks = scan.disks.filter((disk) => disk.targetIqn === wanted.iqn);
  for (const disk of disks.filter((each) => each.lun === wanted.lun)) {
    if (disk.naa === wanted.naa) continue;
    lines.push(`LUN ${disk.lun} is ${disk.name} with naa ${disk.naa ?? "unknown"}`);
  }
  lines.push(`The target shows ${disks.length} paths${newest(disks, (disk) => disk.naa)}`);
  return lines.join(". ");
}

/** The disk that the kernel saw last: a hint for a human, who may know what was made just now. */
function newest<T extends { readonly name: string; readonly diskSequence: number | undefined }>(
  disks: readonly T[],
  identity: (disk: T) => string | undefined,
): string {
  const [last] = [...disks].sort((a, b) => (b.diskSequence ?? 0) - (a.diskSequence ?? 0));
  return last === undefined
    ? ""
    : `, the newest is ${last.name} (${identity(last) ?? "without identity"})`;
}
