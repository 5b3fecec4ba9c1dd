/** What sysfs shows of a storage's LUNs, in one pass over the target's paths; see `Transport.glance`. */
import type { HostFiles } from "../../host/host.ts";
import { multipathTarget, singlePathTarget } from "../../host/links.ts";
import {
  attribute,
  entries,
  lastName,
  mapBounded,
  numberAttribute,
  place,
  SECTOR,
} from "../../host/scan/attributes.ts";
import { parseHctl } from "../../host/scan/lun.ts";
import { naaOf } from "../../host/scan/scsi.ts";
import type { IscsiSession } from "../../host/scan/types.ts";
import type { DiskGlance, Glance } from "../transport.ts";
import { type IscsiNodeParts, sessionsOf } from "./node.ts";
import type { LunIdentity } from "./paths.ts";

/** A path, by the few attributes that tell whether anything changed. */
interface Path {
  /** e.g. `sda`. */
  readonly name: string;
  readonly lun: number;
  readonly session: string;
  readonly naa: string | undefined;
  /** Bytes. */
  readonly size: number;
  /** Changes with the device. */
  readonly mark: string;
}

/** Reads all paths of the target once, whatever the number of disks. */
export async function glance(
  parts: IscsiNodeParts,
  identities: readonly LunIdentity[],
): Promise<Glance> {
  const { settings, host } = parts;
  const sessions = await sessionsOf(parts);
  const paths = await readPaths(host.files, sessions);
  const live = new Set(
    sessions.filter(({ state }) => state === "LOGGED_IN").map(({ name }) => name),
  );
  const byNaa = Map.groupBy(paths, (path) => path.naa);
  const byName = new Map(paths.map((path) => [path.name, path]));
  const target = settings.useMultipath ? multipathTarget : singlePathTarget;
  const disks = await mapBounded(identities, async ({ naa }): Promise<DiskGlance | undefined> => {
    const linked = await readLinked(host.files, target(naa), byName);
    const own = byNaa.get(naa) ?? [];
    if (linked === undefined && own.length === 0) return undefined;
    const below = linked === undefined || linked.below.length === 0 ? own : linked.below;
    const size = linked?.size ?? 0;
    const carrying = below.filter((path) =>
      path.naa === naa && live.has(path.session) && path.size === size
    );
    const found = [linked?.naa, ...below.map((path) => path.naa)];
    return {
      device: linked?.device,
      size,
      paths: { up: carrying.length, configured: settings.portals.length },
      lost: [...live].filter((name) => !carrying.some(({ session }) => session === name)).length,
      strangers: found.filter((one): one is string => one !== undefined && one !== naa),
      mark: [linked?.device, ...below.map(({ mark }) => mark)].join(" "),
    };
  });
  const asked = new Set(identities.map(({ naa }) => naa));
  const strays = [...byNaa].flatMap(([naa, [path]]): LunIdentity[] =>
    naa === undefined || path === undefined || asked.has(naa)
      ? []
      : [{ kind: "iscsi", lun: path.lun, naa }]
  );
  return { disks, strays };
}

async function readPaths(
  files: HostFiles,
  sessions: readonly IscsiSession[],
): Promise<readonly Path[]> {
  const places = await Promise.all(sessions.map(async (session) => {
    const targets = (await entries(files, session.sysfs)).filter((name) => /^target/.test(name));
    const found = await Promise.all(targets.map(async (target) => {
      const folder = `${session.sysfs}/${target}`;
      return (await entries(files, folder)).flatMap((hctl) => {
        const lun = parseHctl(hctl)?.lun;
        return lun === undefined
          ? []
          : [{ session: session.name, hctl, lun, device: `${folder}/${hctl}` }];
      });
    }));
    return found.flat();
  }));
  const paths = await mapBounded(places.flat(), async ({ session, hctl, lun, device }) => {
    const name = (await entries(files, `${device}/block`))[0];
    if (name === undefined) return undefined;
    const block = `${device}/block/${name}`;
    const [wwid, size, number, sequence] = await Promise.all([
      attribute(files, `${device}/wwid`),
      numberAttribute(files, `${block}/size`),
      attribute(files, `${block}/dev`),
      attribute(files, `${block}/diskseq`),
    ]);
    return {
      name,
      lun,
      session,
      naa: naaOf(wwid),
      size: (size ?? 0) * SECTOR,
      mark: [name, hctl, number, sequence].join(" "),
    };
  });
  return paths.filter((path) => path !== undefined);
}

/** What udev's link leads to: a map with the paths below it, or a single path. */
async function readLinked(
  files: HostFiles,
  link: string,
  paths: ReadonlyMap<string, Path>,
): Promise<
  | {
    readonly device: string;
    readonly naa: string | undefined;
    readonly size: number;
    readonly below: readonly Path[];
  }
  | undefined
> {
  const device = await place(files, link);
  if (device === undefined) return undefined;
  const path = paths.get(lastName(device));
  if (path !== undefined) return { device, naa: path.naa, size: path.size, below: [] };
  const sys = `/sys/block/${lastName(device)}`;
  const [uuid, size, slaves] = await Promise.all([
    attribute(files, `${sys}/dm/uuid`),
    numberAttribute(files, `${sys}/size`),
    entries(files, `${sys}/slaves`),
  ]);
  if (size === undefined) return undefined;
  return {
    device,
    naa: /^mpath-3([0-9a-f]{32})$/.exec(uuid ?? "")?.[1],
    size: size * SECTOR,
    below: slaves.flatMap((name) => paths.get(name) ?? []),
  };
}
