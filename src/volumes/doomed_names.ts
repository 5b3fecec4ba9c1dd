/**
 * Names that the array may still be about to destroy something under. It goes on with a call whose connection was
 * lost, and its calls for zvols and snapshots go by name: whatever got the name meanwhile would be destroyed. So a
 * name is given to nothing new until every such call is over.
 *
 * A call that is under way is kept on its node, one whose answer was lost in pmxcfs, which all nodes see at once.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { LONGEST_WRITE_MS } from "../truenas/caller.ts";
import type { Storage } from "./storage.ts";

const schema = v.object({
  /** When the last of its calls had been sent; milliseconds since the epoch. */
  sinceMs: v.number(),
  /** By which node's clock; absent in notes of earlier versions. */
  node: v.optional(v.string()),
});

type Note = v.InferOutput<typeof schema>;

/** By how much the clocks of two nodes may differ: corosync does not mind, and nobody looks at it. */
export const SKEW_MS = 600_000;

/** Notes of that age go: whoever wrote them is done with them by any clock, and writes no other at that moment. */
const FORGOTTEN_MS = 3_600_000;

/** Time that making something takes after its name has come free. */
const LEFT_FOR_WORK_MS = 15_000;

/** A destruction that is answered is over much earlier; so long it is waited for in any case. */
const ANSWER_MS = 2_000;

/** Pause between two looks, in ms. */
const LOOK_EVERY_MS = 250;

/** The name under which a zvol, or one of its snapshots, is destroyed, within its storage. */
export function doomedName(path: string, snapshot?: string): string {
  const zvol = path.slice(path.lastIndexOf("/") + 1);
  return snapshot === undefined ? zvol : `${zvol}@${snapshot}`;
}

/** The cluster's notes. */
const clusterFolder = ({ settings }: Storage) => `/etc/pve/priv/tnblock/doomed/${settings.id}`;

/** This node's: of calls that it waits for, which outlive its process, and of all when pmxcfs cannot be written. */
const nodeFolder = ({ settings }: Storage) => `/run/tnblock/doomed/${settings.id}`;

/** Bytes of a file's name; the temporary one, which is longer, must have room in 255 too. */
const LONGEST_NAME = 200;

/** The note of a name; of a long one, which no number is looked for, under its hash. */
function fileIn(folder: string, name: string): string {
  const isLong = Buffer.byteLength(name) > LONGEST_NAME;
  return `${folder}/${isLong ? createHash("sha256").update(name).digest("hex") : name}`;
}

const foldersOf = (storage: Storage) => [clusterFolder(storage), nodeFolder(storage)];

/**
 * Keeps, before a call that destroys something under the name, that there is one: this process may be killed.
 * Never throws.
 *
 * @param name see {@link doomedName}.
 * @returns whether an earlier call may come yet, of this process or another.
 */
export async function doomHere(storage: Storage, name: string): Promise<boolean> {
  const isDoomed = await leftMs(storage, name) > 0;
  await write(storage, nodeFolder(storage), name);
  return isDoomed;
}

/**
 * Keeps from now on for {@link LONGEST_WRITE_MS}, for all nodes, that something may be destroyed under the name: to be
 * called when the answer to such a call was lost, before anything else is done about it. Never throws.
 *
 * @param name see {@link doomedName}.
 * @returns whether another node keeps the same: its call may come, when this one's is over.
 */
export async function doom(storage: Storage, name: string): Promise<boolean> {
  const before = await readNote(storage, fileIn(clusterFolder(storage), name));
  await write(storage, nodeFolder(storage), name);
  await write(storage, clusterFolder(storage), name);
  return before !== undefined && before.node !== storage.node && leftOf(storage, before) > 0;
}

async function write({ host, log, node }: Storage, folder: string, name: string): Promise<void> {
  try {
    const note: Note = { sinceMs: host.now(), node };
    await host.files.replaceText(fileIn(folder, name), JSON.stringify(note) + "\n", 0o600);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warning(`that "${name}" may still be destroyed is not kept in ${folder}: ${reason}`);
  }
}

