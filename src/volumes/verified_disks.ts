/**
 * What the array last said of each volume that was used on this node. It outlives what `known_disks.ts` keeps of a
 * disk that is attached: this node may let go of the disk, and be started anew, and yet know it when the API is away
 * (design decision 17). It is a reason to look for a disk, never to destroy or export anything, and nobody asks it
 * while the array answers (`without_array.ts`).
 */
import * as v from "valibot";
import type { Host } from "../host/host.ts";
import { tagOf, type VolumeExport } from "../transport/transport.ts";
import type { Zvol } from "../truenas/zvols.ts";
import { type ArrayPlace, arrayPlace, isSameArray } from "./array_place.ts";
import { type KnownDisk, knownDiskEntries, readKnownDisk } from "./known_disks.ts";
import type { StorageMemory } from "./memory.ts";
import type { Storage } from "./storage.ts";

/** The version of the files; others are ignored. */
const VERSION = 1;

const placeSchema = v.object({
  cluster: v.string(),
  hosts: v.array(v.string()),
  port: v.number(),
  target: v.string(),
  dataset: v.string(),
});

const schema = v.object({
  version: v.literal(VERSION),
  ...knownDiskEntries,
  /** Where it was said, so that another array's disk of the same name is none. */
  place: placeSchema,
  /** What tells the zvol from a later one of its name; for people, no disk shows it. */
  guid: v.optional(v.string()),
  createdMs: v.number(),
  /** When the array said so, in milliseconds since the epoch. */
  toldMs: v.number(),
});

/** What the array said, where and when. */
export type VerifiedDisk = v.InferOutput<typeof schema>;

/** What the array says of a volume at this moment. */
export interface Told {
  readonly zvol: Pick<Zvol, "volsize" | "guid" | "createdMs">;
  readonly export: Pick<VolumeExport, "identity">;
}

/** While nothing has changed it is written anew after so long: age counts in days (`without_array.ts`). */
export const RENEW_MS = 3_600_000;
/** Volumes of one storage; a node runs a few hundred. */
export const MOST = 4_096;
/** What is dropped at once when there are more, the oldest first. */
const DROPPED = MOST / 8;

const ENDING = ".json";

/** No storage's name begins with a dot: what is known of attached disks lies in folders that are named after them. */
const FOLDER = "/var/lib/tnblock/.verified";

function folderOf(storage: Storage): string {
  return `${FOLDER}/${storage.settings.id}`;
}

function fileOf(storage: Storage, zvol: string): string {
  return `${folderOf(storage)}/${zvol}${ENDING}`;
}

/**
 * Whether the identity of a volume is kept at all: not that of a snapshot's clone, which only the array can tell
 * to be that snapshot's still, nor of a template, which no guest starts from.
 */
export function isKept(name: string): boolean {
  return !name.includes("@") && !name.startsWith("base-");
}

