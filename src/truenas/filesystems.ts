/** All datasets that might hold volumes: what a person chooses from. Walks the pools: for setup only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { bag, read, rows, write } from "./request.ts";
import { numberOf, userPropertiesOf } from "./value.ts";

/** A file system of a pool. */
export interface Filesystem {
  /** Full path; that of a pool has no slash. */
  readonly name: string;
  /** Bytes. */
  readonly available: number;
  readonly userProperties: Readonly<Record<string, string>>;
}

const row = v.looseObject({ id: v.string(), user_properties: v.nullish(bag) });

/** Every file system, pools included, in the order of their names; those that TrueNAS keeps for itself are left out. */
export async function all(caller: Caller, wait?: Wait): Promise<Filesystem[]> {
  const found = await read(
    caller,
    {
      method: "pool.dataset.query",
      params: [[["type", "=", "FILESYSTEM"]], {
        select: ["id", "user_properties", "available"],
        extra: { properties: ["available"] },
      }],
      doing: "Cannot list the datasets",
    },
    rows(row),
    wait,
  );
  return found
    .filter(({ id }) => !/\/(\.|ix-)/.test(id) && !/^(boot-pool|freenas-boot)(\/|$)/.test(id))
    .map((one) => ({
      name: one.id,
      available: numberOf(one["available"]) ?? 0,
      userProperties: userPropertiesOf(one.user_properties),
    }))
    .sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Makes an empty file system below one that is there. */
export async function create(caller: Caller, name: string, wait?: Wait): Promise<void> {
  await write(
    caller,
    {
      method: "pool.dataset.create",
      params: [{ name, type: "FILESYSTEM" }],
      doing: `Cannot make dataset "${name}"`,
    },
    bag,
    wait,
  );
}

/** Removes an empty file system; the array refuses one that holds anything. */
export async function remove(caller: Caller, name: string, wait?: Wait): Promise<void> {
  await write(
    caller,
    {
      method: "pool.dataset.delete",
      params: [name, { recursive: false, force: false }],
      doing: `Cannot remove dataset "${name}"`,
    },
    v.unknown(),
    wait,
  );
}
