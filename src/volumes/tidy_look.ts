/** What a node holds of a storage's volumes, by one cheap look: sysfs, links and what is kept; nobody is asked. */
import { deviceOfDev, parseLockedInodes } from "../host/in_use.ts";
import type { Host } from "../host/host.ts";
import { LINK_FOLDER } from "../host/links.ts";
import type { DiskGlance, DiskIdentity } from "../transport/transport.ts";
import { type Attachable, identityAt } from "./attachment.ts";
import { type KnownDisk, knownNames, readKnownDisk } from "./known_disks.ts";
import type { Storage } from "./storage.ts";

/** What is here under one name. */
export interface HeldHere {
  /** As `attachName` says: `vm-100-disk-0`, or `vm-100-disk-0@before`. */
  readonly name: string;
  readonly known: KnownDisk | undefined;
  readonly isLinked: boolean;
  /** The identity that its link names; undefined without a link, and for a link that names none. */
  readonly linked: DiskIdentity | undefined;
  /** The disk that is known, or else linked; undefined when it is not on this node. */
  readonly disk: DiskGlance | undefined;
  /**
   * Whether there is something that deactivating takes away. A namespace stays visible; what is kept of a volume
   * for when the API is away stays too.
   */
  readonly isAttached: boolean;
  /** Whether a glance shows that somebody uses it; false does not mean that nobody does. */
  readonly seemsUsed: boolean;
}

/** What a look around shows. */
export interface Around {
  /** All names under which this node holds something of the storage. */
  readonly held: readonly HeldHere[];
  /** Disks of the target with paths here that this node holds under no name. */
  readonly strays: readonly DiskIdentity[];
}

/** All names under which this node holds something of the storage. */
export async function lookAround(storage: Storage): Promise<readonly HeldHere[]> {
  return (await lookEverywhere(storage)).held;
}

/** The same, with what it holds under no name. */
export async function lookEverywhere(storage: Storage): Promise<Around> {
  const { host, settings, transport } = storage;
  const folder = `${LINK_FOLDER}/${settings.id}`;
  const [links, known] = await Promise.all([host.files.list(folder), knownNames(storage)]);
  const linkNames = new Set(links ?? []);
  const names = [...new Set([...linkNames, ...known])].sort();
  const found = await Promise.all(names.map(async (name) => {
    const [kept, linked] = await Promise.all([
      readKnownDisk(storage, name),
      linkNames.has(name) ? identityAt(storage, `${folder}/${name}`) : undefined,
    ]);
    return { name, known: kept, isLinked: linkNames.has(name), linked };
  }));
  const looked = found.flatMap((one) => {
    const identity = one.known?.identity ?? one.linked;
    return identity === undefined ? [] : [{ name: one.name, identity }];
  });
  const { disks, strays } = await transport.glance(looked.map(({ identity }) => identity));
  const byName = new Map(looked.map(({ name }, index) => [name, disks[index]]));
  const isUsed = await usesByGlance(host);
  const held = await Promise.all(found.map(async (one) => {
    const disk = byName.get(one.name);
    return {
      ...one,
      disk,
      isAttached: one.isLinked || (transport.kind === "iscsi" && disk !== undefined),
      seemsUsed: disk !== undefined && await isUsed(disk),
    };
  }));
  return { held, strays };
}

/** The volume or snapshot that a name stands for. */
export function attachableOf(name: string): Attachable {
  const at = name.indexOf("@");
  if (at < 0) return { zvol: name, tag: undefined };
  return { zvol: name.slice(0, at), tag: undefined, snapshot: name.slice(at + 1) };
}

/** Tells what virtual machines have locked and what is mounted here, from two files for all disks. */
async function usesByGlance(host: Host): Promise<(disk: DiskGlance) => Promise<boolean>> {
  const [locks = "", mounts = ""] = await Promise.all([
    host.files.readText("/proc/locks"),
    host.files.readText("/proc/self/mountinfo"),
  ]);
  const locked = parseLockedInodes(locks, deviceOfDev(mounts));
  const mounted = new Set(mounts.split("\n").map((line) => line.split(" ")[2]));
  return async ({ device }) => {
    const status = device === undefined ? undefined : await host.files.status(device);
    return status !== undefined &&
      (locked.has(status.inode) || (status.device !== undefined && mounted.has(status.device)));
  };
}
