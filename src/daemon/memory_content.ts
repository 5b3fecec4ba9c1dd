/**
 * What a memory holds and what it owes: the picture, the paths that are to be read again, and since when.
 * No clock, no array: times are given to it, and reads as they come in.
 */
import { sameTag, type VolumeRef } from "../common/volume.ts";
import { tagOf } from "../transport/transport.ts";
import type { ArrayEvent } from "../truenas/session.ts";
import type { VolumeListing } from "../volumes/memory.ts";
import type { Agenda } from "./memory_agenda.ts";
import { meaningOf, type RecentExtents } from "./memory_events.ts";
import {
  type Found,
  halves,
  listingOf,
  type Moment,
  type Picture,
  stillWritten,
  withAll,
  withSome,
  type Written,
} from "./memory_picture.ts";

/** So many halves that are seen for the first time are looked at once more; with more the array is at fault. */
const MOST_HALVES = 100;

/** The content of one storage's memory. Paths are full ones. */
export class MemoryContent {
  readonly #dataset: string;
  readonly #recent: RecentExtents = new Map();
  readonly #told = new Map<string, Moment>();
  #moment: Moment = 0;
  #picture: Picture = new Map();
  #listing: VolumeListing | undefined;
  #written: Written = new Map();
  #ownSinceMs: number | undefined;
  #toldSinceMs: number | undefined;
  #whole: { readonly moment: Moment; readonly sinceMs: number } | undefined;
  #wholeOnly = false;
  #halves: ReadonlySet<string> = new Set();

  constructor(dataset: string) {
    this.#dataset = dataset;
  }

  /** The present moment: writes that ended before are known to {@link owes}. */
  get moment(): Moment {
    return this.#moment;
  }

  /** Begins a read. */
  begin(): Moment {
    return ++this.#moment;
  }

  /** The listing; the same object until something changes. */
  listing(): VolumeListing {
    this.#listing ??= listingOf(this.#picture);
    return this.#listing;
  }

  /** What is to be read, for {@link decideNext}. */
  agenda(): Pick<
    Agenda,
    "allSinceMs" | "ownSinceMs" | "toldSinceMs" | "paths" | "wholeOnly"
  > {
    return {
      allSinceMs: this.#whole?.sinceMs,
      ownSinceMs: this.#ownSinceMs,
      toldSinceMs: this.#toldSinceMs,
      paths: this.duePaths().length,
      wholeOnly: this.#wholeOnly,
    };
  }

  /** The paths that are to be read. */
  duePaths(): string[] {
    return [...new Set([...this.#written.keys(), ...this.#told.keys()])];
  }

  /** Whether events told, up to a moment, of paths that are not read yet. */
  isToldBy(until: Moment): boolean {
    return [...this.#told.values()].some((moment) => moment <= until);
  }

  /** Whether events have told of paths that are not read yet. */
  get isTold(): boolean {
    return this.#told.size > 0;
  }

  /** Whether a write that ended up to a moment is not in the picture yet. */
  owes(until: Moment): boolean {
    return [...this.#written.values()].some((end) => end <= until);
  }

  /**
   * Whether zvol and export are at a path as a name says; false also for a path that has changed and was not
   * read yet.
   */
  has(path: string, tag: VolumeRef["tag"]): boolean {
    if (this.#written.has(path) || this.#told.has(path)) return false;
    const entry = this.#picture.get(path);
    if (entry?.zvol === undefined) return false;
    return entry.exports.some(({ identity }) => tag === undefined || sameTag(tag, tagOf(identity)));
  }

  /** This node has written to paths. */
  wrote(paths: readonly string[], nowMs: number): void {
    const end = ++this.#moment;
    this.#written = new Map([
      ...this.#written,
      ...paths.map((path): [string, Moment] => [path, end]),
    ]);
    this.#ownSinceMs ??= nowMs;
  }

  /** The array has told of a change. */
  heard(event: ArrayEvent, nowMs: number): void {
    const meaning = meaningOf(event, this.#dataset, this.#picture, this.#recent);
    if (meaning.kind === "all") this.wantAll(nowMs);
    if (meaning.kind === "paths") this.#tell(meaning.paths, nowMs);
  }

  /** Everything is to be read again. */
  wantAll(nowMs: number): void {
    this.#whole = { moment: ++this.#moment, sinceMs: this.#whole?.sinceMs ?? nowMs };
  }

  /** Takes what was kept from before; anything read is newer. */
  takeKept(found: Found): void {
    this.#show(withAll(this.#picture, found, 0, this.#written));
  }

  /**
   * Takes a read of everything.
   *
   * @returns paths that are halves since the read before: no operation takes that long.
   */
  takeAll(found: Found, began: Moment, nowMs: number): string[] {
    this.#show(withAll(this.#picture, found, began, this.#written));
    this.#settle(began, "all");
    if (this.#whole !== undefined && this.#whole.moment < began) this.#whole = undefined;
    this.#wholeOnly = false;
    return this.#lookAtHalves(nowMs);
  }

  /** Takes a read of some paths, of which it tells of `told`. */
  takeSome(asked: readonly string[], told: readonly string[], found: Found, began: Moment): void {
    this.#show(withSome(this.#picture, told, found, began, this.#written));
    this.#settle(began, new Set(told));
    if (told.length < asked.length) this.#wholeOnly = true;
  }

  #show(picture: Picture): void {
    this.#picture = picture;
    this.#listing = undefined;
  }

  /** What a read that began then has told need not be read again. */
  #settle(began: Moment, paths: ReadonlySet<string> | "all"): void {
    this.#written = stillWritten(this.#written, began, paths);
    if (this.#written.size === 0) this.#ownSinceMs = undefined;
    for (const [path, moment] of this.#told) {
      if (moment < began && (paths === "all" || paths.has(path))) this.#told.delete(path);
    }
    if (this.#told.size === 0) this.#toldSinceMs = undefined;
  }

  #tell(paths: readonly string[], nowMs: number): void {
    const moment = ++this.#moment;
    for (const path of paths) this.#told.set(path, moment);
    this.#toldSinceMs ??= nowMs;
  }

  /**
   * A zvol without export, or an export without zvol, may be a volume that was being made or renamed while
   * it was read: looked at once more.
   */
  #lookAtHalves(nowMs: number): string[] {
    const before = this.#halves;
    this.#halves = halves(this.#picture);
    const fresh = [...this.#halves].filter((path) => !before.has(path));
    if (fresh.length > 0 && fresh.length <= MOST_HALVES) this.#tell(fresh, nowMs);
    return [...this.#halves].filter((path) => before.has(path));
  }
}
