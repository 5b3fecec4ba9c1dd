/**
 * The weight of an iSCSI target: one small zvol that is mapped for good. A target without LUNs vanishes from
 * discovery, and the array's own deletion of a zvol takes a target with it whose last LUN it was. Made when
 * a storage is validated, and when a volume is allocated and it is missing; no guest's, so never listed or freed.
 */
import { createHash } from "node:crypto";
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { allLunsBut } from "../transport/numbers.ts";
import type { Groundwork } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import { isExists, isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { isOurs, marks } from "./ownership.ts";
import { type Storage, zvolPath } from "./storage.ts";

/** On the weight, once it is mapped: the IQN of the target that it weighs down. */
const WEIGHT_PROPERTY = "tnblock:weight";

/** Bytes: a multiple of every block size. */
const SIZE = 1024 * 1024;

/** The LUN that every initiator asks first. */
const LUN = 0;

/** Least time for making a weight in an operation that somebody waits for, in ms: four writes, two reloads. */
const WORTH_BEGINNING_MS = 15_000;

/** Names that the Perl plugin gave, by generation: for all targets, by target, by target with a hash of its IQN. */
const LEGACY_NAME = /^pve-(?:plugin-weight|weight-[A-Za-z0-9:_.-]+)$/;

const OWN_NAME = /^tnb-weight-[0-9a-f]{8}$/;

function hashOf(iqn: string): string {
  return createHash("sha1").update(iqn).digest("hex").slice(0, 8);
}

/** The name of a target's weight: the same on every node, and no name of a guest's volume. */
export function weightName(iqn: string): string {
  return `tnb-weight-${hashOf(iqn)}`;
}

/** Whether a zvol is the weight of a target, tnblock's or one that the Perl plugin made. */
export function isWeight(zvol: Pick<zvols.Zvol, "name">): boolean {
  const name = zvol.name.slice(zvol.name.lastIndexOf("/") + 1);
  return OWN_NAME.test(name) || LEGACY_NAME.test(name);
}

/**
 * Whether nothing is to be done, as far as a listing tells: so an allocation asks nothing more. A weight of
 * ours says itself that it was mapped; one of the Perl plugin is taken at its word.
 */
function isKnownGood(iqn: string, listing: Pick<zvols.Listing, "zvols">): boolean {
  return listing.zvols.filter(isWeight).some((zvol) => {
    const name = zvol.name.slice(zvol.name.lastIndexOf("/") + 1);
    if (OWN_NAME.test(name)) return zvol.userProperties[WEIGHT_PROPERTY] === iqn;
    const hash = /-([0-9a-f]{8})$/.exec(name)?.[1];
    return hash === undefined || hash === hashOf(iqn);
  });
}

/**
 * Makes the target's weight unless it has one, or makes a half-made one whole. Over NVMe/TCP there is nothing to
 * do: a subsystem without namespaces stays. A failure is a warning: the next validation or allocation tries again.
 *
 * @param listing what is directly below the dataset.
 * @param thorough looks at the weight's export even when the listing says that all is well.
 */
export async function ensureWeight(
  storage: Storage,
  array: Caller,
  listing: Pick<zvols.Listing, "zvols">,
  groundwork: Groundwork,
  deadline: Deadline,
  thorough = false,
): Promise<void> {
  const { settings, log } = storage;
  if (settings.transport.kind !== "iscsi") return;
  const { targetIqn } = settings.transport;
  if (!thorough && isKnownGood(targetIqn, listing)) return;
  // What is begun is not cut, and nobody may wait for it in vain.
  if (deadline.leftMs() < WORTH_BEGINNING_MS) {
    log.info(`the weight of target "${targetIqn}" is not looked at: too little time is left`);
    return;
  }
  try {
    await makeWhole(storage, array, targetIqn, listing, groundwork, deadline);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warning(
      `target "${targetIqn}" has no weight, and may vanish with its last volume: ${reason}`,
    );
  }
}

async function makeWhole(
  storage: Storage,
  array: Caller,
  iqn: string,
  listing: Pick<zvols.Listing, "zvols">,
  groundwork: Groundwork,
  deadline: Deadline,
): Promise<void> {
  const own = zvolPath(storage, weightName(iqn));
  if (await isWeighted(storage, array, listing, own, deadline)) return;
  const there = listing.zvols.find((zvol) => zvol.name === own) ??
    await findOrCreate(storage, array, iqn, own);
  if (!isOurs(storage, there)) {
    throw new Error(`"${own}" is there, but carries no mark of this storage`);
  }
  const found = await storage.transport.lookUp(array, own, deadline);
  if (found.kind === "foreign") throw new Error(`"${own}" is exported as ${found.what}`);
  if (found.kind !== "ours") await exportAtLunZero(storage, array, own, groundwork, deadline);
  if (there.userProperties[WEIGHT_PROPERTY] === iqn) return;
  // Last: a weight that says so is whole, and costs an allocation no look at its export.
  await zvols.setUserProperties(array, own, { [WEIGHT_PROPERTY]: iqn });
  storage.log.info(`"${own}" keeps target "${iqn}" visible while it has no other LUN`);
}

/** Whether another zvol than {@link own} weighs the target down: the Perl plugin's, or another dataset's. */
async function isWeighted(
  storage: Storage,
  array: Caller,
  listing: Pick<zvols.Listing, "zvols">,
  own: string,
  deadline: Deadline,
): Promise<boolean> {
  const { transport, settings } = storage;
  const others = listing.zvols.filter((zvol) => isWeight(zvol) && zvol.name !== own);
  for (const { name } of others) {
    const found = await transport.lookUp(array, name, deadline);
    if (found.kind === "ours" && found.export.enabled) return true;
  }
  const neighbours = await transport.listNeighbours(array, settings.dataset, deadline);
  return neighbours.some((name) => isWeight({ name }));
}

async function findOrCreate(
  storage: Storage,
  array: Caller,
  iqn: string,
  path: string,
): Promise<zvols.Zvol> {
  const { settings, host } = storage;
  try {
    await zvols.create(array, {
      name: path,
      volsize: SIZE,
      volblocksize: settings.zvolBlockSize < 1024
        ? String(settings.zvolBlockSize)
        : `${settings.zvolBlockSize / 1024}K`,
      sparse: true,
      userProperties: marks(storage, weightName(iqn), host.randomUuid()),
    });
  } catch (error) {
    // Another node was quicker, or the answer was lost: what stands there is looked at.
    if (!isExists(error) && !isUnknownOutcome(error)) throw error;
  }
  const made = await zvols.read(array, path);
  if (made === undefined) throw new Error(`"${path}" is not there after it was made`);
  return made;
}

async function exportAtLunZero(
  storage: Storage,
  array: Caller,
  path: string,
  groundwork: Groundwork,
  deadline: Deadline,
): Promise<void> {
  const { transport } = storage;
  // An extent on it is as good as a new one: nobody ever reads from this disk.
  const notNew = () => Promise.resolve(false);
  const onlyZero = { ...groundwork, taken: allLunsBut(LUN) };
  const first = groundwork.taken.has(LUN) ? groundwork : onlyZero;
  try {
    await transport.createExport(array, path, first, notNew, deadline);
  } catch (error) {
    // Somebody took it at the same moment, and no other LUN might be picked.
    const wasTaken = error instanceof TnblockError && error.code === "no-space";
    if (first === groundwork || !wasTaken) throw error;
    await transport.createExport(array, path, groundwork, notNew, deadline);
  }
}
