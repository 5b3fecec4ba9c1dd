/**
 * Frees that this node has begun: which zvol a name meant when its export was still there. When only
 * the zvol is left, this is what shows that the name means it.
 */
import * as v from "valibot";
import type { ExportTag, VolumeRef } from "../common/volume.ts";
import type { Storage } from "./storage.ts";

/** What tells a zvol from a later one of its name. */
export interface Unfinished {
  /** Null on 25.04, whose API does not tell it. */
  readonly guid: string | null;
  /** Milliseconds since the epoch, whole seconds. */
  readonly createdMs: number;
}

const schema = v.object({ name: v.string(), guid: v.nullable(v.string()), createdMs: v.number() });

function fileOf(storage: Storage, zvol: string): string {
  return `/var/lib/tnblock/${storage.settings.id}/${zvol}.freeing`;
}

function nameOf(volume: VolumeRef): string {
  const tagText = (tag: ExportTag) => tag.kind === "lun" ? `lun${tag.lun}` : `ns${tag.uuid}`;
  return volume.tag === undefined ? volume.zvol : `${volume.zvol}-${tagText(volume.tag)}`;
}

/** Which zvol the name meant when its free began here; undefined when none did. */
export async function readUnfinished(
  storage: Storage,
  volume: VolumeRef,
): Promise<Unfinished | undefined> {
  const text = await storage.host.files.readText(fileOf(storage, volume.zvol));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success && parsed.output.name === nameOf(volume) ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Keeps that a free began, or forgets it once nothing is left. A node that cannot is told of it: the
 * free goes on, only its repetition by name would be refused.
 */
export async function writeUnfinished(
  storage: Storage,
  volume: { readonly zvol: string; readonly tag?: ExportTag | undefined },
  made: Unfinished | null | undefined,
): Promise<void> {
  const file = fileOf(storage, volume.zvol);
  const { files } = storage.host;
  try {
    if (made === undefined || made === null) {
      await files.remove(file);
      return;
    }
    const name = nameOf({ zvol: volume.zvol, tag: volume.tag });
    await files.replaceText(file, JSON.stringify({ name, ...made }) + "\n", 0o600);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    storage.log.warning(`that "${volume.zvol}" is being freed is not kept: ${reason}`);
  }
}
