/** What must hold before a volume may get another name: it is found as a whole, and nobody uses it. */
import { TnblockError } from "../common/error.ts";
import { sameTag, type VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { detachVolume, isSameDisk, letGoOfKnown, refuseUsers } from "./attachment.ts";
import { refuseRunningElsewhere } from "./guests.ts";
import { readKnownDisk } from "./known_disks.ts";
import { moveBack } from "./move.ts";
import { checkDataset, isOurs, renamedFrom, wasRenamedAs } from "./ownership.ts";
import { readingOf } from "./reading.ts";
import { requireKind, type ResolvedVolume, resolveVolume } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** A volume that is to get another name. */
export interface Movable {
  /** Its zvol has another path than its export when a rename of it stopped half-way. */
  readonly source: ResolvedVolume;
  /** The name that it goes by: the last component of the path that its export has. */
  readonly zvol: string;
  /**
   * Where it was found: under the name that was asked for; under it still, with its zvol at the next name
   * already; or under the next name, which is the one that it is to get.
   */
  readonly state: "there" | "half-way" | "renamed";
  readonly listing: zvols.Listing;
}

/**
 * Refuses a release that cannot rename.
 *
 * @throws TnblockError `unsupported`.
 */
export function requireRename(array: Caller, doing: string): void {
  if (array.release.can.rename) return;
  throw new TnblockError(
    "unsupported",
    `Cannot ${doing}: TrueNAS ${array.release.text} has no call that renames a zvol`,
    { hint: "Update TrueNAS to 25.10 or newer" },
  );
}

/**
 * Finds the volume that a name means, and touches nothing. A volume that was renamed is found by its former
 * name only for what asks for the very name that it got: a call is repeated then whose answer was lost. For
 * anything else that name is a stale one: the volume may be another guest's since.
 *
 * @param isWanted whether a name is the one that the volume is to get.
 * @throws TnblockError `volume-replaced` for a former name, and what {@link resolveVolume} throws.
 */
export async function findMovable(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  isWanted: (zvol: string) => boolean,
): Promise<Movable> {
  requireKind(storage, volume);
  const { settings, deadline } = storage;
  const [listing, found] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    resolveVolume(storage, array, volume).catch((error: unknown) => ({ error })),
  ]);
  checkDataset(storage, listing.parent);
  const path = zvolPath(storage, volume.zvol);
  if (!("error" in found)) {
    const state = found.zvol.name === path ? "there" : "half-way";
    return { source: found, zvol: volume.zvol, state, listing };
  }
  const { error } = found;
  const isGone = error instanceof TnblockError && error.code === "not-found" &&
    !listing.zvols.some((zvol) => zvol.name === path);
  const source = isGone ? await findRenamed(storage, array, listing, volume) : undefined;
  if (source === undefined) throw error;
  const zvol = nameOf(source);
  if (!isWanted(zvol)) throw renamedSince(volume, zvol);
  return { source, zvol, state: "renamed", listing };
}

/** The volume that had this name, number and identity before its last rename, which is complete. */
async function findRenamed(
  storage: Storage,
  array: Caller,
  listing: zvols.Listing,
  volume: VolumeRef,
): Promise<ResolvedVolume | undefined> {
  const from = zvolPath(storage, volume.zvol);
  for (const zvol of listing.zvols) {
    if (!isOurs(storage, zvol) || renamedFrom(zvol) !== from) continue;
    const now = await storage.transport.lookUp(array, zvol.name, storage.deadline);
    if (now.kind !== "ours" || !wasRenamedAs(zvol, now.export.identity)) continue;
    if (volume.tag !== undefined && !sameTag(volume.tag, tagOf(now.export.identity))) continue;
    return { zvol, export: now.export };
  }
  return undefined;
}

/** The last component of the path that the zvol has. */
function nameOf({ zvol }: ResolvedVolume): string {
  return zvol.name.slice(zvol.name.lastIndexOf("/") + 1);
}

/** For the former name of a volume. */
export function renamedSince(volume: VolumeRef, now: string): TnblockError {
  return new TnblockError(
    "volume-replaced",
    `Cannot use the volume "${volume.zvol}": it was renamed to "${now}"`,
    {
      hint:
        "The configuration is older than the rename: look which guest owns the disk before changing anything",
    },
  );
}

/**
 * Gives a volume whose rename stopped half-way its old name back, the one that its guest's configuration has:
 * what follows starts from a whole volume, and is undone to one. To be called when nobody uses it.
 */
export async function wholeAgain(
  storage: Storage,
  array: Caller,
  volume: VolumeRef,
  movable: Movable,
): Promise<Movable> {
  if (movable.state !== "half-way") return movable;
  storage.log.info(`the rename of "${volume.zvol}" stopped half-way: taking it back first`);
  storage.deadline.check();
  await moveBack(storage, array, movable.source);
  return await findMovable(storage, array, volume, () => false);
}

/**
 * Refuses while anybody is known to use the volume, by the name that was asked for or by the one that it has
 * now, then lets this node go of it.
 *
 * @param doing as in a message: `rename`.
 * @throws TnblockError `in-use` that names who.
 */
export async function refuseActive(
  storage: Storage,
  volume: VolumeRef,
  { source, listing }: Movable,
  doing: string,
): Promise<void> {
  refuseReaders(listing, source.zvol.name, doing);
  const { identity } = source.export;
  const now = { zvol: nameOf(source), tag: tagOf(identity) };
  const names = now.zvol === volume.zvol ? [volume] : [volume, now];
  for (const name of names) await refuseRunningElsewhere(storage, name, doing);
  await refuseUsers(storage, volume, identity);
  for (const { zvol } of names) {
    const own = { ...now, zvol };
    const known = await readKnownDisk(storage, zvol);
    if (known !== undefined && !isSameDisk(known.identity, identity)) {
      await letGoOfKnown(storage, own, known);
    }
    await detachVolume(storage, own, identity);
  }
}

/** Refuses while a node reads a snapshot of the volume: its clone is bound to the volume's name. */
function refuseReaders(listing: zvols.Listing, path: string, doing: string): void {
  const reading = clonesOf(listing, path).map(readingOf).find((one) => one !== undefined);
  if (reading === undefined) return;
  const { node, of } = reading;
  throw new TnblockError(
    "in-use",
    `Cannot ${doing} the volume "${path}": node ${node} reads its snapshot "${
      of.slice(of.indexOf("@") + 1)
    }"`,
    { hint: `Wait until the backup or copy on node ${node} has ended, then try again` },
  );
}

/** The linked clones of a volume that the storage's dataset holds; what nodes read snapshots by is none. */
export function linkedClones(listing: zvols.Listing, path: string): readonly zvols.Zvol[] {
  return clonesOf(listing, path).filter((clone) => readingOf(clone) === undefined);
}

function clonesOf(listing: zvols.Listing, path: string): readonly zvols.Zvol[] {
  return listing.zvols.filter((zvol) => zvol.origin?.startsWith(`${path}@`) ?? false);
}
