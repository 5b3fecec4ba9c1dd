/**
 * Giving a disk out while the array's API is away, by what the array said of it before (design decision 17). The
 * disk itself is verified as ever: its naa or uuid is read live, on every path, and it may not have become smaller.
 * What the disk cannot show is whether it still belongs to the guest that asks. Of that the guests' configurations are
 * the evidence: pmxcfs shows them alike on every node that has quorum, and whoever renames a volume or gives it to
 * another guest changes them with it.
 *
 * | meanwhile, elsewhere | what shows it |
 * |---|---|
 * | freed, and made anew under the name, the LUN or both | another naa or uuid answers: not found here, refused |
 * | renamed, or given to another guest | no configuration has the old name, or one has its LUN or uuid under another name |
 * | made a template | its name begins with `base-` from then on: as renamed |
 * | shrunk, or rolled back to a smaller size | it is smaller than it was: refused |
 * | rolled back, size unchanged | nothing: what the array has is right, and this node holds nothing of it |
 * | grown | a larger disk of the same naa or uuid is taken: volumes grow, and never shrink but by rolling back |
 * | the storage points at another array | address, target, dataset and cluster are kept with the identity |
 */
import * as v from "valibot";
import { type ErrorCode, TnblockError } from "../common/error.ts";
import type { VolumeRef } from "../common/volume.ts";
import { findGuests } from "../host/guest_configs.ts";
import { arrayErrorIn, outcomeOf } from "../truenas/errors.ts";
import { isMeant, otherKnownNames, otherLinks } from "./attachment.ts";
import { guestsNaming } from "./guests.ts";
import type { Storage } from "./storage.ts";
import { tagText } from "./tag_text.ts";
import { isKept, readVerified, type VerifiedDisk } from "./verified_disks.ts";

/**
 * Milliseconds for which what the array said is worth something: 30 days. What PVE changes is in the configurations,
 * however old it is; the bound is for what is done past PVE, by hand on the array or by restoring it from another one
 * with the same naa, which the longer the likelier has happened. The daemon renews what it sees to be so every hour, so
 * that it counts from the outage on; without a daemon it counts from the last activation.
 */
export const MOST_AGE_MS = 30 * 24 * 3_600_000;

/** That the array gave no answer; being locked out, refused, or not trusted is one. */
const NO_ANSWER: readonly ErrorCode[] = ["unreachable", "timeout"];

/** Whether a failure says that nobody answers at the array's API. */
export function isNoAnswer(error: unknown): error is TnblockError {
  if (!(error instanceof TnblockError) || !NO_ANSWER.includes(error.code)) return false;
  return arrayErrorIn(error) === undefined || outcomeOf(error) !== "answered";
}

/** What the guests' configurations say of a volume. */
export interface Evidence {
  /** Whether the present configuration of a guest names it as it was asked for. */
  readonly isNamed: boolean;
  /** Guests whose present configuration has its LUN or uuid under another name. */
  readonly otherwise: readonly number[];
  /** Other names under which this node has the disk, or had it when it was last running. */
  readonly here: readonly string[];
  /** Whether all configurations could be read. */
  readonly isComplete: boolean;
  /** False when pmxcfs says that this node has no quorum: configurations may be old. */
  readonly hasQuorum: boolean;
}

/**
 * Decides whether a disk may be looked for by what was kept of it.
 *
 * @param ageMs how long ago the array said it; negative when the node's clock has been set back since.
 * @returns why not, as the end of a sentence; undefined when it may.
 */
export function whyNot(
  kept: Pick<VerifiedDisk, "tag"> | undefined,
  volume: VolumeRef,
  ageMs: number,
  evidence: Evidence,
): string | undefined {
  if (kept === undefined) return "this node does not know its disk";
  if (!isMeant(volume, kept)) return "this node knows another disk by that name";
  // A clock that is behind after a loss of power says nothing about the age, and is no reason to stand still.
  if (ageMs > MOST_AGE_MS) return `what this node knows of its disk is ${daysOf(ageMs)} days old`;
  if (!evidence.hasQuorum) return "this node has no quorum, so that nobody knows whose it is";
  if (evidence.otherwise.length > 0) {
    return `the configuration of guest ${
      evidence.otherwise.join(", ")
    } has its disk under another name`;
  }
  if (evidence.here.length > 0) return `this node has its disk as ${evidence.here.join(", ")}`;
  if (!evidence.isComplete) return "not all configurations of guests can be read";
  if (!evidence.isNamed) return "no guest's configuration names it";
  return undefined;
}

