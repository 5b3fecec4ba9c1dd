/** Giving a volume another name, as a rule that of another guest; number or uuid and content stay. */
import { TnblockError } from "../common/error.ts";
import type { ExportTag, VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { withVolumeLock } from "./attachment.ts";
import { refuseDoomed } from "./doomed_names.ts";
import { isNamedByGuest } from "./guests.ts";
import type { Details } from "./journal.ts";
import { journaled, madeOf, supersede } from "./journaled.ts";
import { NameTaken } from "./make_exported.ts";
import {
  findMovable,
  linkedClones,
  type Movable,
  refuseActive,
  renamedSince,
  requireRename,
  wholeAgain,
} from "./movable.ts";
import { moveVolume } from "./move.ts";
import { isOfOperation, isOurs, isRenameBegun, marksBefore, takenPaths } from "./ownership.ts";
import { refuseLongPath } from "./path_length.ts";
import type { ResolvedVolume } from "./resolve.ts";
import { type OnFailure, type Storage, undoing, zvolPath } from "./storage.ts";
import { asArrayTold, tryNames } from "./try_names.ts";

/** The new name, or its beginning, which gets the first free number from 0 to 999. */
export type NewName = { readonly name: string } | { readonly prefix: string };

/** A volume under its new name. */
export interface RenamedVolume {
  readonly zvol: string;
  readonly tag: ExportTag;
  /** What {@link takeBackRename} needs; undefined when the volume had the name already. */
  readonly change: RenameChange | undefined;
}

/** What a rename did. */
export interface RenameChange {
  /** Last component of the path before. */
  readonly from: string;
  readonly operation: string;
}

/**
 * Renames a volume. Refused while anybody is known to use it, and for a base while it has linked clones,
 * whose names in PVE's configurations hold the base's.
 *
 * @throws TnblockError `in-use`, `has-dependents`, `exists`, `invalid` (too long), `unsupported` (25.04):
 *   nothing was touched.
 */
export async function renameVolume(
  storage: Storage,
  volume: VolumeRef,
  wanted: NewName,
): Promise<RenamedVolume> {
  const array = await storage.array();
  requireRename(array, `rename the volume "${volume.zvol}"`);
  return await withVolumeLock(storage, volume.zvol, async () => {
    const isWanted = (zvol: string) =>
      "name" in wanted ? zvol === wanted.name : zvol.startsWith(wanted.prefix);
    const found = await findMovable(storage, array, volume, isWanted);
    const asItIs = ({ zvol, source }: Movable) => ({
      zvol,
      tag: tagOf(source.export.identity),
      change: undefined,
    });
    if (found.state === "renamed") {
      await refuseGivenOut(storage, volume, found);
      await supersede(storage, volume.zvol, ["rename"]);
      return asItIs(found);
    }
    const hasName = "name" in wanted && found.zvol === wanted.name;
    if (hasName && found.state === "there") return asItIs(found);
    if ("name" in wanted) {
      refuseLongPath(storage, wanted.name);
      refuseTaken(storage, found, wanted.name);
      if (!hasName) await refuseDoomed(storage, wanted.name, "rename the volume to");
    }
    refuseClones(found);
    await refuseActive(storage, volume, found, "rename");
    const movable = await wholeAgain(storage, array, volume, found);
    if (hasName) return asItIs(movable);
    storage.deadline.check();
    const move = (name: string) => moveTo(storage, array, movable, name);
    return "name" in wanted
      ? await move(wanted.name).catch(asArrayTold)
      : await tryNames(storage, wanted.prefix, takenByOthers(storage, movable), move);
  });
}

/**
 * Refuses the former name of a volume whose present one a guest has already: the call is no repetition then,
 * but made by a configuration that is older than the rename, and the guest would get its disk twice.
 */
async function refuseGivenOut(
  storage: Storage,
  volume: VolumeRef,
  { zvol, source }: Movable,
): Promise<void> {
  const now = { zvol, tag: tagOf(source.export.identity) };
  if (await isNamedByGuest(storage, now)) throw renamedSince(volume, zvol);
}

/**
 * Moves a volume to a name that is free on the array, or gives it its old name back.
 *
 * @param andThen what belongs to the same operation: done, and undone, with the rename.
 * @throws NameTaken when the name is taken: by a zvol, or by the export of one that is gone.
 */
export async function moveTo(
  storage: Storage,
  array: Caller,
  { source, zvol }: Movable,
  name: string,
  andThen: (operation: string, onFailure: OnFailure) => Promise<void> = () => Promise.resolve(),
  kind: RenameKind = "rename",
): Promise<RenamedVolume & { readonly change: RenameChange }> {
  const to = zvolPath(storage, name);
  if ((await storage.transport.lookUp(array, to, storage.deadline)).kind !== "none") {
    throw new NameTaken("taken", {
      cause: new TnblockError(
        "exists",
        `Cannot rename "${source.zvol.name}" to "${name}": an extent or namespace of that name is left on the array`,
        { hint: "Look at it in TrueNAS, then run tnblock cleanup-orphans" },
      ),
    });
  }
  const operation = storage.host.randomUuid();
  return await journaled(storage, async (storage, entry) => {
    await entry.begin(name, detailsOf(kind, source, zvol, operation));
    return await undoing(storage, async (onFailure) => {
      const now = await moveVolume(storage, array, { source, to, operation }, onFailure);
      await andThen(operation, onFailure);
      // Nobody waits for the answer any more: PVE's configuration keeps the old name.
      storage.deadline.check();
      return { zvol: name, tag: tagOf(now.identity), change: { from: zvol, operation } };
    });
  });
}

/** What a rename is part of; one that takes another one back is finished when it is stopped. */
type RenameKind = "rename" | "create_base" | "back";

/** What the journal keeps of a rename. */
function detailsOf(
  kind: RenameKind,
  source: ResolvedVolume,
  from: string,
  operation: string,
): Details {
  const marks = Object.entries(marksBefore(source.zvol)).map(([key, value]) => [
    key,
    value ?? null,
  ]);
  return {
    op: kind === "create_base" ? kind : "rename",
    back: kind === "back",
    operation,
    made: madeOf(source.zvol),
    from,
    marks: Object.fromEntries(marks),
    // Off while a rename has begun: that one switched it off.
    enabled: source.export.enabled || isRenameBegun(source.zvol),
  };
}

/**
 * Gives a volume its old name back, when nobody heard of the new one; a volume that was changed since
 * stays.
 *
 * @param before what goes first.
 */
export async function takeBackRename(
  storage: Storage,
  made: { readonly zvol: string; readonly tag: ExportTag; readonly change: RenameChange },
  before: (path: string) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const array = await storage.array();
  await withVolumeLock(storage, made.zvol, async () => {
    const movable = await findMovable(storage, array, made, () => true);
    if (movable.state !== "there") return;
    if (!isOfOperation(movable.source.zvol, made.change.operation)) return;
    refuseTaken(storage, movable, made.change.from);
    refuseClones(movable);
    await refuseActive(storage, made, movable, "rename");
    await before(movable.source.zvol.name);
    await moveTo(storage, array, movable, made.change.from, undefined, "back").catch(asArrayTold);
  });
}

/** Full paths that are no new name; the one that the volume itself had before is. */
function takenByOthers(storage: Storage, { listing, source }: Movable): ReadonlySet<string> {
  const zvols = listing.zvols.filter((zvol) => zvol.name !== source.zvol.name);
  return takenPaths(storage, { ...listing, zvols }).add(source.zvol.name);
}

/** Refuses a name that something in the dataset has. */
export function refuseTaken(storage: Storage, movable: Movable, name: string): void {
  const path = zvolPath(storage, name);
  const { listing } = movable;
  // A rename that stopped half-way has brought the volume itself there.
  if (movable.source.zvol.name === path) return;
  const other = listing.zvols.find((zvol) => zvol.name === path);
  if (other === undefined && !listing.filesystems.includes(path)) return;
  if (other !== undefined && isOurs(storage, other)) {
    throw new TnblockError(
      "exists",
      `Cannot rename the volume "${movable.zvol}": "${name}" exists already`,
    );
  }
  throw new TnblockError(
    "not-ours",
    `Cannot rename the volume "${movable.zvol}": "${path}" is on the array, but carries no mark of this storage`,
    { hint: "Rename or delete it in TrueNAS if nobody needs it; tnblock leaves it alone" },
  );
}

/** Refuses a base with linked clones: `<base>/<clone>` in the configurations would not be found any more. */
function refuseClones({ source, zvol, listing }: Movable): void {
  if (!zvol.startsWith("base-")) return;
  const clones = linkedClones(listing, source.zvol.name);
  if (clones.length === 0) return;
  const names = clones.slice(0, 10).map((clone) =>
    clone.name.slice(listing.parent.name.length + 1)
  );
  const more = clones.length > 10 ? ` and ${clones.length - 10} more` : "";
  throw new TnblockError(
    "has-dependents",
    `Cannot rename the base "${zvol}": it has the linked clones ${names.join(", ")}${more}`,
    { hint: "Move the clones' disks to full copies, or delete them, first" },
  );
}
