/** What a verb works with: one storage of one node for the length of one operation. */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { StorageSettings } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import type { Transport } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import type { HeldEntry, OpenEntry } from "./operation_entry.ts";
import type { StorageMemory } from "./memory.ts";
import type { StorageUpkeep } from "./upkeep.ts";

/** One storage. */
export interface Storage {
  readonly settings: StorageSettings;
  readonly host: Host;
  readonly transport: Transport;
  readonly log: Log;
  /** The cluster's UUID: part of every mark. */
  readonly clusterId: string;
  /** This node's name in the cluster, as PVE says it: what only this node may use is marked with it. */
  readonly node: string;
  /** By when the caller wants its answer. */
  readonly deadline: Deadline;
  /** A deadline of its own for taking back or finishing what was begun, when the caller's has passed. */
  undoDeadline(): Deadline;
  /** The array; connects and logs in at the first call. */
  array(): Promise<Caller>;
  /**
   * Why the array does not answer, when that is known without waiting for it: undefined while it may answer. Only
   * the daemon knows; who has no use for an array that is away asks {@link array} at once.
   */
  arrayAway?(): Promise<TnblockError | undefined>;
  /** What the daemon remembers; undefined in a hook that works by itself. */
  readonly memory?: StorageMemory;
  /** The daemon's work on this node; undefined in a hook that works by itself. */
  readonly upkeep?: StorageUpkeep;
  /** Writes so far of which nobody knows whether the array did them, or is at them still. */
  unknownWrites(): number;
  /** The journal's entry of the operation that this one is part of. */
  readonly entry?: OpenEntry;
  /**
   * Takes over the entry of what is done and worth nothing unless the caller hears of it; without this it is closed
   * when the operation ends.
   */
  readonly hold?: (entry: HeldEntry) => void;
}

/** The full path of a volume's zvol. */
export function zvolPath(storage: Storage, zvol: string): string {
  return `${storage.settings.dataset}/${zvol}`;
}

/** Takes back one step; false when there was nothing of it. */
export type Undo = () => Promise<boolean>;

/** Registers what takes a step back; called before the step, whose failure may still have done it. */
export type OnFailure = (what: string, undo: Undo) => void;

/**
 * Runs steps that each may leave something behind; when one fails, what was left is taken back, newest
 * first, up to the first that cannot be. What stays is logged and named in the error.
 */
export async function undoing<T>(
  storage: Pick<Storage, "log" | "undoDeadline">,
  work: (onFailure: OnFailure) => Promise<T>,
): Promise<T> {
  const undos: { what: string; undo: Undo }[] = [];
  try {
    return await work((what, undo) => void undos.push({ what, undo }));
  } catch (error) {
    const { log } = storage;
    // The caller's deadline may be over: taking back has its own.
    if (undos.length > 0) storage.undoDeadline();
    const left = undos.map(({ what }) => what);
    for (const { what, undo } of undos.reverse()) {
      try {
        if (await undo()) log.info(`took back ${what}`);
        left.pop();
      } catch (undoError) {
        const reason = undoError instanceof Error ? undoError.message : String(undoError);
        log.warning(`could not take back ${what}: ${reason}`);
        // What was made earlier carries what could not be taken back: it stays too.
        break;
      }
    }
    if (left.length === 0) throw error;
    if (error instanceof Error) LEAVING.add(error);
    if (!(error instanceof TnblockError)) throw error;
    throw new TnblockError(error.code, `${error.message} (left behind: ${left.join(", ")})`, {
      cause: error,
      hint: [error.hint, "The tnblock daemon sees to it once the array answers again"]
        .filter((part) => part !== undefined).join(". "),
    });
  }
}

/** Failures after which something could not be taken back. */
const LEAVING = new WeakSet<Error>();

/** Whether something of what failed with this error is still there, through any context put around it. */
export function leavesSomething(error: unknown): boolean {
  let inner = error;
  for (let depth = 0; depth < 10 && inner instanceof Error; depth++) {
    if (LEAVING.has(inner)) return true;
    inner = inner.cause;
  }
  return false;
}
