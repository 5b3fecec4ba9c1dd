/**
 * What is noted on a volume: its notes, and whether it is protected from being freed. Both are ZFS user
 * properties of the zvol; clones do not get them, a rename keeps them.
 *
 * A property may be inherited from the dataset, where anybody may have set it. So each value begins
 * with the second in which its zvol was created, which no other has, and which a rename leaves alone:
 * `1763798400:1`, `1763798400:t:one line`, `1763798400:b:<base64url of UTF-8>`.
 */
import { Buffer } from "node:buffer";
import { TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import type { Caller } from "../truenas/caller.ts";
import { isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { withVolumeLock } from "./attachment.ts";
import { resolveVolume } from "./resolve.ts";
import type { Storage } from "./storage.ts";

const NOTES = "tnblock:notes";
const PROTECTED = "tnblock:protected";

/** Characters that the array takes in one string of a request (`middlewared/api/base/types/string.py`). */
const VALUE_LIMIT = 1024;

/** What tells a zvol's own values. */
type Noted = Pick<zvols.Zvol, "createdMs" | "userProperties">;

/** The notes of a volume; empty when there are none. */
export function notesOf(zvol: Noted): string {
  const value = ownValue(zvol, NOTES);
  if (value?.startsWith("t:")) return value.slice(2);
  return value?.startsWith("b:") ? Buffer.from(value.slice(2), "base64url").toString() : "";
}

/** Whether a volume must not be freed. */
export function isProtected(zvol: Noted): boolean {
  return ownValue(zvol, PROTECTED) === "1";
}

/**
 * Refuses a volume that is protected.
 *
 * @throws TnblockError `denied`.
 */
export function refuseProtected(volume: Pick<VolumeRef, "zvol">, zvol: Noted): void {
  if (!isProtected(zvol)) return;
  throw new TnblockError("denied", `Cannot free the volume "${volume.zvol}": it is protected`, {
    hint: "Take its protection away first, if nobody needs it",
  });
}

/** Reads notes and protection from the array. */
export async function readAttributes(
  storage: Storage,
  volume: VolumeRef,
): Promise<{ readonly notes: string; readonly protected: boolean }> {
  const { zvol } = await resolveVolume(storage, await storage.array(), volume);
  return { notes: notesOf(zvol), protected: isProtected(zvol) };
}

/**
 * Writes the notes; an empty text removes them. Any text survives as it is.
 *
 * @throws TnblockError `invalid` when they are too long; the old ones stay.
 */
export async function writeNotes(storage: Storage, volume: VolumeRef, text: string): Promise<null> {
  return await write(storage, volume, NOTES, (zvol) => {
    if (text === "") return undefined;
    const value = bind(zvol, packNotes(text));
    if (value.length <= VALUE_LIMIT) return value;
    throw new TnblockError(
      "invalid",
      `Cannot keep the notes of the volume "${volume.zvol}": they take ${value.length} characters, and the array keeps ${VALUE_LIMIT}`,
      {
        field: "args.value",
        hint: "Shorten them to about 1,000 characters, or 750 bytes of UTF-8 where there are " +
          "line breaks or letters beyond ASCII",
      },
    );
  });
}

/** Protects a volume from being freed, or not any more. */
export async function writeProtected(
  storage: Storage,
  volume: VolumeRef,
  on: boolean,
): Promise<null> {
  return await write(storage, volume, PROTECTED, (zvol) => on ? bind(zvol, "1") : undefined);
}

/** Property values are single lines; what is not plain ASCII is packed. */
function packNotes(text: string): string {
  const isPlain = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text);
  return isPlain ? `t:${text}` : `b:${Buffer.from(text).toString("base64url")}`;
}

function bind(zvol: Noted, value: string): string {
  return `${createdSeconds(zvol)}:${value}`;
}

/** The value that is the zvol's own; undefined without one, and for what it inherits. */
function ownValue(zvol: Noted, name: string): string | undefined {
  const value = zvol.userProperties[name];
  const prefix = `${createdSeconds(zvol)}:`;
  return value?.startsWith(prefix) ? value.slice(prefix.length) : undefined;
}

function createdSeconds(zvol: Noted): number {
  return Math.floor(zvol.createdMs / 1000);
}

/** How often a write whose answer was lost is looked at and tried again. */
const TRIES = 3;

/** One write, none when the value is so already; what became of a lost answer is looked up. */
async function write(
  storage: Storage,
  volume: VolumeRef,
  name: string,
  valueFor: (zvol: zvols.Zvol) => string | undefined,
): Promise<null> {
  return await withVolumeLock(storage, volume.zvol, async () => {
    const { zvol } = await resolveVolume(storage, await storage.array(), volume);
    const value = valueFor(zvol);
    if (isWritten(zvol, name, value)) return null;
    storage.deadline.check();
    for (let attempt = 1;; attempt++) {
      try {
        await zvols.setUserProperties(await storage.array(), zvol.name, { [name]: value });
        return null;
      } catch (error) {
        if (!isUnknownOutcome(error) || attempt >= TRIES) throw error;
        const now = await readSame(await storage.array(), zvol);
        if (now === undefined) throw error;
        if (isWritten(now, name, value)) return null;
      }
    }
  });
}

/** What is inherited is no reason to remove anything: it is not there. */
function isWritten(zvol: zvols.Zvol, name: string, value: string | undefined): boolean {
  return value === undefined
    ? ownValue(zvol, name) === undefined
    : zvol.userProperties[name] === value;
}

async function readSame(array: Caller, zvol: zvols.Zvol): Promise<zvols.Zvol | undefined> {
  const now = await zvols.read(array, zvol.name);
  return now?.guid === zvol.guid && now?.createdMs === zvol.createdMs ? now : undefined;
}