/** What was kept; undefined when nothing was, or it is damaged, of another array or of the other protocol. */
export async function readVerified(
  storage: Storage,
  zvol: string,
): Promise<VerifiedDisk | undefined> {
  const text = await storage.host.files.readText(fileOf(storage, zvol));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    if (!parsed.success || parsed.output.identity.kind !== storage.transport.kind) return undefined;
    return isHere(parsed.output.place, placeOf(storage)) ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** Keeps what the array says now, unless that is kept already and not old. A node that cannot works on. */
export async function keepVerified(storage: Storage, zvol: string, told: Told): Promise<void> {
  if (!isKept(zvol)) return;
  try {
    const before = await readVerified(storage, zvol);
    const now = verified(storage, told);
    if (before !== undefined && !isDue(before, now)) return;
    if (before === undefined) await makeRoom(storage);
    // Not `durable`: a name that a loss of power takes with it costs no more than a start without the API.
    await storage.host.files.replaceText(fileOf(storage, zvol), JSON.stringify(now) + "\n", 0o600);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(
      `what is known of "${zvol}" is not kept for when the API is away: ${reason}`,
    );
  }
}

/** Forgets a volume: it is freed, or has another name or content. */
export async function forgetVerified(storage: Storage, zvol: string): Promise<void> {
  await storage.host.files.remove(fileOf(storage, zvol));
}

/**
 * Removes what is kept of storages that this node has no more. Not before it is so old that nobody would believe it:
 * a configuration may be away for a while.
 *
 * @param has ids of the storages that this node has.
 * @param ageMs from which age on.
 */
export async function forgetGoneStorages(
  { files, now }: Pick<Host, "files" | "now">,
  has: ReadonlySet<string>,
  ageMs: number,
): Promise<void> {
  for (const id of await files.list(FOLDER) ?? []) {
    if (has.has(id)) continue;
    for (const name of await files.list(`${FOLDER}/${id}`) ?? []) {
      const path = `${FOLDER}/${id}/${name}`;
      const status = await files.status(path);
      if (status !== undefined && now() - status.modifiedMs > ageMs) await files.remove(path);
    }
  }
}

/**
 * Keeps anew what memory knows to be as it was, for volumes that stay attached for months: nothing activates them
 * again. To be called now and then.
 *
 * @param memory believed only for what it knows from the array at this moment.
 */
export async function renewVerified(
  storage: Storage,
  memory: Pick<StorageMemory, "has" | "listing">,
  names: readonly string[],
): Promise<void> {
  const kept: { readonly name: string; readonly before: KnownDisk & Partial<VerifiedDisk> }[] = [];
  for (const name of names.filter(isKept)) {
    const verified = await readVerified(storage, name);
    if (verified !== undefined && !isOld(verified, storage.host.now())) continue;
    // Nothing is kept of what was attached by an earlier version, or after it could not be kept.
    const before = verified ?? await readKnownDisk(storage, name);
    if (before === undefined) continue;
    if (memory.has({ zvol: name, tag: before.tag }) === true) kept.push({ name, before });
  }
  if (kept.length === 0) return;
  const { zvols, exports } = await memory.listing(storage.deadline);
  const { dataset } = storage.settings;
  const zvolAt = new Map(zvols.map((zvol) => [zvol.name, zvol]));
  const exportAt = new Map(exports.map((one) => [one.zvol, one]));
  for (const { name, before } of kept) {
    const zvol = zvolAt.get(`${dataset}/${name}`);
    const found = exportAt.get(`${dataset}/${name}`);
    if (zvol === undefined || found === undefined) continue;
    // Which disk this is was verified by an activation; here only that the array has it still.
    const isSame = idOf(found.identity) === idOf(before.identity) &&
      (before.toldMs === undefined ||
        zvol.createdMs === before.createdMs && zvol.guid === before.guid);
    if (isSame) await keepVerified(storage, name, { zvol, export: found });
  }
}

/** Pure: whether what the array says is to be written. */
export function isDue(before: VerifiedDisk, now: VerifiedDisk): boolean {
  const essence = ({ toldMs: _, ...rest }: VerifiedDisk) =>
    JSON.stringify(v.parse(essenceSchema, rest));
  return essence(before) !== essence(now) || isOld(before, now.toldMs);
}

/** In one order, whoever made the object. */
const essenceSchema = v.omit(schema, ["toldMs"]);

function isOld({ toldMs }: VerifiedDisk, nowMs: number): boolean {
  // A clock that was ahead once must not keep it for ever.
  return Math.abs(nowMs - toldMs) >= RENEW_MS;
}

function verified(storage: Storage, told: Told): VerifiedDisk {
  const { identity } = told.export;
  const { volsize, guid, createdMs } = told.zvol;
  return v.parse(schema, {
    version: VERSION,
    tag: tagOf(identity),
    identity,
    size: volsize,
    place: placeOf(storage),
    ...(guid === undefined ? {} : { guid }),
    createdMs,
    toldMs: storage.host.now(),
  });
}

type Place = ArrayPlace & { readonly cluster: string; readonly dataset: string };

function placeOf({ settings, clusterId }: Storage): Place {
  return { cluster: clusterId, ...arrayPlace(settings), dataset: settings.dataset };
}

function isHere(one: Place, other: Place): boolean {
  return one.cluster === other.cluster && one.target === other.target &&
    one.dataset === other.dataset && isSameArray(one, other);
}

function idOf(identity: VerifiedDisk["identity"]): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}

/** Drops the oldest when there are too many: names come and go, also those that other nodes freed. */
async function makeRoom(storage: Storage): Promise<void> {
  const { files } = storage.host;
  const names = (await files.list(folderOf(storage)) ?? []).filter((name) => name.endsWith(ENDING));
  if (names.length < MOST) return;
  const aged = await Promise.all(names.map(async (name) => {
    const path = `${folderOf(storage)}/${name}`;
    return { path, ms: (await files.status(path))?.modifiedMs ?? 0 };
  }));
  aged.sort((one, other) => one.ms - other.ms);
  for (const { path } of aged.slice(0, DROPPED)) await files.remove(path);
}
