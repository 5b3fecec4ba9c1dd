/**
 * What is to be done for a storage on this node, by what a look has shown: pure functions, so that a day of
 * lost portals and stopped guests is a table in a test. Times in milliseconds of the monotonic clock.
 */
import { formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { DiskIdentity, PortalGlance } from "../transport/transport.ts";
import type { HeldHere } from "../volumes/tidy_look.ts";

/** A volume that nobody uses stays for so long after its activation or its last use (design decision 6). */
export const IDLE_MS = 60_000;
/** The same for a snapshot that is read: a backup of several volumes may come back to it late. */
export const READING_IDLE_MS = 3_600_000;
/** Steps of one round; what is left comes in the next one. */
export const MOST_STEPS = 8;
/** Wait after a first failure of a step; it doubles ... */
const RETRY_FIRST_MS = 10_000;
/** ... up to this. */
const RETRY_LONGEST_MS = 300_000;

/** One thing to do. */
export type Step =
  | { readonly kind: "connect"; readonly subject: string; readonly portal: Portal }
  /**
   * On what is held under the name `subject`. `check`: its link is compared with the disk. `release`: its volume
   * may be gone. `mend`: paths of it came back. `idle`: nobody seems to use it.
   */
  | { readonly kind: "check" | "release" | "mend" | "idle"; readonly subject: string }
  /** There are paths to the volume `subject`, which this node holds under no name. */
  | { readonly kind: "stray"; readonly subject: string; readonly identity: DiskIdentity };

/** Failures of a step in a row. */
export interface Failures {
  readonly count: number;
  readonly lastMs: number;
}

/** What is remembered of a name from one look to the next. */
export interface Tracked {
  /** When it was last seen in use, or activated; when it was first seen, if neither. */
  readonly usedMs: number;
  /** What its device was when its link was last found to be right. */
  readonly checkedMark?: string;
  /** Whether an activation has looked at its link since. */
  readonly isVerified?: boolean;
}

/** Paths to a volume that this node does not hold. */
export interface Stray {
  readonly zvol: string;
  readonly identity: DiskIdentity;
}

/** What a decision rests on. */
export interface KeeperView {
  readonly portals: readonly PortalGlance[];
  readonly held: readonly HeldHere[];
  /** Volumes of this storage, as far as memory knows, of which this node has paths and nothing else. */
  readonly strays: readonly Stray[];
  readonly tracked: ReadonlyMap<string, Tracked>;
  /** By {@link stepKey}. */
  readonly failures: ReadonlyMap<string, Failures>;
  /** Whether memory says that what is held is no more, or another disk: reason to look. */
  readonly mayBeGone: (held: HeldHere) => boolean;
}

/** One step in the whole storage. */
export function stepKey({ kind, subject }: Pick<Step, "kind" | "subject">): string {
  return `${kind} ${subject}`;
}

/** The steps of a round, most urgent first, at most {@link MOST_STEPS}. */
export function decideSteps(view: KeeperView, nowMs: number): Step[] {
  const connects: Step[] = view.portals.filter(({ state }) => state === "missing")
    .map(({ portal }) => ({ kind: "connect", subject: formatPortal(portal), portal }));
  const held = view.held.flatMap((one): Step[] => {
    const kind = kindFor(one, view, nowMs);
    return kind === undefined ? [] : [{ kind, subject: one.name }];
  });
  const strays = view.strays.flatMap(({ zvol, identity }): Step[] => {
    const usedMs = view.tracked.get(zvol)?.usedMs ?? nowMs;
    return isIdle(zvol, usedMs, nowMs) ? [{ kind: "stray", subject: zvol, identity }] : [];
  });
  const isUrgent = ({ subject, kind }: Step) =>
    kind === "check" && view.held.some((one) => one.name === subject && isWrong(one));
  return [
    ...held.filter(isUrgent),
    ...connects,
    ...held.filter((step) => !isUrgent(step)).sort((one, other) => rank(one) - rank(other)),
    ...strays,
  ].filter((step) => isDue(view.failures.get(stepKey(step)), nowMs)).slice(0, MOST_STEPS);
}

/** Milliseconds until a step is tried again. */
export function retryAfterMs(count: number): number {
  return Math.min(RETRY_FIRST_MS * 2 ** Math.min(count - 1, 20), RETRY_LONGEST_MS);
}

/** Whether a name, which nobody seems to use, has been so for long enough. */
export function isIdle(name: string, usedMs: number, nowMs: number): boolean {
  return nowMs - usedMs >= (name.includes("@") ? READING_IDLE_MS : IDLE_MS);
}

function kindFor(
  one: HeldHere,
  view: KeeperView,
  nowMs: number,
): "check" | "release" | "mend" | "idle" | undefined {
  const { disk, isLinked, isAttached, seemsUsed, name } = one;
  const isReading = name.includes("@");
  const tracked = view.tracked.get(name);
  if (isWrong(one)) return "check";
  const wouldWait = (kind: Step["kind"]) =>
    !isDue(view.failures.get(stepKey({ kind, subject: name })), nowMs);
  // Whoever opens it now is to get the right one.
  const isUnchecked = isLinked && disk?.device !== undefined && disk.mark !== tracked?.checkedMark;
  if (isUnchecked && !wouldWait("check")) return "check";
  if (!isReading && view.mayBeGone(one) && !wouldWait("release")) return "release";
  // A clone for reading is on the array, too: it goes also when the node has been restarted since. With every
  // path away nobody can say who waits for one, and taking paths away would hang.
  const mayGo = (isAttached || isReading) && !seemsUsed &&
    view.portals.some(({ state }) => state === "live");
  const usedMs = tracked?.usedMs ?? nowMs;
  if (mayGo && isIdle(name, usedMs, nowMs) && !wouldWait("idle")) return "idle";
  if (isLinked && (disk?.lost ?? 0) > 0 && one.known !== undefined && !wouldWait("mend")) {
    return "mend";
  }
  return undefined;
}

/** Whether its link certainly leads to another disk than it is for. */
function isWrong({ isLinked, linked, known, disk }: HeldHere): boolean {
  if (!isLinked) return false;
  if (linked === undefined || (disk?.strangers.length ?? 0) > 0) return true;
  return known !== undefined && idOf(known.identity) !== idOf(linked);
}

function idOf(identity: DiskIdentity): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}

function rank({ kind }: Step): number {
  return ["release", "mend", "check", "idle"].indexOf(kind);
}

function isDue(failures: Failures | undefined, nowMs: number): boolean {
  return failures === undefined || nowMs - failures.lastMs >= retryAfterMs(failures.count);
}
