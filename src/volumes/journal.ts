/**
 * The journal of this node: one file for each operation that is changing the array, there before its first
 * write and gone after its last (design decision 19). What is found there when its process has ended is
 * finished or undone: `recover/`. This file knows the files; `journaled.ts` opens and closes them.
 */
import * as v from "valibot";
import type { Host } from "../host/host.ts";

/** Below it a storage could be called so too: only names that are UUIDs are entries. */
export const JOURNAL_FOLDER = "/var/lib/tnblock/journal";

/** More entries than this are not kept: each is an operation that nobody could finish. */
export const MOST_ENTRIES = 1_000;

const VERSION = 1;

/** What tells a zvol from a later one of its name; null where the release does not tell (25.04). */
const made = v.object({
  guid: v.nullable(v.string()),
  createTxg: v.nullable(v.string()),
  createdMs: v.number(),
});

/** The number or uuid in a volume's name. */
const tag = v.optional(v.variant("kind", [
  v.object({ kind: v.literal("lun"), lun: v.number() }),
  v.object({ kind: v.literal("namespace"), uuid: v.string() }),
]));

/** The token that the operation leaves as `tnblock:op`. */
const operation = v.pipe(v.string(), v.uuid());

const renaming = {
  operation,
  made,
  /** Last component of the path before. */
  from: v.string(),
  /** Values of the marks before; null for one that was not there. */
  marks: v.record(v.string(), v.nullable(v.string())),
  /** Whether the export was on. */
  enabled: v.boolean(),
  /** Whether it gives a volume its old name back: then it is finished, not undone. */
  back: v.boolean(),
};

/** What each operation needs to be finished or undone; `zvol` below is the name that it makes or changes. */
const detailsSchema = v.variant("op", [
  v.object({ op: v.literal("alloc"), operation, repeatable: v.boolean() }),
  v.object({ op: v.literal("import"), operation }),
  v.object({
    op: v.literal("clone"),
    operation,
    /** Full path with `@`. */
    origin: v.string(),
  }),
  v.object({
    op: v.literal("reading"),
    operation,
    origin: v.string(),
    /** The snapshot that is read, by the names that its link has. */
    of: v.object({ zvol: v.string(), snapshot: v.string() }),
  }),
  v.object({ op: v.literal("rename"), ...renaming }),
  v.object({ op: v.literal("create_base"), ...renaming }),
  v.object({ op: v.literal("snapshot"), operation, path: v.string(), name: v.string() }),
  v.object({
    op: v.literal("delete_snapshot"),
    tag,
    path: v.string(),
    name: v.string(),
    guid: v.nullable(v.string()),
    createTxg: v.number(),
    /** Of a rollback's fence, kept before it is there: the zvol, whatever its name is by then; it tells the fence by the entry's id. */
    of: v.optional(made),
  }),
  v.object({
    op: v.literal("free"),
    token: v.string(),
    /** Whether nothing was removed yet, and a worker was to do it: no process has the entry's lock. */
    promised: v.optional(v.boolean()),
  }),
  v.object({
    op: v.literal("resize"),
    tag,
    made,
    /** Bytes before and after. */
    from: v.number(),
    to: v.number(),
    /** Whether all of it was reserved. */
    thick: v.boolean(),
  }),
  v.object({
    op: v.literal("rollback"),
    tag,
    made,
    snapshot: v.string(),
    /** Whether the array answered each call: none can come later. */
    isOver: v.optional(v.boolean()),
  }),
]);

/** What one kind of operation keeps. */
export type Details = v.InferOutput<typeof detailsSchema>;

/** The kinds of operations. */
export type Op = Details["op"];

const entrySchema = v.object({
  v: v.literal(VERSION),
  id: v.pipe(v.string(), v.uuid()),
  storage: v.string(),
  /** The node's name in the cluster. */
  node: v.string(),
  dataset: v.string(),
  transport: v.picklist(["iscsi", "nvme-tcp"]),
  /** On which array, and in what it is exported there; absent in entries of earlier versions. */
  place: v.optional(
    v.object({
      hosts: v.pipe(v.array(v.string()), v.readonly()),
      port: v.number(),
      target: v.string(),
    }),
  ),
  /** Last component of the path of the zvol that it makes or changes. */
  zvol: v.string(),
  /** Milliseconds since the epoch, as all times here. */
  startedMs: v.number(),
  /** Whether all of it was done, and its answer on its way: its caller may have that, or not. */
  told: v.optional(v.boolean()),
  /** When it was first seen that its process had ended. */
  deadMs: v.optional(v.number()),
  details: detailsSchema,
});

/** One operation, as it is kept. */
export type JournalEntry = v.InferOutput<typeof entrySchema>;

