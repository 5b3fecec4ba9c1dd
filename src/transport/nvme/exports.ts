/** The array half of NVMe/TCP: one namespace a zvol in the storage's one shared subsystem. */
import type { Deadline } from "../../common/deadline.ts";
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import { samePortal } from "../../common/portal.ts";
import type { NvmeSettings } from "../../common/storage_settings.ts";
import type { Host } from "../../host/host.ts";
import type { Caller } from "../../truenas/caller.ts";
import { isExists, isInUse, isUnknownOutcome } from "../../truenas/errors.ts";
import * as namespaces from "../../truenas/namespaces.ts";
import * as services from "../../truenas/services.ts";
import * as subsystems from "../../truenas/subsystems.ts";
import { checkPortals, EVERY_ADDRESS } from "../check_portals.ts";
import { withDeviceNode } from "../device_node.ts";
import { NAMESPACES_LIMIT, NAMESPACES_WARN, pickNsid, whyFull } from "../numbers.ts";
import { orAbsent } from "../or_absent.ts";
import { isDirectChild } from "../direct_child.ts";
import type { ExportLookup, ExportRow, Groundwork, VolumeExport } from "../transport.ts";

/** What the array half needs of its storage. */
export interface NvmeArrayParts {
  readonly settings: NvmeSettings;
  readonly host: Host;
  readonly log: Log;
}

/** TrueNAS exports a zvol by its block device, whose logical blocks have 512 bytes. */
export const SECTOR_SIZE = 512;

/** How often another NSID is tried when somebody else was quicker. */
const NSID_TRIES = 8;

function requireNvme(array: Caller): void {
  if (array.release.can.nvmet) return;
  throw new TnblockError(
    "unsupported",
    `Cannot use NVMe/TCP: TrueNAS ${array.release.text} has no NVMe-oF target`,
    {
      hint: "Update TrueNAS to 25.10 or newer, or use iSCSI",
    },
  );
}

/** The subsystem, or an error that lists those that are there and says how to make one. */
function findSubsystem(
  parts: NvmeArrayParts,
  all: readonly subsystems.Subsystem[],
): subsystems.Subsystem {
  const nqn = parts.settings.subsystemNqn;
  const found = all.find((one) => one.nqn === nqn);
  if (found !== undefined) return found;
  const list = all.length === 0
    ? "there is none"
    : `there are ${all.map((one) => one.nqn).join(", ")}`;
  throw new TnblockError(
    "config",
    `Cannot find the NVMe subsystem "${nqn}" on the array: ${list}`,
    {
      field: "tnb-subsystem-nqn",
      hint:
        "Make it in TrueNAS (Shares > NVMe-oF Subsystems > Add, with a TCP port for each portal of this storage), or run tnblock setup",
    },
  );
}

/** Subsystem, NSIDs and ports. */
export async function survey(
  parts: NvmeArrayParts,
  array: Caller,
  deadline: Deadline,
): Promise<Groundwork> {
  requireNvme(array);
  const wait = deadline.bounds();
  const [running, all, rows, offered] = await Promise.all([
    services.isRunning(array, "nvmet", wait),
    subsystems.all(array, wait),
    namespaces.all(array, wait),
    subsystems.portsByNqn(array, parts.settings.subsystemNqn, wait),
  ]);
  if (!running) {
    throw new TnblockError(
      "config",
      "Cannot use the array for NVMe/TCP: its NVMe-oF service is not running",
      {
        hint: "Start it in TrueNAS: System > Services > NVMe-oF, and let it start automatically",
      },
    );
  }
  const subsystem = findSubsystem(parts, all);
  const taken = new Set(
    rows.filter((row) => row.subsystem === subsystem.id).map((row) => row.nsid),
  );
  const tcp = offered.filter((port) => port.transport === "TCP" && port.enabled);
  const warnings = checkPortals({
    what: `subsystem "${subsystem.nqn}"`,
    configured: parts.settings.portals,
    offered: tcp,
    isOffered: (portal) =>
      tcp.some((port) =>
        samePortal(port, portal) ||
        (EVERY_ADDRESS.includes(port.address) && port.port === portal.port)
      ),
    remedy: "Add the ports to the subsystem in TrueNAS",
  });
  if (taken.size >= NAMESPACES_WARN) {
    warnings.push(
      `subsystem "${subsystem.nqn}" holds ${taken.size} namespaces; no more than ${NAMESPACES_LIMIT} fit`,
    );
  }
  return { parent: subsystem.id, taken, full: whyFull(() => pickNsid(taken, () => 0)), warnings };
}

