/** The NVMe disks and controllers of a node, from `/sys/block` and `/sys/class/nvme`. */
import { canonicalAddress } from "../../common/portal.ts";
import type { Portal } from "../../common/storage_settings.ts";
import type { HostFiles } from "../host.ts";
import {
  attribute,
  entries,
  lastName,
  mapBounded,
  numberAttribute,
  place,
  readCommon,
} from "./attributes.ts";
import { chooseNvmeNode, type NvmeChoice, type NvmeWanted } from "./choose.ts";
import type { NvmeController, NvmeDisk, NvmeScan } from "./types.ts";

const BY_ID = "/dev/disk/by-id/nvme-uuid.";

/** Everything that is NVMe, local disks included. */
export async function scanNvme(files: HostFiles, names: readonly string[]): Promise<NvmeScan> {
  const [disks, controllers, multipath] = await Promise.all([
    mapBounded(names, (name) => readNvmeDisk(files, name)),
    scanNvmeControllers(files),
    nvmeMultipath(files),
  ]);
  return { disks: withControllers(disks.filter(isThere)), controllers, multipath };
}

/** Every NVMe controller; few reads, none of them by disk. */
export async function scanNvmeControllers(files: HostFiles): Promise<NvmeController[]> {
  const names = await entries(files, "/sys/class/nvme");
  const found = await mapBounded(names, (name) => readController(files, name));
  return found.filter(isThere);
}

/** Whether native multipath is on; undefined without the module. */
export async function nvmeMultipath(files: HostFiles): Promise<boolean | undefined> {
  const text = await attribute(files, "/sys/module/nvme_core/parameters/multipath");
  return text === undefined ? undefined : text === "Y" || text === "1";
}

/**
 * The disk of one namespace, without reading what all the others are: by udev's link when that is
 * there and leads to a disk that says so itself, else by the uuid of each disk. The paths of a head
 * are not read the first way: its `controllers` are empty then.
 */
export async function findNvmeNamespace(
  files: HostFiles,
  wanted: NvmeWanted,
): Promise<NvmeChoice> {
  const linked = await place(files, `${BY_ID}${wanted.uuid}`);
  if (linked !== undefined) {
    const disk = await readNvmeDisk(files, lastName(linked));
    // A link to a plain disk hides the other plain disks of the same namespace.
    if (disk?.kind === "head") {
      const choice = chooseNvmeNode({ disks: [disk] }, wanted);
      if (choice.disk !== undefined) return choice;
    }
  }
  const names = await entries(files, "/sys/block");
  const uuids = await mapBounded(names, (name) => attribute(files, `/sys/block/${name}/uuid`));
  const same = names.filter((_, index) => uuids[index]?.toLowerCase() === wanted.uuid);
  const disks = await mapBounded(same, (name) => readNvmeDisk(files, name));
  return chooseNvmeNode({ disks: withControllers(disks.filter(isThere)) }, wanted);
}

/** One disk; undefined when it is not NVMe or has gone. */
export async function readNvmeDisk(
  files: HostFiles,
  name: string,
): Promise<NvmeDisk | undefined> {
  const sys = `/sys/block/${name}`;
  // Only disks of the NVMe driver have a namespace id.
  const nsid = await numberAttribute(files, `${sys}/nsid`);
  if (nsid === undefined) return undefined;
  const [common, subsystem, uuid, nguid, wwid, cntlid, device] = await Promise.all([
    readCommon(files, name),
    attribute(files, `${sys}/device/subsysnqn`),
    attribute(files, `${sys}/uuid`),
    attribute(files, `${sys}/nguid`),
    attribute(files, `${sys}/wwid`),
    // `device` of a head is the subsystem, of all others their controller.
    attribute(files, `${sys}/device/cntlid`),
    place(files, `${sys}/device`),
  ]);
  if (common === undefined || device === undefined) return undefined;
  const kind = cntlid === undefined ? "head" : common.hidden ? "path" : "plain";
  return {
    name,
    kind,
    subsystem,
    nsid,
    uuid: uuid?.toLowerCase(),
    nguid: nguid?.toLowerCase(),
    wwid,
    sizeBytes: common.sizeBytes,
    hidden: common.hidden,
    device: common.device,
    node: common.node,
    controllers: kind === "head" ? [] : [lastName(device)],
    logicalBlockSize: common.logicalBlockSize,
    diskSequence: common.diskSequence,
  };
}

/** A head is reached through the controllers of its paths. */
function withControllers(disks: readonly NvmeDisk[]): NvmeDisk[] {
  return disks.map((disk) => {
    if (disk.kind !== "head") return disk;
    const paths = disks.filter((path) =>
      path.kind === "path" && path.subsystem === disk.subsystem && path.nsid === disk.nsid &&
      path.wwid === disk.wwid
    );
    return { ...disk, controllers: paths.flatMap((path) => path.controllers).sort() };
  });
}

async function readController(
  files: HostFiles,
  name: string,
): Promise<NvmeController | undefined> {
  const sys = `/sys/class/nvme/${name}`;
  const text = (key: string) => attribute(files, `${sys}/${key}`);
  const [subsystem, transport, state, address, hostNqn, hostId, type] = await Promise.all(
    ["subsysnqn", "transport", "state", "address", "hostnqn", "hostid", "cntrltype"].map(text),
  );
  const [cntlid, keepAliveTmo, ctrlLossTmo, reconnectDelay] = await Promise.all(
    ["cntlid", "kato", "ctrl_loss_tmo", "reconnect_delay"].map((key) =>
      numberAttribute(files, `${sys}/${key}`)
    ),
  );
  if (subsystem === undefined && state === undefined) return undefined;
  const parsed = parseAddress(address ?? "");
  return {
    name,
    subsystem,
    transport,
    state,
    portal: transport === "tcp" ? parsed.portal : undefined,
    sourceAddress: transport === "tcp" ? parsed.source : undefined,
    hostNqn,
    hostId,
    cntlid,
    keepAliveTmo,
    ctrlLossTmo,
    reconnectDelay,
    type,
  };
}

/** `traddr=10.0.0.5,trsvcid=4420,src_addr=10.0.0.9`; the last comes and goes with the connection. */
export function parseAddress(
  text: string,
): { portal: Portal | undefined; source: string | undefined } {
  const fields = new Map(
    text.split(",").map((field) => {
      const at = field.indexOf("=");
      return [field.slice(0, at), field.slice(at + 1)] as const;
    }),
  );
  const address = fields.get("traddr");
  const port = Number(fields.get("trsvcid"));
  return {
    portal: address === undefined || !Number.isInteger(port) ? undefined : { address, port },
    source: fields.get("src_addr"),
  };
}

/** The controllers of a subsystem, those to one portal when one is given. */
export function controllersOf(
  controllers: readonly NvmeController[],
  nqn: string,
  portal?: Portal,
): NvmeController[] {
  return controllers.filter((controller) =>
    controller.subsystem === nqn && controller.transport === "tcp" &&
    (portal === undefined ||
      controller.portal !== undefined && controller.portal.port === portal.port &&
        canonicalAddress(controller.portal.address) === canonicalAddress(portal.address))
  );
}

function isThere<T>(value: T | undefined): value is T {
  return value !== undefined;
}
