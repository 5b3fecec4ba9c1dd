/**
 * What a storage's memory shows, as pure values: for each path below its dataset what was read of it, and
 * by which read. Reads overlap each other and the writes of this node; which of two counts is decided here.
 */
import type { VolumeExport } from "../transport/transport.ts";
import type { Zvol } from "../truenas/zvols.ts";
import type { VolumeListing } from "../volumes/memory.ts";

/**
 * A moment in the order of what this memory did: the beginning of a read, the end of a write. Counted,
 * not measured, so that no two are equal.
 */
export type Moment = number;

/** One path: its zvol, and the exports that name it. A rename that stopped half-way leaves one without the other. */
export interface Entry {
  /** Undefined when there is no zvol at this path. */
  readonly zvol: Zvol | undefined;
  readonly exports: readonly VolumeExport[];
  /** When the read that told this began. */
  readonly readAt: Moment;
}

/** Entries by full path. One without zvol and exports says that nothing is there, and since when that is known. */
export type Picture = ReadonlyMap<string, Entry>;

/** Paths that this node wrote to, each with the end of its last write: no older read tells how they are. */
export type Written = ReadonlyMap<string, Moment>;

/** What a read found. */
export type Found = VolumeListing;

/** Puts a read of everything into the picture. */
export function withAll(picture: Picture, found: Found, began: Moment, written: Written): Picture {
  const next = new Map<string, Entry>();
  const told = entriesOf(found, began);
  for (const [path, before] of picture) {
    const now = told.get(path);
    if (isOlder(began, before, written.get(path))) next.set(path, before);
    else if (now !== undefined) next.set(path, now);
    // Else it is gone; and the note that it is gone has done its work.
  }
  for (const [path, now] of told) {
    if (!picture.has(path) && !isOlder(began, undefined, written.get(path))) next.set(path, now);
  }
  return next;
}

/** Puts a read of some paths into the picture; what it did not find is not there. */
export function withSome(
  picture: Picture,
  paths: readonly string[],
  found: Found,
  began: Moment,
  written: Written,
): Picture {
  const next = new Map(picture);
  const told = entriesOf(found, began);
  for (const path of paths) {
    if (isOlder(began, picture.get(path), written.get(path))) continue;
    // That nothing is there is kept until a later read of everything: an earlier one may still come in.
    next.set(path, told.get(path) ?? { zvol: undefined, exports: [], readAt: began });
  }
  return next;
}

/** The written paths that a read has not settled: those whose last write ended after it began. */
export function stillWritten(
  written: Written,
  began: Moment,
  paths: ReadonlySet<string> | "all",
): Written {
  return new Map(
    [...written].filter(([path, end]) => end > began || (paths !== "all" && !paths.has(path))),
  );
}

/** The picture as a listing. */
export function listingOf(picture: Picture): VolumeListing {
  const zvols: Zvol[] = [];
  const exports: VolumeExport[] = [];
  for (const entry of picture.values()) {
    if (entry.zvol !== undefined) zvols.push(entry.zvol);
    exports.push(...entry.exports);
  }
  return { zvols, exports };
}

/**
 * Paths with a zvol or an export, and not the other: what a read finds that was made while things moved,
 * and what is wrong on the array.
 */
export function halves(picture: Picture): Set<string> {
  const found = new Set<string>();
  for (const [path, { zvol, exports }] of picture) {
    if ((zvol === undefined) !== (exports.length === 0)) found.add(path);
  }
  return found;
}

/** The path that a row of the array's tables belongs to, as far as the picture knows. */
export function pathOfRow(
  picture: Picture,
  kind: VolumeExport["rows"][number]["kind"],
  id: number,
): string | undefined {
  let paths = ROWS.get(picture);
  if (paths === undefined) {
    paths = new Map();
    for (const [path, { exports }] of picture) {
      for (const { rows } of exports) {
        for (const row of rows) paths.set(`${row.kind} ${row.id}`, path);
      }
    }
    ROWS.set(picture, paths);
  }
  return paths.get(`${kind} ${id}`);
}

/** Paths by row, of pictures that were asked: events come in storms. */
const ROWS = new WeakMap<Picture, Map<string, string>>();

/** Whether a read that began then tells less than what is known. */
function isOlder(began: Moment, before: Entry | undefined, wroteAt: Moment | undefined): boolean {
  return (before !== undefined && before.readAt > began) || (wroteAt ?? began) > began;
}

function entriesOf(found: Found, readAt: Moment): Map<string, Entry> {
  const exports = new Map<string, VolumeExport[]>();
  for (const one of found.exports) {
    const same = exports.get(one.zvol);
    if (same === undefined) exports.set(one.zvol, [one]);
    else same.push(one);
  }
  const entries = new Map<string, Entry>();
  for (const zvol of found.zvols) {
    entries.set(zvol.name, { zvol, exports: exports.get(zvol.name) ?? [], readAt });
  }
  for (const [path, ones] of exports) {
    if (!entries.has(path)) entries.set(path, { zvol: undefined, exports: ones, readAt });
  }
  return entries;
}
