/** Methods about snapshots: take, delete, roll back, list. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { deleteSnapshot } from "../../volumes/delete_snapshot.ts";
import { rollBack } from "../../volumes/rollback.ts";
import { rollbackPossible } from "../../volumes/rollback_possible.ts";
import { takeBackSnapshot, takeSnapshot } from "../../volumes/snapshot.ts";
import { snapshotInfo } from "../../volumes/snapshot_info.ts";
import type { Storage } from "../../volumes/storage.ts";
import { parseVolumeName } from "../volume_name.ts";
import { type Method, parseArgs, Revocable, snapshotName, volname } from "./method.ts";

const volumeArgs = v.object({ volname });
const snapshotArgs = v.object({ volname, snapshot: snapshotName });

/**
 * What PVE takes snapshots by: its users' names (`pve-snapshot-name`, `vzdump` too), those of its storage
 * migration and replication (`PVE/Storage.pm`, `PVE/ReplicationState.pm`). All others are ours or TrueNAS's:
 * `__base__` makes a base.
 */
const PVE_SNAPSHOT = /^(?:[A-Za-z][A-Za-z0-9_-]*|__migration__|__replicate_[A-Za-z0-9_-]+)$/;

/** PVE's words for a guest as it is now, and for changes that wait (`PVE/API2/Qemu.pm`). */
const NO_SNAPSHOT = /^(?:current|pending)$/i;

async function volumeSnapshot(storage: Storage, args: unknown): Promise<Revocable> {
  const { volname, snapshot } = parseArgs(snapshotArgs, args);
  const volume = parseVolumeName(volname);
  if (!PVE_SNAPSHOT.test(snapshot) || NO_SNAPSHOT.test(snapshot)) {
    throw new TnblockError(
      "invalid",
      `Cannot take the snapshot "${snapshot}" of the volume "${volume.zvol}": Proxmox VE gives that name to none`,
      {
        field: "args.snapshot",
        hint: "Use letters, digits, _ and -, a letter first; current and pending are reserved",
      },
    );
  }
  const taken = await takeSnapshot(storage, volume, snapshot);
  return new Revocable(null, async ({ within }) => {
    await takeBackSnapshot(within, taken);
  });
}

async function volumeRollbackIsPossible(storage: Storage, args: unknown): Promise<unknown> {
  const { volname, snapshot } = parseArgs(snapshotArgs, args);
  const answer = await rollbackPossible(storage, parseVolumeName(volname), snapshot);
  return { ...answer, blockers: answer.blockers.filter(isSayable) };
}

async function volumeSnapshotInfo(storage: Storage, args: unknown): Promise<unknown> {
  const { volname } = parseArgs(volumeArgs, args);
  const found = await snapshotInfo(storage, parseVolumeName(volname));
  return Object.fromEntries(
    found.filter(({ name }) => isSayable(name))
      .map(({ name, id, timestamp }) => [name, { id, timestamp }]),
  );
}

/** ZFS takes names that PVE has no words for; PVE could do nothing with them. */
function isSayable(name: string): boolean {
  return v.is(snapshotName, name);
}

export const SNAPSHOT_METHODS: Readonly<Record<string, Method>> = {
  volume_snapshot: volumeSnapshot,
  volume_snapshot_delete: (storage, args) => {
    const { volname, snapshot } = parseArgs(snapshotArgs, args);
    return deleteSnapshot(storage, parseVolumeName(volname), snapshot);
  },
  volume_snapshot_rollback: (storage, args) => {
    const { volname, snapshot } = parseArgs(snapshotArgs, args);
    return rollBack(storage, parseVolumeName(volname), snapshot);
  },
  volume_rollback_is_possible: volumeRollbackIsPossible,
  volume_snapshot_info: volumeSnapshotInfo,
};
