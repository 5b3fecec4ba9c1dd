/** What the ways of recovering share: what they work with, and what they tell. */
import { isDeepStrictEqual } from "node:util";
import type { DiskIdentity } from "../../transport/transport.ts";
import type { Caller } from "../../truenas/caller.ts";
import type * as zvols from "../../truenas/zvols.ts";
import { ifVolumeIsFree } from "../attachment.ts";
import { finishFree } from "../free.ts";
import type { Details, JournalEntry, Op } from "../journal.ts";
import { madeOf } from "../journaled.ts";
import { readKnownDisk } from "../known_disks.ts";
import type { Storage } from "../storage.ts";
import type { Verdict } from "./decide.ts";
import type { Pace, Seen } from "./settle.ts";

/** One entry being recovered, under its lock. */
export interface Recovery<D extends Details = Details> {
  /** Verbs that are run with it open entries of their own. */
  readonly storage: Storage;
  /** Verbs that are run with it are part of this entry's operation. */
  readonly within: Storage;
  readonly array: Caller;
  readonly entry: JournalEntry;
  readonly details: D;
  readonly settleMs: number;
  /** What this process has seen of the entry, and how long ago its process ended. */
  readonly seen: Seen;
  readonly pace: Pace;
}

/** The details of one kind, or several. */
export type DetailsOf<K extends Op> = Extract<Details, { readonly op: K }>;

/** How it ended; the entry is closed unless it is to be looked at again. */
export interface Ending {
  readonly outcome: "undone" | "finished" | "closed" | "waits";
  readonly why: string;
  /** For one that waits: what is to be remembered of it from now on. */
  readonly keep?: Partial<Seen>;
}

/** For what is to be done, while a write of its process may be under way. */
export const NOT_SETTLED: Ending = {
  outcome: "waits",
  why: "what it asked the array for may not be over yet",
};

/** For what came to be otherwise between two looks: it begins anew. */
export const CHANGED = { do: "wait", why: "it was changed a moment ago" } as const;

const BESIDE: Ending = { outcome: "waits", why: "another operation on the volume is under way" };

/** How often a volume's lock is tried, and how long after each other, in ms: who died has not quite let go of it. */
const LOCK_TRIES = 4;
const LOCK_PAUSE_MS = 50;

/**
 * Runs work under a volume's lock, unless another operation has it: that one may wait for the entry, to close it
 * (`supersede`), while recovery has that.
 */
export async function ifVolumeIsIdle(
  storage: Storage,
  name: string,
  work: () => Promise<Ending>,
): Promise<Ending> {
  for (let attempt = 1;; attempt++) {
    const ending = await ifVolumeIsFree(storage, name, work);
    if (ending !== undefined) return ending;
    if (attempt >= LOCK_TRIES) return BESIDE;
    await storage.host.wait(LOCK_PAUSE_MS, storage.deadline.signal);
  }
}

/** An ending for a verdict that asks for no work. */
export function endingOf(verdict: { readonly do: "close" | "wait"; readonly why: string }): Ending {
  return { outcome: verdict.do === "close" ? "closed" : "waits", why: verdict.why };
}

/**
 * Frees a volume, if that is decided again once its lock is held: whoever had the lock before may have given it
 * to a guest since the first look.
 *
 * @param unasked the answer when there is nothing to decide: another volume has the name by now, or the free was
 *   withdrawn.
 * @param decide looks and decides anew.
 * @returns what was decided last.
 */
export async function freeIfStill<V extends Verdict>(
  storage: Storage,
  token: string,
  unasked: V,
  decide: () => Promise<V>,
): Promise<V> {
  const decided = { last: unasked };
  await finishFree(storage, token, async () => (decided.last = await decide()).do === "act");
  return decided.last;
}

/** Whether this node has a volume's disk attached, or uses it. */
export async function isHere(
  storage: Storage,
  zvol: string,
  identity: DiskIdentity,
): Promise<boolean> {
  const known = await readKnownDisk(storage, zvol);
  if (known !== undefined && isDeepStrictEqual(known.identity, identity)) return true;
  return (await storage.transport.users(identity)).length > 0;
}

/** Whether a zvol is the one that the operation began with. */
export function isSameZvol(made: ReturnType<typeof madeOf>, zvol: zvols.Zvol): boolean {
  const now = madeOf(zvol);
  return now.guid === made.guid && now.createdMs === made.createdMs &&
    now.createTxg === made.createTxg;
}