/**
 * The volume's disk as the array last described it.
 *
 * @param away why the array was not asked: {@link isNoAnswer}.
 * @param use what is done with it.
 * @throws TnblockError with its code, and what speaks against doing without the array.
 */
export async function diskWithoutArray(
  storage: Storage,
  volume: VolumeRef,
  away: TnblockError,
  use: keyof typeof DONE,
): Promise<VerifiedDisk> {
  const { host, log } = storage;
  const kept = isKept(volume.zvol) ? await readVerified(storage, volume.zvol) : undefined;
  const ageMs = kept === undefined ? 0 : host.now() - kept.toldMs;
  const evidence = kept === undefined ? NO_EVIDENCE : await gather(storage, volume, kept);
  const why = whyNot(kept, volume, ageMs, evidence);
  if (kept === undefined || why !== undefined) throw refused(volume, away, use, why ?? "");
  log.warning(
    `the API does not answer (${away.message}); "${volume.zvol}" is ${
      DONE[use]
    } by what the array said of it ${agoInWords(ageMs)}: ${CHECKED[use]}`,
  );
  return kept;
}

const membersSchema = v.object({ cluster: v.optional(v.object({ quorate: v.number() })) });

const NO_EVIDENCE: Evidence = {
  isNamed: false,
  otherwise: [],
  here: [],
  isComplete: true,
  hasQuorum: true,
};

async function gather(
  storage: Storage,
  volume: VolumeRef,
  kept: VerifiedDisk,
): Promise<Evidence> {
  const tag = tagText(kept.tag);
  const [naming, others, linked, known, hasQuorum] = await Promise.all([
    guestsNaming(storage, volume),
    findGuests(storage.host, {
      storage: storage.settings.id,
      contains: tag,
      isMeant: (volname) => isOtherNameOf(volname, volume.zvol, tag),
      exceptNode: "",
    }),
    otherLinks(storage, volume, kept.identity),
    otherKnownNames(storage, volume, kept.identity),
    readQuorum(storage),
  ]);
  return {
    isNamed: naming.now,
    otherwise: others.guests.filter(({ now }) => now).map(({ vmid }) => vmid),
    here: [...new Set([...linked, ...known])],
    isComplete: naming.isSure && others.unread.length === 0,
    hasQuorum,
  };
}

/** Whether a volname of a configuration means the same export by another zvol's name. */
export function isOtherNameOf(volname: string, zvol: string, tag: string): boolean {
  const own = volname.slice(volname.lastIndexOf("/") + 1);
  return own.startsWith("vol-") && own.endsWith(`-${tag}`) && own !== `vol-${zvol}-${tag}`;
}

/**
 * Whether pmxcfs has quorum: `/etc/pve/.members` holds `"cluster": {..., "quorate": 1}`, and no such part on a node
 * that is in no cluster, nor on one whose pmxcfs does not know its cluster yet (pve-cluster,
 * `cfs_create_memberlist_msg` in status.c). Unreadable is no quorum: then nothing else below /etc/pve could be believed.
 */
async function readQuorum({ host, log }: Storage): Promise<boolean> {
  try {
    const text = await host.files.readText("/etc/pve/.members") ?? "{}";
    const members = v.parse(membersSchema, JSON.parse(text));
    if (members.cluster !== undefined) return members.cluster.quorate === 1;
    return await host.files.status("/etc/pve/corosync.conf") === undefined;
  } catch (error) {
    log.warning(
      `whether this node has quorum is not known: ${
        error instanceof Error ? error.message : String(error)
      }`,
    );
    return false;
  }
}

/** In words. */
const DONE = { attach: "attached", describe: "described" } as const;
const CHECKED = {
  attach:
    "naa or uuid and size are compared with the disk, its export, its snapshots and its owner are not asked for",
  describe: "nothing is compared",
} as const;

function refused(
  volume: VolumeRef,
  away: TnblockError,
  use: keyof typeof DONE,
  why: string,
): TnblockError {
  return new TnblockError(
    away.code,
    `Cannot ${use} the volume "${volume.zvol}" without the array, because ${why}: ${away.message}`,
    { cause: away, ...(away.hint === undefined ? {} : { hint: away.hint }) },
  );
}

function agoInWords(ms: number): string {
  if (ms < 0) return "at a time that this node's clock has not reached yet";
  const hours = Math.floor(ms / 3_600_000);
  if (hours < 1) return `${Math.floor(ms / 60_000)} minutes ago`;
  return hours < 48 ? `${hours} hours ago` : `${daysOf(ms)} days ago`;
}

function daysOf(ms: number): number {
  return Math.floor(ms / (24 * 3_600_000));
}
