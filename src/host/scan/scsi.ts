/** The iSCSI sessions of a node and the disks behind them, from `/sys`. */
import type { Portal } from "../../common/storage_settings.ts";
import type { HostFiles } from "../host.ts";
import {
  attribute,
  bytesAttribute,
  entries,
  lastName,
  mapBounded,
  numberAttribute,
  parent,
  place,
  readCommon,
} from "./attributes.ts";
import { parseHctl } from "./lun.ts";
import { isMultipath, scanMultipathMaps } from "./maps.ts";
import type { IscsiSession, ScsiDisk, ScsiScan } from "./types.ts";

/** All iSCSI sessions, their disks, and the multipath maps. Disks of other kinds are left out. */
export async function scanScsi(files: HostFiles, names: readonly string[]): Promise<ScsiScan> {
  const [sessions, maps] = await Promise.all([
    scanIscsiSessions(files),
    scanMultipathMaps(files, names),
  ]);
  const disks = await mapBounded(
    sessions.length === 0 ? [] : names,
    (name) => readByName(files, name, sessions),
  );
  return { disks: disks.filter((disk) => disk !== undefined), sessions, maps };
}

/** All iSCSI sessions, in the order of their names. */
export async function scanIscsiSessions(files: HostFiles): Promise<IscsiSession[]> {
  const [names, portals] = await Promise.all([
    entries(files, "/sys/class/iscsi_session"),
    readPortals(files),
  ]);
  const sessions = await Promise.all(names.map((name) => readSession(files, name, portals)));
  return sessions.filter((session) => session !== undefined);
}

/** Which paths are looked for: those of a target, by identity, by number, or all. */
export interface ScsiWanted {
  readonly iqn: string;
  /** 32 hex digits, lower case. */
  readonly naa?: string;
  readonly lun?: number;
}

/**
 * The paths of one LUN or volume, one for each session that has it. Reads the sessions of that
 * target only, and of their disks only what is needed to tell them apart.
 */
export async function findScsiPaths(files: HostFiles, wanted: ScsiWanted): Promise<ScsiDisk[]> {
  const sessions = (await scanIscsiSessions(files)).filter((session) =>
    session.targetIqn === wanted.iqn
  );
  const found = await Promise.all(sessions.map(async (session) => {
    const addresses = (await scsiAddresses(files, session)).filter(({ lun }) =>
      wanted.lun === undefined || lun === wanted.lun
    );
    return await mapBounded(addresses, async ({ path, hctl }) => {
      if (wanted.naa !== undefined) {
        if (naaOf(await attribute(files, `${path}/wwid`)) !== wanted.naa) return undefined;
      }
      // The one entry here is what the kernel calls the disk; a device that is no disk has none.
      const name = (await entries(files, `${path}/block`))[0];
      return name === undefined ? undefined : await readScsiDisk(files, name, hctl, session);
    });
  }));
  return found.flat().filter((disk) => disk !== undefined);
}

/** The LUNs that a session has in sysfs, disks or not, with their places. */
async function scsiAddresses(
  files: HostFiles,
  session: IscsiSession,
): Promise<{ path: string; hctl: string; lun: number }[]> {
  const targets = (await entries(files, session.sysfs)).filter((name) => name.startsWith("target"));
  const found = await Promise.all(targets.map(async (target) => {
    const path = `${session.sysfs}/${target}`;
    return (await entries(files, path)).flatMap((hctl) => {
      const address = parseHctl(hctl);
      return address === undefined ? [] : [{ path: `${path}/${hctl}`, hctl, lun: address.lun }];
    });
  }));
  return found.flat();
}

async function readByName(
  files: HostFiles,
  name: string,
  sessions: readonly IscsiSession[],
): Promise<ScsiDisk | undefined> {
  const device = await place(files, `/sys/block/${name}/device`);
  if (device === undefined) return undefined;
  const session = sessions.find((each) => device.startsWith(`${each.sysfs}/`));
  return session === undefined
    ? undefined
    : await readScsiDisk(files, name, lastName(device), session);
}

