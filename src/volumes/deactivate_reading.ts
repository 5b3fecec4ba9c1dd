/** Letting a node go of a snapshot that it read: the disk here, then export and clone on the array. */
import { type ErrorCode, TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { attachName, withVolumeLock } from "./attachment.ts";
import { look } from "./look.ts";
import { ownReading } from "./own_reading.ts";
import { readingName } from "./reading.ts";
import { letGoOfReading, removeReading } from "./remove_reading.ts";
import { requireKind, requireTag } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** What says that the array could not be asked, not that it said no. */
const API_AWAY: readonly ErrorCode[] = ["unreachable", "rate-limited", "timeout"];

/**
 * Removes link, paths, export and clone of a snapshot that this node read; what is not there is fine.
 * With the API away the clone stays, with a warning: the next activation finds it, and deleting the
 * snapshot or the volume removes it.
 *
 * @param isWanted asked under the lock, before anything is done: whether it is to stay after all.
 * @throws TnblockError `in-use` while a process or a mount of this node uses it, `volume-replaced` when the
 *   name means another volume than today's.
 */
export async function deactivateReading(
  storage: Storage,
  volume: VolumeRef,
  snapshot: string,
  isWanted: () => Promise<boolean> = () => Promise.resolve(false),
): Promise<null> {
  const read = { zvol: volume.zvol, snapshot };
  return await withVolumeLock(storage, attachName({ ...read, tag: volume.tag }), async () => {
    if (await isWanted()) return null;
    const asked = await askArray(storage, volume, read);
    await letGoOfReading(storage, undefined, read, undefined, storage.deadline);
    if (asked === undefined) return null;
    const { array, clone } = asked;
    if (clone === undefined) return null;
    try {
      storage.deadline.check();
      await removeReading(storage, array, clone, storage.undoDeadline());
    } catch (error) {
      stays(storage, read, error);
    }
    return null;
  });
}

/**
 * This node's clone of the snapshot; undefined when the array cannot say, so that the node lets go alone.
 *
 * @throws TnblockError `volume-replaced` for the name of a volume that is not today's: today's clone is none
 *   of its.
 */
async function askArray(
  storage: Storage,
  volume: VolumeRef,
  read: { readonly zvol: string; readonly snapshot: string },
): Promise<{ readonly array: Caller; readonly clone: zvols.Zvol | undefined } | undefined> {
  requireKind(storage, volume);
  try {
    const array = await storage.array();
    const name = zvolPath(storage, readingName(storage, read.zvol, read.snapshot));
    const [{ zvol, found }, clone] = await Promise.all([
      look(storage, array, volume.zvol, storage.deadline),
      zvols.read(array, name, storage.deadline.bounds()),
    ]);
    if (found.kind === "ours") requireTag(volume, found.export);
    const of = `${zvol?.name ?? zvolPath(storage, read.zvol)}@${read.snapshot}`;
    const isOwn = clone !== undefined &&
      ownReading(storage, array, clone, { ...read, of }) !== undefined;
    return { array, clone: isOwn ? clone : undefined };
  } catch (error) {
    stays(storage, read, error);
    return undefined;
  }
}

/** With the API away the clone stays; any other failure is one. */
function stays(
  storage: Storage,
  { zvol, snapshot }: { readonly zvol: string; readonly snapshot: string },
  error: unknown,
): void {
  if (!(error instanceof TnblockError) || !API_AWAY.includes(error.code)) throw error;
  const name = zvolPath(storage, readingName(storage, zvol, snapshot));
  storage.log.warning(`the clone "${name}" stays on the array for now: ${error.message}`);
}
