/** Which clones for reading are this node's, also one that it was killed before marking. */
import type { Caller } from "../truenas/caller.ts";
import { isAtLeast } from "../truenas/dialect.ts";
import type * as zvols from "../truenas/zvols.ts";
import { isOurs } from "./ownership.ts";
import { placeOf, readingName, readingOf } from "./reading.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** A snapshot of a volume, by the names that its link has. */
interface Place {
  readonly zvol: string;
  readonly snapshot: string;
}

/** A snapshot that is asked for: its path is not that of the volume's name while a rename has stopped half-way. */
interface Wanted extends Place {
  /** Full path with `@`. */
  readonly of: string;
}

/**
 * What a clone lets this node read; undefined for one of another node, and for any other zvol.
 *
 * @param wanted which snapshot it is to be of; that of its origin unless given.
 */
export function ownReading(
  storage: Storage,
  array: Caller,
  clone: zvols.Zvol,
  wanted?: Wanted,
): Place | undefined {
  const reading = readingOf(clone);
  if (reading === undefined) return unmarkedReading(storage, array, clone, wanted);
  return isOurs(storage, clone) && reading.node === storage.node ? placeOf(reading) : undefined;
}

/**
 * From TrueNAS 26 on the marks are a second write. The name is a hash of this node, the zvol and the snapshot:
 * what has it, carries no mark and is a clone of that snapshot is what this node has made.
 */
function unmarkedReading(
  storage: Storage,
  array: Caller,
  clone: zvols.Zvol,
  wanted: Wanted | undefined,
): Place | undefined {
  const { origin, userProperties: has } = clone;
  if (origin === undefined || !isAtLeast(array.release, 26, 0)) return undefined;
  if (has["tnblock:op"] !== undefined || has["tnblock:volume"] !== undefined) return undefined;
  const place = wanted ?? placeOf({ of: origin });
  if (wanted !== undefined && wanted.of !== origin) return undefined;
  const name = zvolPath(storage, readingName(storage, place.zvol, place.snapshot));
  return clone.name === name ? place : undefined;
}
