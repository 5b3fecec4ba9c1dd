/** `tnblock scan`: the disks that this machine sees over NVMe/TCP and iSCSI, and the connections they come through. */
import { formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import { scanBlockDevices } from "../host/scan/block_devices.ts";
import type {
  BlockScan,
  IscsiSession,
  MultipathMap,
  NvmeController,
  NvmeDisk,
  ScsiDisk,
} from "../host/scan/types.ts";
import { formatBytes, renderTable } from "./table.ts";

/** Changes when a field of the JSON output changes its meaning or goes. */
const SCHEMA_VERSION = 1;

/**
 * Prints what there is. Needs no rights and changes nothing.
 *
 * @returns the exit status, 0.
 */
export async function runScan(
  host: Host,
  options: { readonly json: boolean },
  out: (text: string) => void,
): Promise<number> {
  const scan = networkOnly(await scanBlockDevices(host.files));
  out(options.json ? renderJson(host.nodeName, scan) : renderText(scan));
  return 0;
}

/** Local NVMe disks are nobody's business here. */
function networkOnly(scan: BlockScan): BlockScan {
  const controllers = scan.nvme.controllers.filter((each) => each.transport === "tcp");
  const subsystems = new Set(controllers.map((each) => each.subsystem));
  const disks = scan.nvme.disks.filter((disk) => subsystems.has(disk.subsystem));
  return { nvme: { ...scan.nvme, controllers, disks }, scsi: scan.scsi };
}

function renderJson(node: string, scan: BlockScan): string {
  const { nvme, scsi } = scan;
  const document = {
    schemaVersion: SCHEMA_VERSION,
    node,
    nvme: { multipath: nvme.multipath, controllers: nvme.controllers, disks: nvme.disks },
    iscsi: { sessions: scsi.sessions, disks: scsi.disks, maps: scsi.maps },
  };
  // What is not known is null, so that every field is always there.
  return JSON.stringify(document, (_, value) => value === undefined ? null : value, 2) + "\n";
}

function renderText(scan: BlockScan): string {
  const { nvme, scsi } = scan;
  if (nvme.controllers.length === 0 && scsi.sessions.length === 0) {
    return "Nothing here: this machine has no NVMe/TCP connection and no iSCSI session\n";
  }
  const disks = [...nvmeRows(nvme.disks, nvme.controllers), ...scsiRows(scsi.disks, scsi.maps)];
  const parts = [
    renderTable(["CONNECTION", "TO", "PORTAL", "STATE"], [
      ...nvme.controllers.map(connectionRow),
      ...scsi.sessions.map(connectionRow),
    ]),
    disks.length === 0
      ? "No disks come through them\n"
      : renderTable(["DISK", "SIZE", "IDENTITY", "NUMBER", "FROM", "PATHS"], disks),
  ];
  if (nvme.multipath === false && nvme.controllers.length > 0) {
    parts.push(
      "Native NVMe multipath is off (nvme_core.multipath=N): each path is a disk of its own, and dies alone\n",
    );
  }
  return parts.join("\n");
}

function connectionRow(connection: NvmeController | IscsiSession): string[] {
  const to = "targetIqn" in connection ? connection.targetIqn : connection.subsystem ?? "?";
  return [connection.name, to, portalText(connection.portal), connection.state ?? "?"];
}

function nvmeRows(disks: readonly NvmeDisk[], controllers: readonly NvmeController[]): string[][] {
  const stateOf = new Map(controllers.map(({ name, state }) => [name, state ?? "?"]));
  return disks.filter((disk) => disk.kind !== "path").map((disk) => [
    disk.node ?? disk.name,
    formatBytes(disk.sizeBytes),
    disk.uuid ?? disk.wwid ?? "?",
    `nsid ${disk.nsid ?? "?"}`,
    disk.subsystem ?? "?",
    disk.controllers.map((name) => `${name} ${stateOf.get(name) ?? "gone"}`).join(", "),
  ]);
}

/** One row for a map with its paths, one for each disk that no map covers. */
function scsiRows(disks: readonly ScsiDisk[], maps: readonly MultipathMap[]): string[][] {
  const rows = maps.flatMap((map) => {
    const paths = disks.filter((disk) => disk.map === map.name);
    return paths.length === 0 ? [] : [scsiRow(map.node ?? map.name, map.sizeBytes, paths)];
  });
  const alone = disks.filter((disk) => disk.map === undefined);
  return [...rows, ...alone.map((disk) => scsiRow(disk.node ?? disk.name, disk.sizeBytes, [disk]))];
}

function scsiRow(name: string, sizeBytes: number, paths: readonly ScsiDisk[]): string[] {
  const unique = (values: readonly string[]) => [...new Set(values)].join(", ");
  return [
    name,
    formatBytes(sizeBytes),
    unique(paths.map((path) => path.naa ?? path.wwid ?? "?")),
    unique(paths.map((path) => `lun ${path.lun}`)),
    unique(paths.map((path) => path.targetIqn)),
    paths.map((path) => `${path.name} ${path.state ?? "?"}`).join(", "),
  ];
}

function portalText(portal: Portal | undefined): string {
  return portal === undefined ? "?" : formatPortal(portal);
}