/** Every call of this node that could destroy something under the name is known to be over. */
export async function spare(storage: Storage, name: string): Promise<void> {
  await removeIf(storage, name, ({ node }) => node === storage.node);
}

/** Removes notes of a name. */
async function removeIf(
  storage: Storage,
  name: string,
  isMeant: (note: Note) => boolean,
): Promise<void> {
  for (const folder of foldersOf(storage)) {
    const file = fileIn(folder, name);
    try {
      const note = await readNote(storage, file);
      if (note !== undefined && isMeant(note)) await storage.host.files.remove(file);
    } catch {
      // It is over by itself after some minutes.
    }
  }
}

/** All names that are given to nothing new now. Notes that have long had their time are removed. */
export async function doomedNames(storage: Storage): Promise<Set<string>> {
  const doomed = new Set<string>();
  for (const folder of foldersOf(storage)) {
    for (const name of await listed(storage, folder)) {
      if (await leftMs(storage, name) > 0) doomed.add(name);
      else await removeIf(storage, name, (note) => isForgotten(storage, note));
    }
  }
  return doomed;
}

async function listed(storage: Storage, folder: string): Promise<string[]> {
  // What cannot be read, in part of a cluster without quorum, cannot be known.
  return await storage.host.files.list(folder).catch(() => undefined) ?? [];
}

/** For how long the name is still to be given to nothing; 0 when it may be. */
async function leftMs(storage: Storage, name: string): Promise<number> {
  const notes = await Promise.all(
    foldersOf(storage).map((folder) => readNote(storage, fileIn(folder, name))),
  );
  return Math.max(...notes.map((note) => note === undefined ? 0 : leftOf(storage, note)));
}

function leftOf(storage: Storage, { sinceMs, node }: Note): number {
  const held = LONGEST_WRITE_MS + (node === storage.node ? 0 : SKEW_MS);
  const passed = storage.host.now() - sinceMs;
  // A clock that was set back by more than that must not keep a name for years.
  return Math.abs(passed) < held ? Math.min(held, held - passed) : 0;
}

function isForgotten({ host }: Storage, { sinceMs }: Note): boolean {
  return Math.abs(host.now() - sinceMs) >= FORGOTTEN_MS;
}

async function readNote(storage: Storage, file: string): Promise<Note | undefined> {
  try {
    const text = await storage.host.files.readText(file);
    if (text === undefined) return undefined;
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Returns when something new may get the name: at once as a rule, after a wait when that ends early enough.
 *
 * @param doing as in a message: `make the volume`.
 * @throws TnblockError `busy` when it would not.
 */
export async function untilSpared(storage: Storage, name: string, doing: string): Promise<void> {
  const { deadline, host } = storage;
  const end = host.monotonicMs() + ANSWER_MS;
  for (;;) {
    const left = await leftMs(storage, name);
    if (left === 0) return;
    const room = deadline.leftMs() - LEFT_FOR_WORK_MS;
    if (left > room && (room <= 0 || host.monotonicMs() >= end)) throw refusal(name, doing, left);
    await host.wait(Math.min(left, LOOK_EVERY_MS), deadline.signal);
  }
}

/**
 * The same where a guest may stand still meanwhile.
 *
 * @throws TnblockError `busy`.
 */
export async function refuseDoomed(storage: Storage, name: string, doing: string): Promise<void> {
  const left = await leftMs(storage, name);
  if (left > 0) throw refusal(name, doing, left);
}

function refusal(name: string, doing: string, leftMs: number): TnblockError {
  const minutes = Math.ceil(leftMs / 60_000);
  return new TnblockError(
    "busy",
    `Cannot ${doing} "${name}": the array may still be about to destroy what had this name`,
    {
      hint: `An answer was lost, and the array goes on with such a call: try again in ${
        minutes === 1 ? "a minute" : `${minutes} minutes`
      }`,
    },
  );
}
