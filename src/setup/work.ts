/** What is shared by all that makes something: where it stands, and how a step is taken back. */
import { isUnknownOutcome } from "../truenas/errors.ts";
import type { Session } from "../truenas/session.ts";
import type { Draft } from "./draft.ts";
import type { ClusterFacts } from "./node_facts.ts";
import type { SetupWorld } from "./world.ts";

/** What is at hand while things are made, and what has come of them so far. */
export interface Work {
  readonly world: SetupWorld;
  readonly draft: Draft;
  readonly cluster: ClusterFacts;
  /** The array; a new session where the first one was lost. */
  readonly array: () => Promise<Session>;
  /** Notes what takes a step back; true when there was something to take back. */
  readonly onFailure: (what: string, undo: () => Promise<boolean>) => void;
  /** Secrets for the file, by option. */
  readonly secrets: Record<string, string>;
  /** Ids of what was made, by what it is for. */
  readonly made: Map<string, number>;
  /** What nodes are called by the array. */
  readonly hostNames: Map<string, string>;
  /** IQN or NQN of the storage's target or subsystem. */
  targetName: string | undefined;
}

/**
 * Makes an object of the array whose answer may be lost: it is looked for then.
 *
 * @param find its id, when it is there and was not before.
 */
export async function makeOne(
  work: Work,
  what: string,
  object: {
    readonly find: (array: Session) => Promise<number | undefined>;
    readonly create: (array: Session) => Promise<number>;
    readonly remove: (array: Session, id: number) => Promise<void>;
  },
): Promise<number> {
  work.onFailure(what, async () => {
    const array = await work.array();
    const id = await object.find(array);
    if (id === undefined) return false;
    await object.remove(array, id);
    return true;
  });
  try {
    return await object.create(await work.array());
  } catch (error) {
    if (!isUnknownOutcome(error)) throw error;
    const id = await object.find(await work.array());
    if (id === undefined) throw error;
    return id;
  }
}
