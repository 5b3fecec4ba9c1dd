/**
 * A dataset, target or subsystem belongs to one storage of one cluster (design decision 10). The dataset
 * says so itself; of a target or subsystem the marks of the volumes that it carries do.
 */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import type { Caller } from "../truenas/caller.ts";
import * as datasets from "../truenas/datasets.ts";
import * as zvols from "../truenas/zvols.ts";
import { isMarked, OWNER_PROPERTY, ownerValue } from "./ownership.ts";
import type { Storage } from "./storage.ts";
import { isWeight } from "./weight.ts";

/** More neighbours than this are not looked at: one is enough to refuse. */
const MOST = 100;

/**
 * Refuses a dataset that holds another storage's, and a target or subsystem that carries another
 * storage's volumes. What carries no mark of tnblock is nobody's business.
 *
 * @param listing what is directly below the storage's dataset.
 */
export async function refuseShared(
  storage: Storage,
  array: Caller,
  listing: zvols.Listing,
  deadline: Deadline,
): Promise<void> {
  const { settings, transport } = storage;
  const below = await Promise.all(
    listing.filesystems.slice(0, MOST).map((name) => datasets.read(array, name, deadline.bounds())),
  );
  const own = [undefined, ownerValue(storage), listing.parent.userProperties[OWNER_PROPERTY]];
  const nested = below.find((one) => !own.includes(one?.userProperties[OWNER_PROPERTY]));
  if (nested !== undefined) {
    throw shared(
      `"${settings.dataset}" for it: "${nested.name}" below it belongs to another storage`,
      "tnb-dataset",
    );
  }
  // A weight stays behind when a storage goes: it is the target's, not a storage's.
  const neighbours = (await transport.listNeighbours(array, settings.dataset, deadline))
    .filter((name) => !isWeight({ name }));
  const marked = (await zvols.readSome(array, neighbours.slice(0, MOST), deadline.bounds()))
    .find(isMarked);
  if (marked === undefined) return;
  const [what, option] = settings.transport.kind === "iscsi"
    ? [`target "${settings.transport.targetIqn}"`, "tnb-target-iqn"]
    : [`subsystem "${settings.transport.subsystemNqn}"`, "tnb-subsystem-nqn"];
  throw shared(`the ${what} for it: it carries "${marked.name}" of another storage`, option);
}

function shared(what: string, option: string): TnblockError {
  return new TnblockError("not-ours", `Cannot use ${what}`, {
    field: option,
    hint: "Give each storage a dataset and a target or subsystem of its own",
  });
}
