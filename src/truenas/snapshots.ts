/**
 * Snapshots of one zvol. On 25.x only two reads are cheap: the names of a dataset's snapshots
 * (`select: ["name"]`) and one snapshot by its id; every other filter walks all snapshots of the box.
 */
import * as v from "valibot";
import { type Caller, type Wait, WRITE_DEADLINE_MS } from "./caller.ts";
import { ArrayError, isAbsent } from "./errors.ts";
import { anything, bag, checked, read as readRows, rows, write } from "./request.ts";
import { numberOf, textOf, timeOf, userPropertiesOf } from "./value.ts";

/** A snapshot. */
export interface Snapshot {
  /** The part after `@`. */
  readonly name: string;
  /** Milliseconds since the epoch, whole seconds. */
  readonly createdMs: number;
  /** Sorts snapshots by age exactly; times have whole seconds only. */
  readonly createTxg: number;
  /** Decimal text. */
  readonly guid: string | undefined;
  /** Bytes that only this snapshot holds. */
  readonly used: number | undefined;
  /** Bytes: the zvol's size then. */
  readonly volsize: number | undefined;
  /** Paths of its clones; undefined where the release does not tell (26): ask `zvols.clones`. */
  readonly clones: readonly string[] | undefined;
  /** Tags that hold it. */
  readonly holds: readonly string[];
  readonly userProperties: Readonly<Record<string, string>>;
}

const nameRow = v.object({ name: v.string() });

const detailRow = v.object({
  name: v.string(),
  createtxg: v.optional(v.union([v.string(), v.number()])),
  properties: v.nullish(bag),
  user_properties: v.nullish(bag),
  holds: v.optional(v.unknown()),
});

const PROPERTIES = ["creation", "createtxg", "guid", "used", "volsize"];

function snapshotOf(row: v.InferOutput<typeof detailRow>): Snapshot {
  const properties = row.properties ?? {};
  const clones = textOf(properties["clones"]);
  return {
    name: afterAt(row.name),
    createdMs: timeOf(properties["creation"]) ?? 0,
    createTxg: numberOf(properties["createtxg"]) ?? Number(row.createtxg ?? 0),
    guid: textOf(properties["guid"]),
    used: numberOf(properties["used"]),
    volsize: numberOf(properties["volsize"]),
    clones: clones === undefined ? undefined : clones.split(",").filter((name) => name !== ""),
    holds: holdsOf(row.holds),
    // 25.x puts user properties among the others, 26 beside them.
    userProperties: { ...userPropertiesOf(properties), ...userPropertiesOf(row.user_properties) },
  };
}

/** 25.x: an object tag -> time; 26: a list of tags. */
function holdsOf(holds: unknown): string[] {
  if (Array.isArray(holds)) return holds.filter((tag) => typeof tag === "string");
  return typeof holds === "object" && holds !== null ? Object.keys(holds) : [];
}

function afterAt(name: string): string {
  return name.slice(name.indexOf("@") + 1);
}

/** The names of a zvol's snapshots, without the part before `@`; one cheap call. */
export async function names(caller: Caller, zvol: string, wait?: Wait): Promise<string[]> {
  const found = await readRows(
    caller,
    {
      method: `${caller.release.can.snapshots}.query`,
      params: [[["dataset", "=", zvol]], { select: ["name"] }],
      doing: `Cannot list the snapshots of zvol "${zvol}"`,
    },
    rows(nameRow),
    wait,
  );
  return found.map((row) => afterAt(row.name));
}

