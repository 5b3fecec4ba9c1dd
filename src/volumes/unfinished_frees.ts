/**
 * Frees that the cluster has begun: which zvol a name meant when its export was still there. When only
 * the zvol is left, this is what shows that the name means it, on whichever node the free is repeated.
 *
 * It is kept in pmxcfs, which all nodes see at once: a mark on the zvol would say the same for one more
 * write on the array, and a free has none to spare (design section 5).
 */
import * as v from "valibot";
import type { ExportTag, VolumeRef } from "../common/volume.ts";
import type { ExportRow } from "../transport/transport.ts";
import type * as zvols from "../truenas/zvols.ts";
import type { Storage } from "./storage.ts";
import { tagText } from "./tag_text.ts";

/** What tells a zvol from a later one of its name. */
export interface Unfinished {
  /** Null on 25.04, whose API does not tell it. */
  readonly guid: string | null;
  /** Milliseconds since the epoch, whole seconds. */
  readonly createdMs: number;
  /** Rows of its export: of those that a Perl plugin made nothing else shows that they are its own. */
  readonly rows: readonly ExportRow[];
}

/** Rows of an export, as they are kept. */
export const rowsSchema = v.array(
  v.object({ kind: v.picklist(["extent", "mapping", "namespace"]), id: v.number() }),
);

const schema = v.object({
  name: v.string(),
  /** Which node began it; absent in notes of earlier versions. */
  node: v.optional(v.string()),
  guid: v.nullable(v.string()),
  createdMs: v.number(),
  rows: rowsSchema,
});

type Note = v.InferOutput<typeof schema>;

function folderOf(storage: Storage): string {
  return `/etc/pve/priv/tnblock/freeing/${storage.settings.id}`;
}

function fileOf(storage: Storage, zvol: string): string {
  return `${folderOf(storage)}/${zvol}`;
}

function nameOf(volume: VolumeRef): string {
  return volume.tag === undefined ? volume.zvol : `${volume.zvol}-${tagText(volume.tag)}`;
}

/** Which zvol the name meant when its free began; undefined when none did, or that is not known. */
export async function readUnfinished(
  storage: Storage,
  volume: VolumeRef,
): Promise<Unfinished | undefined> {
  const note = await readNote(storage, volume.zvol);
  return note?.name === nameOf(volume) ? note : undefined;
}

/**
 * The volume name under which a free of this very zvol began, without the storage: what to free again.
 * Undefined when none did, or that is not known.
 */
export async function unfinishedName(
  storage: Storage,
  zvol: string,
  made: Pick<zvols.Zvol, "guid" | "createdMs">,
): Promise<string | undefined> {
  const note = await readNote(storage, zvol);
  if (note?.guid !== (made.guid ?? null) || note.createdMs !== made.createdMs) return undefined;
  return note.name === zvol ? zvol : `vol-${note.name}`;
}

/** Whether another node began to free this very zvol, and has not ended: it may have lost its power meanwhile. */
export async function isFreedElsewhere(
  storage: Storage,
  zvol: string,
  made: Pick<Unfinished, "guid" | "createdMs">,
): Promise<boolean> {
  const note = await readNote(storage, zvol);
  return note?.node !== undefined && note.node !== storage.node && note.guid === made.guid &&
    note.createdMs === made.createdMs;
}

/** Whether a free of that name was begun, of whichever zvol, and not seen to its end; false when that is not known. */
export async function isNoted(storage: Storage, zvol: string): Promise<boolean> {
  return await readNote(storage, zvol) !== undefined;
}

async function readNote(storage: Storage, zvol: string): Promise<Note | undefined> {
  try {
    const text = await storage.host.files.readText(fileOf(storage, zvol));
    if (text === undefined) return undefined;
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether a note that was kept has been taken away. Without the folder pmxcfs itself is away, which says nothing.
 */
export async function isWithdrawn(storage: Storage, zvol: string): Promise<boolean> {
  const notes = await storage.host.files.list(folderOf(storage));
  return notes !== undefined && !notes.includes(zvol);
}

/**
 * Keeps that a free began, or forgets it once nothing is left, or the volume is handed out again. Without a quorum nothing
 * can be kept: the free goes on then, only its repetition by name would be refused.
 *
 * @returns whether it is kept.
 */
export async function writeUnfinished(
  storage: Storage,
  volume: { readonly zvol: string; readonly tag?: ExportTag | undefined },
  begun: Unfinished | undefined,
): Promise<boolean> {
  const file = fileOf(storage, volume.zvol);
  const { files } = storage.host;
  try {
    if (begun === undefined) {
      await files.remove(file);
      return false;
    }
    const name = nameOf({ zvol: volume.zvol, tag: volume.tag });
    await files.replaceText(
      file,
      JSON.stringify({ name, node: storage.node, ...begun }) + "\n",
      0o600,
    );
    return true;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(`that "${volume.zvol}" is being freed is not kept: ${reason}`);
    return false;
  }
}
