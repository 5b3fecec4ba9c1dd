/**
 * LUNs and NSIDs are ours to pick: at random among the free ones, so that a number is rarely used
 * again soon (design decision 7). Every row on the array counts as taken, foreign ones too.
 */
import { TnblockError } from "../common/error.ts";

/** LUNs below this need one byte only: every initiator addresses them the same way. */
const SIMPLE_LUNS = 256;
/**
 * The highest LUN of TrueNAS, used when no simple one is free: Linux and SCST both put up to 14 bits into
 * the peripheral form (docs/kernel-facts.md).
 */
const HIGHEST_LUN = 16382;
/** NSIDs stay below this. */
const NSID_LIMIT = 1024;
/** Namespaces in one subsystem: a warning from here on ... */
export const NAMESPACES_WARN = 900;
/** ... and no more past this; the kernel's own limit is 1,024 (NVMET_MAX_NAMESPACES, drivers/nvme/target/nvmet.h). */
export const NAMESPACES_LIMIT = 1000;

/** Picks a random integer from 0 up to, not including, `limit`. */
export type RandomInteger = (limit: number) => number;

function pick(
  from: number,
  to: number,
  taken: ReadonlySet<number>,
  random: RandomInteger,
): number | undefined {
  let free = 0;
  for (let number = from; number < to; number++) if (!taken.has(number)) free++;
  if (free === 0) return undefined;
  let nth = random(free);
  for (let number = from; number < to; number++) {
    if (!taken.has(number) && nth-- === 0) return number;
  }
  return undefined;
}

/** The error of {@link pickLun} or {@link pickNsid} when they would find nothing. */
export function whyFull(pickOne: () => number): TnblockError | undefined {
  try {
    pickOne();
    return undefined;
  } catch (error) {
    if (error instanceof TnblockError) return error;
    throw error;
  }
}

/** A free LUN of a target: below 256 while one is free, above that otherwise. */
export function pickLun(taken: ReadonlySet<number>, random: RandomInteger): number {
  const lun = pick(0, SIMPLE_LUNS, taken, random) ??
    pick(SIMPLE_LUNS, HIGHEST_LUN + 1, taken, random);
  if (lun === undefined) {
    throw new TnblockError(
      "no-space",
      "Cannot export the volume: the target has no free LUN left",
      {
        hint: "Run tnblock cleanup-orphans, or make another storage with a target of its own",
      },
    );
  }
  return lun;
}

/** What is taken on a target where only this LUN may be picked. */
export function allLunsBut(lun: number): ReadonlySet<number> {
  const luns = Array.from({ length: HIGHEST_LUN + 1 }, (_, number) => number);
  return new Set(luns.filter((number) => number !== lun));
}

/** A free NSID of a subsystem, below 1,024. */
export function pickNsid(taken: ReadonlySet<number>, random: RandomInteger): number {
  const nsid = pick(1, NSID_LIMIT, taken, random);
  if (nsid === undefined || taken.size >= NAMESPACES_LIMIT) {
    throw new TnblockError(
      "no-space",
      `Cannot export the volume: the subsystem holds ${taken.size} namespaces, and ${NAMESPACES_LIMIT} is the limit`,
      { hint: "Run tnblock cleanup-orphans, or make another storage with a subsystem of its own" },
    );
  }
  return nsid;
}
