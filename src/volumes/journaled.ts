/**
 * Running an operation with an entry in the journal: on disk before the first write on the array, closed after
 * the last, or once the caller has heard of it, and left open when something of it is left (design decision 19).
 */
import { TnblockError, withContext } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import type * as zvols from "../truenas/zvols.ts";
import { arrayPlace, isSameArray } from "./array_place.ts";
import { withVolumeLock } from "./attachment.ts";
import {
  type Details,
  type JournalEntry,
  lockEntry,
  type Op,
  readEntry,
  readJournal,
  removeEntry,
  writeEntry,
} from "./journal.ts";
import { entryOf, type OpenEntry, OperationEntry, refuseFull } from "./operation_entry.ts";
import type { Storage } from "./storage.ts";

/**
 * Runs an operation. Within another one its entry is that one's: nothing is closed before that one ends.
 *
 * @param work gets the storage to work with, and the entry.
 * @throws TnblockError `host-fault` when the entry of something that is to be undone cannot be kept: nothing
 *   was touched. What is finished rather than undone goes on without one, with a warning.
 */
export async function journaled<T>(
  storage: Storage,
  work: (storage: Storage, entry: OpenEntry) => Promise<T>,
): Promise<T> {
  if (storage.entry !== undefined) return await work(storage, storage.entry);
  const entry = new OperationEntry(storage);
  let result: T;
  try {
    result = await work({ ...storage, entry }, entry);
  } catch (error) {
    await entry.end(error);
    throw error;
  }
  if (storage.hold === undefined || !entry.isForCaller()) await entry.end(undefined);
  else storage.hold(entry);
  return result;
}

/** The same under a volume's lock, see `withVolumeLock`. */
export async function journaledAlone<T>(
  storage: Storage,
  name: string,
  work: (storage: Storage, entry: OpenEntry) => Promise<T>,
): Promise<T> {
  return await journaled(
    storage,
    (storage, entry) => withVolumeLock(storage, name, () => work(storage, entry)),
  );
}

/** Within a recovery: the entry is there already, and its recovery closes it. */
export const KEPT_ENTRY: OpenEntry = { begin: () => Promise.resolve() };

/**
 * Keeps what another process is to do, which may never come: recovery does it then. Nobody has the lock of such an
 * entry. Never rejects; without it nobody does what that process does not.
 */
export async function keepPromise(
  storage: Storage,
  id: string,
  zvol: string,
  details: Details,
): Promise<void> {
  const { host, log } = storage;
  try {
    await refuseFull(host);
    await writeEntry(host, entryOf(storage, { id, zvol, startedMs: host.now(), details }));
  } catch (error) {
    const doing = `Cannot keep in the journal what is to be done to "${zvol}"`;
    log.warning(`${withContext(error, doing).message}; going on without`);
  }
}

/** Forgets it; it may not be there. Never rejects: what is kept in vain is closed by recovery. */
export async function dropPromise({ host, log }: Storage, id: string): Promise<void> {
  try {
    await removeEntry(host, id, false);
  } catch (error) {
    log.warning(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Why an entry is none of this storage's as it is configured now; undefined when it is. What another array
 * holds is not known from a look at this one.
 */
export function whyForeign(storage: Storage, entry: JournalEntry): string | undefined {
  const { settings } = storage;
  if (entry.node !== storage.node) return `it is of node ${entry.node}`;
  if (entry.dataset !== settings.dataset) return `it is of dataset "${entry.dataset}"`;
  if (entry.transport !== storage.transport.kind) return `it is of ${entry.transport}`;
  // Of an earlier version.
  if (entry.place === undefined) return undefined;
  const { hosts, port, target } = entry.place;
  const now = arrayPlace(settings);
  if (!isSameArray(entry.place, now)) return `it is of the array ${hosts.join(", ")}, port ${port}`;
  return target === now.target ? undefined : `it is of "${target}"`;
}

/**
 * Closes what an earlier operation left open, which was killed: the caller hands out what it made, or has
 * seen to it otherwise. To be called under the volume's lock, with nothing left to fail.
 *
 * @throws TnblockError `busy` while that operation's process lives: who asked it may not have heard of it, and then
 *   it is taken back.
 */
export async function supersede(
  storage: Storage,
  zvol: string,
  ops: readonly Op[],
): Promise<void> {
  const { host, settings, log } = storage;
  const { entries } = await readJournal(host).catch((error) => {
    log.warning(error instanceof Error ? error.message : String(error));
    return { entries: [] };
  });
  for (const entry of entries) {
    const isIt = entry.storage === settings.id && whyForeign(storage, entry) === undefined &&
      ops.includes(entry.details.op) && isAbout(entry, zvol);
    if (!isIt) continue;
    const { op } = entry.details;
    const release = await attempt(
      `Cannot lock the journal's entry of "${zvol}"`,
      () => lockEntry(host, entry.id),
    );
    // Of a snapshot that is read, whoever has it sees under the volume's lock that it is.
    if (release === undefined && op === "reading") continue;
    if (release === undefined) {
      throw new TnblockError(
        "busy",
        `Cannot repeat ${op} of "${zvol}": what was asked for first has not ended`,
        { hint: "Try again in a moment" },
      );
    }
    try {
      // It may have ended between the two.
      if (await readEntry(host, entry.id) === undefined) continue;
      await removeEntry(host, entry.id, true);
      log.info(`${op} of "${zvol}", which was killed, is repeated with success`);
    } catch (error) {
      log.warning(error instanceof Error ? error.message : String(error));
    } finally {
      release();
    }
  }
}

function isAbout({ zvol, details }: JournalEntry, name: string): boolean {
  return zvol === name || "from" in details && details.from === name;
}

/**
 * Refuses to call a volume gone that is not there because a rename of it was killed: it comes back under that
 * name.
 *
 * @param doing as in a message: `free`.
 * @throws TnblockError `busy`.
 */
export async function refuseStoppedRename(
  storage: Storage,
  zvol: string,
  doing: string,
): Promise<void> {
  const { host, settings } = storage;
  const what = `Cannot ${doing} the volume "${zvol}"`;
  const { entries } = await attempt(what, () => readJournal(host));
  for (const entry of entries) {
    const { storage: id, details } = entry;
    const isIt = id === settings.id && "from" in details && details.from === zvol &&
      (details.op === "rename" || details.op === "create_base");
    // Who asked for the new name may have it already, before its entry is gone.
    if (!isIt || await attempt(what, () => isBeingTold(host, entry))) continue;
    throw new TnblockError(
      "busy",
      `${what}: it was being renamed to "${entry.zvol}" when that was stopped`,
      { hint: "The tnblock daemon sets it right within minutes: try again then" },
    );
  }
}

/** Whether all of it is done, and its process about to learn whether its answer arrived. */
async function isBeingTold(host: Host, { id }: JournalEntry): Promise<boolean> {
  const release = await lockEntry(host, id);
  const now = await readEntry(host, id);
  release?.();
  return now === undefined || release === undefined && now.told === true;
}

/** What tells this zvol from a later one of its name. */
export function madeOf(zvol: Pick<zvols.Zvol, "guid" | "createTxg" | "createdMs">) {
  return {
    guid: zvol.guid ?? null,
    createTxg: zvol.createTxg ?? null,
    createdMs: zvol.createdMs,
  };
}