function exportOf(zvol: string, row: namespaces.Namespace): VolumeExport {
  return {
    zvol,
    identity: { kind: "nvme-tcp", nsid: row.nsid, uuid: row.uuid },
    rows: [{ kind: "namespace", id: row.id }],
    enabled: row.enabled,
    sectorSize: SECTOR_SIZE,
  };
}

/** Every namespace of the subsystem whose zvol is directly below the dataset. */
export async function listExports(
  parts: NvmeArrayParts,
  array: Caller,
  dataset: string,
  deadline: Deadline,
): Promise<VolumeExport[]> {
  requireNvme(array);
  const rows = await namespaces.byNqn(array, parts.settings.subsystemNqn, deadline.bounds());
  return rows.flatMap((row) =>
    row.zvol !== undefined && isDirectChild(row.zvol, dataset) ? [exportOf(row.zvol, row)] : []
  );
}

/** The zvols of the subsystem that are not directly below the dataset. */
export async function listNeighbours(
  parts: NvmeArrayParts,
  array: Caller,
  dataset: string,
  deadline: Deadline,
): Promise<string[]> {
  const rows = await namespaces.byNqn(array, parts.settings.subsystemNqn, deadline.bounds());
  return rows.flatMap(({ zvol }) =>
    zvol === undefined || isDirectChild(zvol, dataset) ? [] : [zvol]
  );
}

/** How one zvol is exported, by whomever. */
export async function lookUp(
  parts: NvmeArrayParts,
  array: Caller,
  zvol: string,
  deadline: Deadline,
): Promise<ExportLookup> {
  requireNvme(array);
  const [row, all] = await Promise.all([
    namespaces.byZvol(array, zvol, deadline.bounds()),
    subsystems.all(array, deadline.bounds()),
  ]);
  if (row === undefined) return { kind: "none" };
  const subsystem = all.find((one) => one.id === row.subsystem);
  if (subsystem?.nqn === parts.settings.subsystemNqn) {
    return { kind: "ours", export: exportOf(zvol, row) };
  }
  return { kind: "foreign", what: `a namespace of subsystem "${subsystem?.nqn ?? row.subsystem}"` };
}

/** One write, one reload. */
export async function createExport(
  parts: NvmeArrayParts,
  array: Caller,
  zvol: string,
  groundwork: Groundwork,
  isNew: () => Promise<boolean>,
  deadline: Deadline,
): Promise<VolumeExport> {
  const taken = new Set(groundwork.taken);
  for (let attempt = 1; attempt <= NSID_TRIES; attempt++) {
    const nsid = pickNsid(taken, (limit) => parts.host.randomInteger(limit));
    const wanted = { subsystem: groundwork.parent, zvol, nsid };
    const row = await withDeviceNode(
      parts.host,
      deadline,
      zvol,
      () => createOnce(parts, array, wanted, isNew),
    );
    if (row !== undefined) return exportOf(zvol, row);
    parts.log.info(`NSID ${nsid} was taken at the same moment; picking another`);
    taken.add(nsid);
    deadline.check();
  }
  throw new TnblockError(
    "busy",
    `Cannot export "${zvol}": ${NSID_TRIES} NSIDs in a row were taken by others at the same moment`,
  );
}

/** The new namespace, or undefined when its NSID was taken by somebody else. */
async function createOnce(
  parts: NvmeArrayParts,
  array: Caller,
  wanted: { readonly subsystem: number; readonly zvol: string; readonly nsid: number },
  isNew: () => Promise<boolean>,
): Promise<namespaces.Namespace | undefined> {
  try {
    return await namespaces.create(array, wanted);
  } catch (error) {
    if (isUnknownOutcome(error)) {
      // Its answer was lost: the namespace may be the one asked for.
      const found = await namespaces.byZvol(array, wanted.zvol);
      if (found?.subsystem === wanted.subsystem && found.nsid === wanted.nsid) return found;
    } else if (isInUse(error)) {
      const found = await namespaces.byZvol(array, wanted.zvol);
      if (found?.subsystem !== wanted.subsystem) throw error;
      if (!await isNew()) {
        if (found.enabled) return found;
        throw error;
      }
      parts.log.warning(
        `namespace ${found.nsid} named "${wanted.zvol}" before it was made; removing it`,
      );
      await namespaces.remove(array, found.id);
      return await namespaces.create(array, wanted);
    } else if (isExists(error)) return undefined;
    throw error;
  }
}

/** Removes the namespace; the array does not ask whether a host uses it, so the caller has. */
export async function removeExport(array: Caller, rows: readonly ExportRow[]): Promise<void> {
  for (const row of rows) {
    if (row.kind === "namespace") await orAbsent(namespaces.remove(array, row.id));
  }
}
