/** The parent dataset of a storage: its type, its space, its marks. */
import type { Caller, Wait } from "./caller.ts";
import { bag, write } from "./request.ts";
import * as zfsRows from "./zfs_rows.ts";

/** A dataset that may hold zvols. */
export interface Dataset {
  readonly name: string;
  readonly type: "FILESYSTEM" | "VOLUME";
  /** Bytes. */
  readonly available: number;
  /** Bytes. */
  readonly used: number;
  /** Those with a colon in their name; values may be inherited. */
  readonly userProperties: Readonly<Record<string, string>>;
}

/** A dataset, or undefined when there is none of that name. */
export async function read(
  caller: Caller,
  name: string,
  wait?: Wait,
): Promise<Dataset | undefined> {
  const row = await zfsRows.readOne(caller, name, `Cannot read dataset "${name}"`, wait);
  if (row === undefined) return undefined;
  return {
    name: row.name,
    type: row.type,
    available: row.available ?? 0,
    used: row.used ?? 0,
    userProperties: row.userProperties,
  };
}

/** Whether a dataset is encrypted and its key is not loaded; false on 25.04, which is not asked. */
export async function isLocked(caller: Caller, name: string, wait?: Wait): Promise<boolean> {
  return await zfsRows.isLocked(caller, name, `Cannot read the key status of "${name}"`, wait);
}

/**
 * Sets user properties of a dataset or zvol, and removes those whose value is undefined; others
 * stay. Names need a colon. One write, no reload.
 */
export async function setUserProperties(
  caller: Caller,
  name: string,
  properties: Readonly<Record<string, string | undefined>>,
  wait?: Wait,
): Promise<void> {
  const update = Object.entries(properties).map(([key, value]) =>
    value === undefined ? { key, remove: true } : { key, value }
  );
  await write(
    caller,
    {
      method: "pool.dataset.update",
      params: [name, { user_properties_update: update }],
      doing: `Cannot mark "${name}"`,
    },
    bag,
    wait,
  );
}