/** Reads an entry's text; undefined for one that is damaged or of another version. */
export function parseEntry(text: string): JournalEntry | undefined {
  try {
    const parsed = v.safeParse(entrySchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** What the journal holds. */
export interface Journal {
  readonly entries: readonly JournalEntry[];
  /** Paths of files that cannot be read or are of another version: kept, and never guessed at. */
  readonly unread: readonly string[];
}

const NAME = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json$/;

/** The ids of all entries. */
export async function entryIds(host: Host): Promise<string[]> {
  return idsIn(await host.files.list(JOURNAL_FOLDER) ?? [], NAME);
}

function idsIn(names: readonly string[], pattern: RegExp): string[] {
  return names.map((name) => pattern.exec(name)?.[1]).filter((id) => id !== undefined);
}

/** Reads all entries; those that end meanwhile are left out. */
export async function readJournal(host: Host): Promise<Journal> {
  const entries: JournalEntry[] = [];
  const unread: string[] = [];
  for (const id of (await entryIds(host)).slice(0, MOST_ENTRIES)) {
    const entry = await readOne(host, id);
    if (entry === "gone") continue;
    if (entry === "unread") unread.push(fileOf(id));
    else entries.push(entry);
  }
  return { entries, unread };
}

/** Temporary files that a killed process left: no entry yet, nothing was begun with them. */
const REST = /^\.[0-9a-f-]{36}\.(?:json|told)\.tmp\./;

/** See {@link markTold}. */
const TOLD = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.told$/;

/** Such a file lives for milliseconds without an entry. */
const REST_MS = 3_600_000;

/** Removes what was left of entries that were being written or removed, an hour later. */
export async function removeRests(host: Host): Promise<void> {
  const names = await host.files.list(JOURNAL_FOLDER) ?? [];
  const entries = new Set(idsIn(names, NAME));
  for (const name of names) {
    const told = TOLD.exec(name)?.[1];
    if (told === undefined ? !REST.test(name) : entries.has(told)) continue;
    const path = `${JOURNAL_FOLDER}/${name}`;
    const status = await host.files.status(path);
    const isOld = status !== undefined && host.now() - status.modifiedMs > REST_MS;
    if (isOld) await host.files.remove(path);
  }
}

/** One entry as it is now; undefined when it has ended, or cannot be read. */
export async function readEntry(host: Host, id: string): Promise<JournalEntry | undefined> {
  const entry = await readOne(host, id);
  return typeof entry === "string" ? undefined : entry;
}

/** @returns `unread` for one that is damaged or of another version. */
async function readOne(host: Host, id: string): Promise<JournalEntry | "gone" | "unread"> {
  let text: string | undefined;
  try {
    text = await host.files.readText(fileOf(id));
  } catch {
    return "unread";
  }
  if (text === undefined) return "gone";
  const entry = parseEntry(text);
  if (entry?.id !== id) return "unread";
  return await host.files.status(toldFileOf(id)) === undefined ? entry : { ...entry, told: true };
}

/** Keeps an entry: it is on disk when this returns. */
export async function writeEntry(host: Host, entry: JournalEntry): Promise<void> {
  const text = `${JSON.stringify(entry)}\n`;
  await host.files.replaceText(fileOf(entry.id), text, 0o600, { durable: true });
}

/**
 * Removes an entry.
 *
 * @param durable whether it must stay away after a loss of power: what was undone then would be a volume that
 *   somebody got.
 */
export async function removeEntry(host: Host, id: string, durable: boolean): Promise<void> {
  await host.files.remove(fileOf(id), { durable });
  // Never before it: what was told would look as if it had not been.
  await host.files.remove(toldFileOf(id));
}

/**
 * Notes that all of an operation is done and its answer on its way, so that it outlives this process. A file
 * beside the entry, not synced: who waits for the answer is on this node, and a loss of power ends both.
 */
export async function markTold(host: Host, id: string): Promise<void> {
  await host.files.replaceText(toldFileOf(id), "", 0o600);
}

/** Takes back what {@link markTold} noted: nobody got the answer. */
export async function unmarkTold(host: Host, id: string): Promise<void> {
  await host.files.remove(toldFileOf(id));
}

/** Who gives a lock back, or ends, has not quite let go of it at that moment: the socket behind it closes later. */
const LET_GO_MS = 500;

/** Takes the lock that an operation holds while it runs; undefined when it does. */
export async function lockEntry(host: Host, id: string): Promise<(() => void) | undefined> {
  try {
    return await host.lock(`journal-${id}`, { deadlineMs: LET_GO_MS });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ETIMEDOUT") return undefined;
    throw error;
  }
}

function fileOf(id: string): string {
  return `${JOURNAL_FOLDER}/${id}.json`;
}

function toldFileOf(id: string): string {
  return `${JOURNAL_FOLDER}/${id}.told`;
}