/** One snapshot with its clones (25.x) and holds, or undefined. */
export async function read(
  caller: Caller,
  zvol: string,
  name: string,
  wait?: Wait,
): Promise<Snapshot | undefined> {
  const doing = `Cannot read snapshot "${zvol}@${name}"`;
  if (caller.release.can.zfsResourceWrites) {
    return (await queryResources(caller, { paths: [`${zvol}@${name}`] }, doing, wait))[0];
  }
  const found = await readRows(
    caller,
    {
      method: `${caller.release.can.snapshots}.query`,
      params: [[["id", "=", `${zvol}@${name}`]], { extra: { holds: true } }],
      doing,
    },
    rows(detailRow),
    wait,
  );
  return found[0] === undefined ? undefined : snapshotOf(found[0]);
}

/**
 * All snapshots of a zvol with their details, oldest first. One call on 26; on 25.x one for the names and
 * one for each snapshot, eight at a time.
 */
export async function list(caller: Caller, zvol: string, wait?: Wait): Promise<Snapshot[]> {
  const doing = `Cannot list the snapshots of zvol "${zvol}"`;
  if (caller.release.can.zfsResourceWrites) {
    return byAge(await queryResources(caller, { paths: [zvol] }, doing, wait));
  }
  return await readEach(caller, zvol, await names(caller, zvol, wait), wait);
}

/**
 * The snapshots of a zvol that are newer than a transaction group, oldest first. On 25.x the names of
 * those alone come with one cheap call, and the details of each with another.
 */
export async function newerThan(
  caller: Caller,
  zvol: string,
  createTxg: number,
  wait?: Wait,
): Promise<Snapshot[]> {
  const doing = `Cannot list the newer snapshots of zvol "${zvol}"`;
  const min = { min_txg: createTxg + 1 };
  if (caller.release.can.zfsResourceWrites) {
    return byAge(await queryResources(caller, { paths: [zvol], ...min }, doing, wait));
  }
  const found = await readRows(
    caller,
    {
      method: `${caller.release.can.snapshots}.query`,
      params: [[["dataset", "=", zvol]], { select: ["name"], extra: min }],
      doing,
    },
    rows(nameRow),
    wait,
  );
  return await readEach(caller, zvol, found.map((row) => afterAt(row.name)), wait);
}

/** Asks `zfs.resource.snapshot.query` (26), which refuses a path that is not there. */
async function queryResources(
  caller: Caller,
  query: Readonly<Record<string, unknown>>,
  doing: string,
  wait: Wait | undefined,
): Promise<Snapshot[]> {
  const params = [{
    ...query,
    properties: PROPERTIES,
    get_user_properties: true,
    get_holds: true,
  }];
  try {
    const request = { method: "zfs.resource.snapshot.query", params, doing };
    return (await readRows(caller, request, rows(detailRow), wait)).map(snapshotOf);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

/** Snapshots whose details are read at once: as many as a session calls at once. */
const AT_ONCE = 8;

async function readEach(
  caller: Caller,
  zvol: string,
  wanted: readonly string[],
  wait: Wait | undefined,
): Promise<Snapshot[]> {
  const left = [...wanted];
  const found: Snapshot[] = [];
  const readSome = async () => {
    for (let name = left.shift(); name !== undefined; name = left.shift()) {
      const snapshot = await read(caller, zvol, name, wait);
      if (snapshot !== undefined) found.push(snapshot);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, readSome));
  return byAge(found);
}

function byAge(snapshots: readonly Snapshot[]): Snapshot[] {
  return [...snapshots].sort((a, b) => a.createTxg - b.createTxg);
}

/** Takes a snapshot. */
export async function create(
  caller: Caller,
  zvol: string,
  name: string,
  userProperties: Readonly<Record<string, string>> = {},
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: `${caller.release.can.snapshots}.create`,
      params: [{ dataset: zvol, name, properties: userProperties }],
      doing: `Cannot take snapshot "${zvol}@${name}"`,
    },
    bag,
    wait,
  );
}

/**
 * Deletes a snapshot; never its clones, and never "later".
 *
 * @throws ArrayError `has-dependents` when it has clones or holds, `not-found`.
 */