async function readScsiDisk(
  files: HostFiles,
  name: string,
  hctl: string,
  session: IscsiSession,
): Promise<ScsiDisk | undefined> {
  const address = parseHctl(hctl);
  if (address === undefined) return undefined;
  const device = `/sys/block/${name}/device`;
  const [common, wwid, state, page80, place_] = await Promise.all([
    readCommon(files, name),
    attribute(files, `${device}/wwid`),
    attribute(files, `${device}/state`),
    bytesAttribute(files, `${device}/vpd_pg80`),
    place(files, device),
  ]);
  // Names are given anew at once: what was read must all have been of one and the same disk.
  if (common === undefined || place_ === undefined || lastName(place_) !== hctl) return undefined;
  const isMap = await Promise.all(common.holders.map((holder) => isMultipath(files, holder)));
  return {
    name,
    hctl,
    lun: address.lun,
    session: session.name,
    targetIqn: session.targetIqn,
    portal: session.portal,
    naa: naaOf(wwid),
    serial: page80 === undefined ? undefined : serialOf(page80),
    wwid,
    sizeBytes: common.sizeBytes,
    state,
    device: common.device,
    node: common.node,
    holders: common.holders,
    map: common.holders.find((_, index) => isMap[index]),
    logicalBlockSize: common.logicalBlockSize,
    diskSequence: common.diskSequence,
  };
}

/** `naa.6589cfc…` -> the hex digits, lower case. */
export function naaOf(wwid: string | undefined): string | undefined {
  return /^naa\.([0-9a-f]{16}(?:[0-9a-f]{16})?)$/.exec(wwid?.toLowerCase() ?? "")?.[1];
}

/** The serial in VPD page 0x80: its length stands in bytes 2 and 3, it may end in blanks or NUL. */
export function serialOf(page: Uint8Array): string | undefined {
  if (page.length < 4 || page[1] !== 0x80) return undefined;
  const length = ((page[2] ?? 0) << 8) | (page[3] ?? 0);
  const text = new TextDecoder().decode(page.subarray(4, 4 + length));
  const serial = text.replace(/[\s\0]+$/, "").trim();
  return serial === "" ? undefined : serial;
}

/** The portal of each session, by where the session lies in sysfs. */
async function readPortals(files: HostFiles): Promise<Map<string, Portal>> {
  const portals = new Map<string, Portal>();
  const base = "/sys/class/iscsi_connection";
  await Promise.all((await entries(files, base)).map(async (name) => {
    const [device, address, port] = await Promise.all([
      place(files, `${base}/${name}/device`),
      attribute(files, `${base}/${name}/persistent_address`),
      numberAttribute(files, `${base}/${name}/persistent_port`),
    ]);
    if (device === undefined || address === undefined || port === undefined) return;
    portals.set(parent(device), { address: address.replace(/^\[|\]$/g, ""), port });
  }));
  return portals;
}

async function readSession(
  files: HostFiles,
  name: string,
  portals: ReadonlyMap<string, Portal>,
): Promise<IscsiSession | undefined> {
  const sys = `/sys/class/iscsi_session/${name}`;
  const [sysfs, targetIqn, state, recoveryTmo, target] = await Promise.all([
    place(files, `${sys}/device`),
    attribute(files, `${sys}/targetname`),
    attribute(files, `${sys}/state`),
    numberAttribute(files, `${sys}/recovery_tmo`),
    numberAttribute(files, `${sys}/target_id`),
  ]);
  if (sysfs === undefined || targetIqn === undefined) return undefined;
  // `…/host3/session7`: this is how the kernel tells which host a session belongs to.
  const host = /\/host(\d+)\/[^/]+$/.exec(sysfs)?.[1];
  if (host === undefined) return undefined;
  return {
    name,
    targetIqn,
    state,
    portal: portals.get(sysfs),
    host: Number(host),
    target: target ?? 0,
    recoveryTmo,
    sysfs,
  };
}
