/**
 * What a memory keeps over a restart of the daemon: the last listing and space, for the moments before the
 * array has answered. No secrets; in parts, because no file of ours is larger than 1 MiB.
 */
import * as v from "valibot";
import type { HostFiles } from "../host/host.ts";
import type { MemorizedStorage } from "../pve/hook.ts";
import type { VolumeExport } from "../transport/transport.ts";
import type { Zvol } from "../truenas/zvols.ts";
import type { Found } from "./memory_picture.ts";
import { arrayPlace } from "../volumes/array_place.ts";

/** Bytes of the dataset. */
export interface Space {
  readonly available: number;
  readonly used: number;
}

/** What is kept. */
export interface Kept {
  readonly found: Found;
  readonly space: Space;
}

/** The version of the files; others are ignored. */
const VERSION = 1;

/** Characters of a part; what is not ASCII takes up to three bytes each. */
const PART_LENGTH = 300_000;

/** A storage of 10,000 volumes has about 25. */
const MOST_PARTS = 200;

const zvolSchema = v.object({
  name: v.string(),
  volsize: v.number(),
  volblocksize: v.number(),
  used: v.number(),
  referenced: v.optional(v.number()),
  sparse: v.boolean(),
  reserved: v.number(),
  createdMs: v.number(),
  origin: v.optional(v.string()),
  guid: v.optional(v.string()),
  createTxg: v.optional(v.string()),
  userProperties: v.record(v.string(), v.string()),
});

const exportSchema = v.object({
  zvol: v.string(),
  identity: v.variant("kind", [
    v.object({ kind: v.literal("iscsi"), lun: v.number(), naa: v.string() }),
    v.object({ kind: v.literal("nvme-tcp"), nsid: v.number(), uuid: v.string() }),
  ]),
  rows: v.array(
    v.object({ kind: v.picklist(["extent", "mapping", "namespace"]), id: v.number() }),
  ),
  enabled: v.boolean(),
  sectorSize: v.number(),
});

const partSchema = v.object({
  version: v.literal(VERSION),
  /** Of what it is: see {@link placeOf}. */
  of: v.string(),
  /** The same in all parts of one writing. */
  writing: v.string(),
  /** How many there are; in the first part only. */
  parts: v.number(),
  space: v.object({ available: v.number(), used: v.number() }),
  zvols: v.array(zvolSchema),
  exports: v.array(exportSchema),
});

type Part = v.InferOutput<typeof partSchema>;

/** Not `.json`: that ending is for known disks, which are named after zvols. */
function fileOf(storage: MemorizedStorage, part: number): string {
  return `/var/lib/tnblock/${storage.settings.id}/memory.${part}`;
}

/** What tells whether a file is about the array, dataset and export place that the storage has now. */
export function placeOf({ settings, clusterId }: Pick<MemorizedStorage, "settings" | "clusterId">) {
  const { hosts, port, target } = arrayPlace(settings);
  const { dataset, transport } = settings;
  return JSON.stringify([clusterId, hosts, port, dataset, transport.kind, target]);
}

/** Reads what was kept; undefined when there is nothing, or it is of another place, or damaged. */
export async function readKept(
  files: HostFiles,
  storage: MemorizedStorage,
): Promise<Kept | undefined> {
  const first = await readPart(files, storage, 0);
  if (first === undefined || first.parts > MOST_PARTS) return undefined;
  const zvols: Zvol[] = [];
  const exports: VolumeExport[] = [];
  for (let number = 0; number < first.parts; number++) {
    const part = number === 0 ? first : await readPart(files, storage, number);
    if (part?.writing !== first.writing) return undefined;
    zvols.push(...part.zvols.map(asZvol));
    exports.push(...part.exports);
  }
  return { found: { zvols, exports }, space: first.space };
}

async function readPart(
  files: HostFiles,
  storage: MemorizedStorage,
  number: number,
): Promise<Part | undefined> {
  const text = await files.readText(fileOf(storage, number));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(partSchema, JSON.parse(text));
    return parsed.success && parsed.output.of === placeOf(storage) ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

function asZvol(kept: Part["zvols"][number]): Zvol {
  const { referenced, origin, guid, createTxg } = kept;
  return { ...kept, referenced, origin, guid, createTxg };
}

/**
 * Writes what is to be kept, part by part, so that nobody waits while 10,000 volumes become text; returns
 * the number of characters. Parts of an earlier writing that are left go.
 */
export async function writeKept(
  files: HostFiles,
  storage: MemorizedStorage,
  kept: Kept,
  writing: string,
): Promise<number> {
  const frame = { version: VERSION, of: placeOf(storage), writing, space: kept.space };
  const write = async (number: number, part: TextPart, parts: number) => {
    const head = JSON.stringify({ ...frame, parts }).slice(0, -1);
    const text = `${head},"zvols":[${part.zvols.join(",")}],"exports":[${
      part.exports.join(",")
    }]}\n`;
    await files.replaceText(fileOf(storage, number), text, 0o600);
    return text.length;
  };
  let first: TextPart | undefined;
  let length = 0;
  let parts = 0;
  for (const part of partsOf(kept.found)) {
    if (parts >= MOST_PARTS) return length;
    // The first one last, with their number: until then the earlier writing's makes all others strangers.
    if (first === undefined) first = part;
    else length += await write(parts, part, 0);
    parts++;
  }
  length += await write(0, first ?? { zvols: [], exports: [] }, Math.max(parts, 1));
  let left = Math.max(parts, 1);
  while (left <= MOST_PARTS && await files.remove(fileOf(storage, left))) left++;
  return length;
}

/** Rows in JSON. */
interface TextPart {
  readonly zvols: string[];
  readonly exports: string[];
}

function* partsOf(found: Found): Generator<TextPart> {
  let part: TextPart = { zvols: [], exports: [] };
  let length = 0;
  for (const kind of ["zvols", "exports"] as const) {
    for (const row of found[kind]) {
      const text = JSON.stringify(row);
      if (length > 0 && length + text.length > PART_LENGTH) {
        yield part;
        part = { zvols: [], exports: [] };
        length = 0;
      }
      length += text.length + 1;
      part[kind].push(text);
    }
  }
  if (length > 0) yield part;
}