export async function remove(
  caller: Caller,
  zvol: string,
  name: string,
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: `${caller.release.can.snapshots}.delete`,
      params: [`${zvol}@${name}`, { defer: false, recursive: false }],
      doing: `Cannot delete snapshot "${zvol}@${name}"`,
    },
    anything,
    wait,
  );
}

const bulkRow = v.object({ error: v.nullish(v.string()) });

/**
 * Deletes several snapshots in one call (`core.bulk`), each as {@link remove} does. The request must
 * stay below 64 KiB: some 500 snapshots.
 *
 * @returns what was not deleted, with the array's words (no number comes with them).
 */
export async function removeSome(
  caller: Caller,
  zvol: string,
  snapshots: readonly string[],
  wait: Wait = {},
): Promise<{ readonly name: string; readonly error: string }[]> {
  if (snapshots.length === 0) return [];
  const request = {
    method: "core.bulk",
    params: [
      `${caller.release.can.snapshots}.delete`,
      snapshots.map((name) => [`${zvol}@${name}`, { defer: false, recursive: false }]),
    ],
    doing: `Cannot delete the snapshots of zvol "${zvol}"`,
  };
  const answer = await caller.callJob(request.method, request.params, {
    deadlineMs: WRITE_DEADLINE_MS,
    ...wait,
    lane: "write",
    doing: request.doing,
  });
  const results = checked(rows(bulkRow), answer, request);
  return snapshots.flatMap((name, index) => {
    const result = results[index];
    if (result === undefined) return [{ name, error: "the array did not say what became of it" }];
    // An empty text is a failure too; only null is success.
    return typeof result.error === "string" ? [{ name, error: result.error }] : [];
  });
}

/**
 * Makes a new zvol from a snapshot: thin, with the snapshot's size.
 *
 * @param properties raw ZFS names and texts, user properties included.
 */
export async function clone(
  caller: Caller,
  snapshot: string,
  newZvol: string,
  properties: Readonly<Record<string, string>> = {},
  wait?: Wait,
): Promise<void> {
  const request = {
    method: `${caller.release.can.snapshots}.clone`,
    params: [{ snapshot, dataset_dst: newZvol, dataset_properties: properties }],
    doing: `Cannot clone "${snapshot}" to zvol "${newZvol}"`,
  };
  await sayingRight(caller, () => write(caller, request, anything, wait));
}

/**
 * Rolls a zvol back to its newest snapshot; the array refuses when there are newer ones.
 *
 * @throws ArrayError `has-dependents` when a newer snapshot exists.
 */
export async function rollback(
  caller: Caller,
  zvol: string,
  name: string,
  wait?: Wait,
): Promise<void> {
  const request = {
    method: `${caller.release.can.snapshots}.rollback`,
    params: [`${zvol}@${name}`, {}],
    doing: `Cannot roll zvol "${zvol}" back to "${name}"`,
  };
  await sayingRight(caller, () => write(caller, request, anything, wait));
}

/**
 * Says which right is missing. 25.04 declares no role for these two methods
 * (`middlewared/plugins/zfs_/snapshot_actions.py`): only a full administrator may call them.
 */
async function sayingRight(caller: Caller, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ArrayError) || error.code !== "denied") throw error;
    const administrator = !caller.release.can.zfsResource;
    throw new ArrayError(
      "denied",
      `${error.message}: ${
        administrator
          ? `TrueNAS ${caller.release.text} allows this to full administrators only`
          : "the API key's user lacks the role SNAPSHOT_WRITE"
      }`,
      {
        outcome: error.outcome,
        cause: error,
        ...(error.errno === undefined ? {} : { errno: error.errno }),
        hint: administrator
          ? "Update TrueNAS to 25.10, where the role SNAPSHOT_WRITE is enough, or use the API key of a full administrator"
          : "Add SNAPSHOT_WRITE to the privilege of the API key's user: in TrueNAS, Credentials > Groups > Privileges",
      },
    );
  }
}
