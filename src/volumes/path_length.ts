/** How long the paths of what we make on the array may be: refused here, before anything is written. */
import { TnblockError } from "../common/error.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** `pool.dataset.create` takes no longer name; what is renamed is held to the same. */
const LONGEST_ZVOL = 200;

/** ZFS's own limit, for a snapshot's `<path>@<name>` as well (`ZFS_MAX_DATASET_NAME_LEN` less its NUL). */
const LONGEST_SNAPSHOT = 255;

/**
 * Refuses the name of a new volume that TrueNAS would not take below this storage's dataset. Those that we
 * choose ourselves always fit: `tnb-dataset` has 140 characters at most.
 *
 * @param zvol last component of its path.
 * @throws TnblockError `invalid`.
 */
export function refuseLongPath(storage: Storage, zvol: string): void {
  const path = zvolPath(storage, zvol);
  if (path.length <= LONGEST_ZVOL) return;
  throw new TnblockError(
    "invalid",
    `Cannot give a volume the name "${zvol}": "${path}" has ${path.length} characters, and TrueNAS takes ${LONGEST_ZVOL}`,
    { hint: "Use a shorter name, or keep the volumes in a dataset with a shorter path" },
  );
}

/**
 * Refuses the name of a new snapshot that ZFS would not take.
 *
 * @param path the zvol's full path.
 * @throws TnblockError `invalid`.
 */
export function refuseLongSnapshot(path: string, name: string): void {
  const whole = `${path}@${name}`;
  if (whole.length <= LONGEST_SNAPSHOT) return;
  throw new TnblockError(
    "invalid",
    `Cannot take the snapshot "${name}" of "${path}": its whole name has ${whole.length} characters, and ZFS takes ${LONGEST_SNAPSHOT}`,
    { field: "args.snapshot", hint: "Use a shorter name" },
  );
}
