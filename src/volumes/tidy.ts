/**
 * Setting right what this node holds of a volume: a link that leads elsewhere, paths that came back, and what is
 * left of a volume that is gone. Each is one step, under the locks of the verbs, and is left out while another
 * operation on the volume is under way. What memory says is a reason to look, never to act.
 */
import { TnblockError } from "../common/error.ts";
import { removeLink } from "../host/links.ts";
import { tagOf } from "../transport/transport.ts";
import type { DiskIdentity, ExportLookup } from "../transport/transport.ts";
import {
  type Held,
  identityAt,
  ifVolumeIsFree,
  inWords,
  isSameDisk,
  letGoOfKnown,
  linkedIdentity,
  linkOf,
  withDiskLock,
} from "./attachment.ts";
import { readKnownDisk } from "./known_disks.ts";
import { look } from "./look.ts";
import { onceUnused } from "./once_unused.ts";
import type { Storage } from "./storage.ts";
import { attachableOf } from "./tidy_look.ts";

/** What a fresh look says of a disk that this node holds under a name. */
export type Fate = "there" | "gone" | "unsure";

/**
 * Decides whether the disk is still that of the name. A zvol without export, or with one that is switched off, is
 * one that somebody works on: nothing is concluded from it.
 *
 * @param hasZvol whether the zvol is there, by its name or by the path of a rename that stopped half-way.
 */
export function decideFate(identity: DiskIdentity, hasZvol: boolean, found: ExportLookup): Fate {
  if (found.kind === "ours") {
    if (isSameDisk(found.export.identity, identity)) return "there";
    return found.export.enabled ? "gone" : "unsure";
  }
  return !hasZvol && found.kind === "none" ? "gone" : "unsure";
}

/** How long what waited for a disk that is gone may take to fail and close it, in ms. */
const GIVE_UP_MS = 3_000;

/** Programs that run guests: what they have open is never taken from under them. */
const GUESTS = /^(?:kvm|qemu\S*|swtpm) \(process \d+\)$/;
const PROCESS = / \(process \d+\)$/;

/**
 * Whether all users are programs that merely look into disks (`vgs` of a storage scan), and can be made to end by
 * letting what they wait for fail.
 *
 * @param users as `Transport.users` tells them.
 */
export function areOnlookers(users: readonly string[]): boolean {
  return users.length > 0 && users.every((user) => PROCESS.test(user) && !GUESTS.test(user));
}

/**
 * Lets go of a disk whose volume the array has no longer, or has another disk for; looks first.
 *
 * @returns what the look said; undefined while another operation on the volume is under way.
 * @throws TnblockError `in-use` while it is used: nothing was touched; what the look throws.
 */
export async function letGoOfGone(storage: Storage, name: string): Promise<Fate | undefined> {
  const place = attachableOf(name);
  return await ifVolumeIsFree(storage, name, async () => {
    const known = await readKnownDisk(storage, name);
    const linked = await linkedIdentity(storage, place);
    const held = known ?? (linked && { tag: tagOf(linked), identity: linked });
    if (held === undefined) return "there";
    const { zvol, found } = await look(storage, await storage.array(), name, storage.deadline);
    const fate = decideFate(held.identity, zvol !== undefined, found);
    if (fate === "gone") await letGoOfDead(storage, name, held);
    return fate;
  });
}

async function letGoOfDead(storage: Storage, name: string, held: Held): Promise<void> {
  const place = attachableOf(name);
  try {
    return await letGoOfKnown(storage, place, held);
  } catch (error) {
    if (!(error instanceof TnblockError) || error.code !== "in-use") throw error;
    // A guest is not told that its disk is gone: it may be there again, from a backup, before it notices.
    if (!areOnlookers(await storage.transport.users(held.identity))) throw error;
    if (!await storage.transport.failWaiting(held.identity, storage.deadline)) throw error;
    storage.log.warning(`the array has the disk of "${name}" no longer: what waits for it fails`);
    await onceUnused(storage, GIVE_UP_MS, () => letGoOfKnown(storage, place, held));
  }
}

/** What a check of a link came to. */
export interface LinkCheck {
  /** Why the link was removed, as the end of a sentence; undefined when it is right or nobody can tell. */
  readonly wrong?: string;
}

/**
 * Compares where a link leads with the disk that it is for, asking the disk itself, and removes a link that leads
 * elsewhere; it is never pointed at what might be right.
 *
 * @returns undefined while another operation on the volume is under way.
 */
export async function checkLink(
  storage: Storage,
  name: string,
): Promise<LinkCheck | undefined> {
  const place = attachableOf(name);
  return await ifVolumeIsFree(storage, name, async () => {
    const link = linkOf(storage, place);
    const linked = await identityAt(storage, link);
    const known = await readKnownDisk(storage, name);
    const wrong = linked === undefined
      ? "it names no disk"
      : known !== undefined && !isSameDisk(known.identity, linked)
      ? `it is for another disk, ${idOf(linked)}`
      : await strangerAt(storage, known?.identity ?? linked);
    if (wrong === undefined || !await removeLink(storage.host, link)) return {};
    return { wrong };
  });
}

async function strangerAt(
  storage: Storage,
  identity: DiskIdentity,
): Promise<string | undefined> {
  const { transport, deadline } = storage;
  // What the kernel remembers of a path is read anew by it.
  await transport.attached(identity, { atLeast: 0 }, false, deadline);
  const [disk] = (await transport.glance([identity])).disks;
  return disk === undefined || disk.strangers.length === 0
    ? undefined
    : `it leads to ${[...new Set(disk.strangers)].join(", ")} and not to ${idOf(identity)}`;
}

/**
 * Adds paths that came back to a disk, also one that is in use.
 *
 * @returns how many paths it has now; undefined when there was nothing to do.
 * @throws TnblockError `unreachable` when it still lacks one.
 */
export async function mendPaths(storage: Storage, name: string): Promise<number | undefined> {
  const { transport, deadline } = storage;
  const place = attachableOf(name);
  return await ifVolumeIsFree(storage, name, async () => {
    const known = await readKnownDisk(storage, name);
    if (known === undefined) return undefined;
    const { identity } = known;
    return await withDiskLock(storage, identity, deadline, async () => {
      const [before] = (await transport.glance([identity])).disks;
      if (before === undefined || before.lost === 0 || before.size === 0) return undefined;
      const attached = await transport.attach(identity, { atLeast: before.size }, deadline);
      const [after] = (await transport.glance([identity])).disks;
      if ((after?.lost ?? 0) === 0) return attached.paths;
      throw new TnblockError(
        "unreachable",
        `Cannot add the paths that came back to ${inWords(place)}: ${after?.lost} still lack`,
        { hint: "Look at: iscsiadm -m session, multipathd show paths" },
      );
    });
  });
}

function idOf(identity: DiskIdentity): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}
