/** What the ways of recovering share: what they work with, and what they tell. */
import { isDeepStrictEqual } from "node:util";
import type { DiskIdentity } from "../../transport/transport.ts";
import type { Caller } from "../../truenas/caller.ts";
import type * as zvols from "../../truenas/zvols.ts";
import { finishFree } from "../free.ts";
import type { Details, JournalEntry, Op } from "../journal.ts";
import { madeOf } from "../journaled.ts";
import { readKnownDisk } from "../known_disks.ts";
import type { Storage } from "../storage.ts";
import type { Verdict } from "./decide.ts";

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
}

/** The details of one kind, or several. */
export type DetailsOf<K extends Op> = Extract<Details, { readonly op: K }>;

/** How it ended; the entry is closed unless it is to be looked at again. */
export interface Ending {
  readonly outcome: "undone" | "finished" | "closed" | "waits";
  readonly why: string;
  /** For one that waits: what is to be kept with it from now on. */
  readonly keep?: Partial<JournalEntry>;
}

/** An ending for a verdict that asks for no work. */
export function endingOf(verdict: { readonly do: "close" | "wait"; readonly why: string }): Ending {
  return { outcome: verdict.do === "close" ? "closed" : "waits", why: verdict.why };
}

/**
 * Frees a volume, if that is decided again once its lock is held: whoever had the lock before may have given it
 * to a guest since the first look.
 *
 * @param decide looks and decides anew.
 * @returns what was decided last.
 */
export async function freeIfStill<V extends Verdict>(
  storage: Storage,
  token: string,
  first: V,
  decide: () => Promise<V>,
): Promise<V> {
  const decided = { last: first };
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
