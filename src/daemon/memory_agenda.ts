/**
 * What a memory reads next, and when: a pure function, so that 32 nodes and a storm of clones are a table
 * in a test. Times in milliseconds.
 */

/** How often things are done. */
export interface MemoryTiming {
  /** Between two reads of everything. */
  readonly periodMs: number;
  /** Least wait after an event: the changes of one operation come one after the other. */
  readonly eventMs: number;
  /** The same after a write of our own, which somebody may ask about soon. */
  readonly ownMs: number;
}

export const MEMORY_TIMING: MemoryTiming = { periodMs: 60_000, eventMs: 500, ownMs: 200 };

/** Reads take at most this share of the time: 1 in 20. */
const STRETCH = 20;
/** Longest wait between two reads that events ask for. */
const LONGEST_EVENT_MS = 15_000;
/** Event reads that are no further apart than this belong to one storm. */
export const STORM_MS = 30_000;
/** So many paths are read one by one in any case, ... */
const FEW = 2;
/** ... so many if they take less time than everything, ... */
const MANY = 16;
/** ... when each takes so long. */
const PATH_MS = 15;
/** Waits after a first, second, ... failed read; the last one is repeated. */
const RETRY_MS = [500, 1_000, 2_000, 5_000, 10_000, 30_000];

/** What there is to do. */
export interface Agenda {
  readonly timing: MemoryTiming;
  /** 0 to 1, drawn anew after each read: so nodes do not read in step. */
  readonly jitter: number;
  /** When the last read ended, of whatever kind and outcome. */
  readonly lastMs: number | undefined;
  /** When everything was last read, and how long that took. */
  readonly all: { readonly endMs: number; readonly tookMs: number } | undefined;
  /** Reads that failed since the last one that did not. */
  readonly failures: number;
  /** Since when everything is to be read anew, and whether at once: a new session, a pool that changed. */
  readonly allSinceMs: number | undefined;
  /** Since when paths that we wrote to are to be read. */
  readonly ownSinceMs: number | undefined;
  /** Since when paths that the array told of are to be read. */
  readonly toldSinceMs: number | undefined;
  /** Reads in the present storm of events. */
  readonly storm: number;
  /** Whether somebody waits. */
  readonly urgent: boolean;
  /** How many paths are to be read. */
  readonly paths: number;
  /** Whether one of them could not be read by itself. */
  readonly wholeOnly: boolean;
}

/** What to do: read everything or some paths at `atMs` (which may be past). */
export interface Step {
  readonly what: "all" | "some";
  readonly atMs: number;
}

/** Decides what is read next. */
export function decideNext(agenda: Agenda, nowMs: number): Step {
  const { timing, jitter, lastMs, all, urgent } = agenda;
  if (agenda.failures > 0) {
    const wait = RETRY_MS[Math.min(agenda.failures, RETRY_MS.length) - 1] ?? 0;
    return { what: "all", atMs: urgent ? nowMs : (lastMs ?? nowMs) + wait * (0.5 + jitter) };
  }
  if (all === undefined) return { what: "all", atMs: nowMs };
  const steps: Step[] = [{ what: "all", atMs: all.endMs + periodOf(agenda) * (0.9 + jitter / 5) }];
  const some = isFew(agenda) ? "some" : "all";
  const rest = some === "some" ? 0 : all.tookMs * STRETCH;
  if (agenda.allSinceMs !== undefined) {
    const atMs = agenda.allSinceMs + jitter * timing.eventMs;
    steps.push({ what: "all", atMs: Math.max(atMs, all.endMs + all.tookMs * STRETCH) });
  }
  if (agenda.ownSinceMs !== undefined) {
    const atMs = Math.max(agenda.ownSinceMs + timing.ownMs, (lastMs ?? 0) + rest);
    steps.push({ what: some, atMs });
  }
  if (agenda.toldSinceMs !== undefined) {
    const first = agenda.toldSinceMs + timing.eventMs * (1 + 2 * jitter);
    const apart = Math.min(timing.eventMs * 2 ** Math.min(agenda.storm, 10), LONGEST_EVENT_MS);
    const wait = Math.max(apart * (0.5 + jitter), rest);
    steps.push({ what: some, atMs: Math.max(first, (lastMs ?? 0) + wait) });
  }
  if (urgent) {
    const isSome = agenda.ownSinceMs !== undefined || agenda.toldSinceMs !== undefined;
    return { what: isSome ? some : "all", atMs: nowMs };
  }
  return steps.reduce((one, other) => other.atMs < one.atMs ? other : one);
}

/** How long after a read of everything the next one is due: longer when the read itself is dear. */
export function periodOf(agenda: Pick<Agenda, "timing" | "all">): number {
  return Math.max(agenda.timing.periodMs, (agenda.all?.tookMs ?? 0) * STRETCH);
}

/** A path costs up to six small queries: several are dearer than everything at once, if that is little. */
function isFew({ paths, all, wholeOnly }: Agenda): boolean {
  return !wholeOnly && (paths <= FEW || (paths <= MANY && paths * PATH_MS <= (all?.tookMs ?? 0)));
}
