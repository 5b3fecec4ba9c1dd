/**
 * Making a volume a block device on this node: find the disk by its identity, verify it live, link
 * it, and verify what the link reaches. Idempotent: what is right already is left as it is, what has
 * the wrong size or lost its link is repaired.
 */
import { type ErrorCode, TnblockError, withContext } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { ensureLink, linkPath, readLinkTarget } from "../host/links.ts";
import { type AttachedDisk, tagOf } from "../transport/transport.ts";
import { detachVolume, isMeant, otherDiskActive, withVolumeLock } from "./attachment.ts";
import { type KnownDisk, readKnownDisk, writeKnownDisk } from "./known_disks.ts";
import { resolveVolume } from "./resolve.ts";
import type { Storage } from "./storage.ts";

/** What says that the array could not be asked, not that it said no. */
const API_AWAY: readonly ErrorCode[] = ["unreachable", "rate-limited", "timeout"];

/** Activates a volume. */
export async function activate(storage: Storage, volume: VolumeRef): Promise<null> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const before = await readKnownDisk(storage, volume.zvol);
    const known = before !== undefined && isMeant(volume, before) ? before : undefined;
    if (known !== undefined && await isActive(storage, volume, known)) return null;
    // Connecting and asking the array do not need each other.
    const [disk] = await Promise.all([
      currentDisk(storage, volume, known),
      storage.transport.connect(storage.deadline),
    ]);
    // The array says that the name means today's disk: what this node held under it before goes.
    if (before !== undefined && known === undefined) await letGoOfOlder(storage, volume, before);
    // Before the paths: whoever cleans up after a failure must know what may be attached.
    await writeKnownDisk(storage, volume.zvol, disk);
    const attached = await storage.transport.attach(disk.identity, disk.size, storage.deadline);
    await linkDisk(storage, volume, disk, attached);
    storage.log.info(
      `"${volume.zvol}" is ${attached.device}, ${attached.paths} path${
        attached.paths === 1 ? "" : "s"
      }, ` +
        `found at attempt ${attached.attempts} after ${attached.ms} ms`,
    );
    return null;
  });
}

/** Lets go of the disk that this node knew under the name; refuses while it is used. */
async function letGoOfOlder(
  storage: Storage,
  volume: VolumeRef,
  older: KnownDisk,
): Promise<void> {
  const users = await storage.transport.users(older.identity);
  if (users.length > 0) throw otherDiskActive(volume);
  await detachVolume(storage, volume, older.identity);
}

/** Whether link, disk, live identity and size are all as they were last verified: no array call then. */
async function isActive(storage: Storage, volume: VolumeRef, known: KnownDisk): Promise<boolean> {
  const target = await readLinkTarget(storage.host, linkPath(storage.settings.id, volume.zvol));
  if (target === undefined) return false;
  const disk = await storage.transport.attached(known.identity, known.size, true, storage.deadline);
  return disk !== undefined && disk.link === target;
}

/** The volume's disk as the array has it now; with the API away, as this node last verified it. */
async function currentDisk(
  storage: Storage,
  volume: VolumeRef,
  known: KnownDisk | undefined,
): Promise<KnownDisk> {
  try {
    const found = await resolveVolume(storage, await storage.array(), volume);
    if (!found.export.enabled) {
      throw new TnblockError(
        "config",
        `Cannot attach the volume "${volume.zvol}": its export is switched off on the array`,
        {
          hint: "Switch the extent or namespace on again in TrueNAS",
        },
      );
    }
    const { identity } = found.export;
    return { tag: tagOf(identity), identity, size: found.zvol.volsize };
  } catch (error) {
    const away = error instanceof TnblockError && API_AWAY.includes(error.code) &&
      storage.deadline.leftMs() > 0;
    if (known === undefined || !away) throw error;
    storage.log.warning(
      `the API does not answer (${error.message}); using the identity of "${volume.zvol}" that was last verified here`,
    );
    return known;
  }
}

/** Links the disk, then looks once more at what the link reaches. */
async function linkDisk(
  storage: Storage,
  volume: VolumeRef,
  disk: KnownDisk,
  attached: AttachedDisk,
): Promise<void> {
  const link = linkPath(storage.settings.id, volume.zvol);
  await ensureLink(storage.host, link, attached.link);
  const { files } = storage.host;
  const [again, reached, expected] = await Promise.all([
    storage.transport.attached(disk.identity, disk.size, false, storage.deadline),
    files.status(link),
    files.status(attached.device),
  ]);
  // The link leads through a view of /dev of its own: compare what is reached, not how.
  const same = reached?.kind === "block" && reached.device === expected?.device &&
    reached.inode === expected?.inode;
  if (same && again?.device === attached.device) return;
  throw withContext(
    new TnblockError(
      "host-fault",
      `the disk changed from ${attached.device} to ${
        again?.device ?? "none"
      } while it was being linked`,
    ),
    `Cannot attach the volume "${volume.zvol}"`,
  );
}
