/**
 * Taking over volumes that are there already: those of the Perl plugin, of this storage under a former id, of a
 * replica that was restored. Only their marks are written; data and exports stay as they are.
 */
import { TnblockError } from "../common/error.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as datasets from "../truenas/datasets.ts";
import type { Dataset } from "../truenas/datasets.ts";
import * as zvols from "../truenas/zvols.ts";
import { withVolumeLock } from "./attachment.ts";
import { refuseShared } from "./exclusive.ts";
import { readJournal } from "./journal.ts";
import {
  checkDataset,
  isOurs,
  isRenameBegun,
  marks,
  OWNER_PROPERTY,
  ownerValue,
  renamedFrom,
} from "./ownership.ts";
import { look } from "./look.ts";
import { type Storage, zvolPath } from "./storage.ts";
import { isWeight, weightName } from "./weight.ts";

/** What may be taken over. */
export interface AdoptOptions {
  /** Whether a zvol's name, the last component of its path, is one of a guest's volume. */
  readonly isName: (zvol: string) => boolean;
  /** Ids of all storages that the cluster has, of whatever type: what carries the marks of one of them is its. */
  readonly living: readonly string[];
  /** The other cluster whose marks are taken off, as its administrator says; none unless given. */
  readonly ofCluster?: string | undefined;
  /** Whether volumes that nothing exports are taken over too: they have no name before they are exported. */
  readonly unexported?: boolean;
}

/** One that may be taken over. */
export interface Adoptable {
  /** Last component of its path. */
  readonly zvol: string;
  readonly found: zvols.Zvol;
  /** Undefined when nothing exports it. */
  readonly identity: DiskIdentity | undefined;
  /** Whose it was, as the end of a sentence. */
  readonly was: string;
}

/** One that may not. */
export interface NotAdoptable {
  readonly zvol: string;
  readonly why: string;
}

/** What is in the dataset and is not this storage's. */
export interface Adoption {
  /** Whose the dataset is as its mark says, `<cluster>/<storage>`, when it is to be taken over too. */
  readonly formerOwner: string | undefined;
  readonly adoptable: readonly Adoptable[];
  readonly refused: readonly NotAdoptable[];
}

/** Zvols looked up at a time. */
const AT_ONCE = 8;

/**
 * Looks at all that is directly below the dataset and is not this storage's. Changes nothing.
 *
 * @throws TnblockError `not-ours` when dataset, target or subsystem belong to another storage; `host-fault` when the
 *   journal cannot be read.
 */
export async function findAdoptable(storage: Storage, options: AdoptOptions): Promise<Adoption> {
  const { settings, deadline } = storage;
  const array = await storage.array();
  const listing = await zvols.list(array, settings.dataset, deadline.bounds());
  const formerOwner = foreignOwner(storage, listing.parent, options);
  await refuseShared(storage, array, listing, deadline);
  const foreign = listing.zvols.filter((zvol) => !isOurs(storage, zvol));
  const adoptable: Adoptable[] = [];
  const refused: NotAdoptable[] = [];
  for (let at = 0; at < foreign.length; at += AT_ONCE) {
    const some = foreign.slice(at, at + AT_ONCE);
    const judged = await Promise.all(some.map((zvol) => judge(storage, array, zvol, options)));
    for (const one of judged) "why" in one ? refused.push(one) : adoptable.push(one);
  }
  return { formerOwner, adoptable, refused };
}

/** The dataset's owner, when that is another storage that is gone; refuses one that is not. */
function foreignOwner(
  storage: Storage,
  parent: Dataset,
  { living, ofCluster }: AdoptOptions,
): string | undefined {
  const owner = parent.userProperties[OWNER_PROPERTY];
  const [cluster, id] = owner?.split("/") ?? [];
  const isGone = owner !== undefined && owner !== ownerValue(storage) && id !== undefined &&
    (cluster === ofCluster || cluster === storage.clusterId && !living.includes(id));
  const { [OWNER_PROPERTY]: _, ...others } = parent.userProperties;
  checkDataset(storage, isGone ? { ...parent, userProperties: others } : parent);
  return isGone ? owner : undefined;
}

/**
 * Writes on the dataset that it is this storage's now; nothing when it says so already. One write.
 *
 * @param formerOwner as {@link findAdoptable} told it.
 * @throws TnblockError `not-ours` when it says something else by now.
 */
export async function adoptDataset(
  storage: Storage,
  formerOwner: string,
  options: AdoptOptions,
): Promise<void> {
  const { settings, deadline } = storage;
  const array = await storage.array();
  const before = await datasets.read(array, settings.dataset, deadline.bounds());
  if (before === undefined || foreignOwner(storage, before, options) !== formerOwner) {
    throw new TnblockError(
      "not-ours",
      `Cannot adopt the dataset "${settings.dataset}": its mark is not what was shown`,
    );
  }
  deadline.check();
  const mark = { [OWNER_PROPERTY]: ownerValue(storage) };
  await datasets.setUserProperties(array, settings.dataset, mark);
  const after = await datasets.read(array, settings.dataset);
  if (after !== undefined) checkDataset(storage, after);
}

async function judge(
  storage: Storage,
  array: Caller,
  found: zvols.Zvol,
  options: AdoptOptions,
): Promise<Adoptable | NotAdoptable> {
  const zvol = found.name.slice(storage.settings.dataset.length + 1);
  const was = whoseWas(storage, found, options);
  if ("why" in was) return { zvol, why: was.why };
  const isOwnWeight = isWeightOf(storage, zvol);
  if (isWeight(found) && !isOwnWeight) {
    return { zvol, why: "it keeps an iSCSI target visible, and is no guest's" };
  }
  if (!isOwnWeight && !options.isName(zvol)) {
    return { zvol, why: "its name is none of a guest's volume" };
  }
  const { entries } = await readJournal(storage.host);
  const isOpen = entries.some(({ storage: id, zvol: name }) =>
    id === storage.settings.id && name === zvol
  );
  if (isOpen) return { zvol, why: "an operation on it has not ended on this node" };
  const exported = await storage.transport.lookUp(array, found.name, storage.deadline);
  switch (exported.kind) {
    case "foreign":
      return { zvol, why: `it is exported as ${exported.what}` };
    case "half":
      return { zvol, why: "its export lacks the mapping to a LUN" };
    case "none":
      return options.unexported === true
        ? { zvol, found, identity: undefined, was: was.was }
        : { zvol, why: "nothing exports it" };
    case "ours":
      return exported.export.enabled
        ? { zvol, found, identity: exported.export.identity, was: was.was }
        : { zvol, why: "its export is switched off" };
  }
}

function isWeightOf({ settings: { transport } }: Storage, zvol: string): boolean {
  return transport.kind === "iscsi" && zvol === weightName(transport.targetIqn);
}

/** Whose a zvol was, or why it is still somebody's. */
function whoseWas(
  storage: Storage,
  found: zvols.Zvol,
  { living, ofCluster }: AdoptOptions,
): { readonly was: string } | { readonly why: string } {
  const has = found.userProperties;
  const path = has["tnblock:volume"];
  if (path === undefined) return { was: "it carried no mark of tnblock" };
  if (isRenameBegun(found) || renamedFrom(found) !== undefined && path === found.name) {
    return { why: "it is being renamed" };
  }
  const { "tnblock:cluster": cluster = "", "tnblock:storage": id = "" } = has;
  if (cluster !== storage.clusterId) {
    return cluster === ofCluster
      ? { was: `it was of storage "${id}" of cluster ${cluster}` }
      : { why: `it belongs to storage "${id}" of another cluster, ${cluster}` };
  }
  const isCopy = path !== found.name && has["tnblock:rename-to"] !== found.name;
  if (isCopy) return { was: `it is a copy of "${path}"` };
  if (id !== storage.settings.id && living.includes(id)) {
    return { why: `it belongs to storage "${id}"` };
  }
  return { was: `it was of storage "${id}"` };
}

/** Marks of a former life that mean something else for a volume. */
const FORMER = ["rename-to", "rename-id", "importing", "reads", "node"] as const;

/**
 * Marks one as this storage's, after another look under the volume's lock that must find the very same. One write.
 *
 * @throws TnblockError `not-ours` or `volume-replaced` when it is another one now, or may not be taken over any more.
 */
export async function adoptVolume(
  storage: Storage,
  { zvol, found, identity }: Adoptable,
  options: AdoptOptions,
): Promise<void> {
  await withVolumeLock(storage, zvol, async () => {
    const array = await storage.array();
    const path = zvolPath(storage, zvol);
    const now = (await look(storage, array, zvol, storage.deadline)).zvol;
    if (now?.name !== path || now.guid !== found.guid || now.createdMs !== found.createdMs) {
      throw new TnblockError(
        "volume-replaced",
        `Cannot adopt "${path}": it is another zvol by now`,
      );
    }
    // Somebody else was quicker.
    if (isOurs(storage, now)) return;
    const judged = await judge(storage, array, now, options);
    if ("why" in judged) {
      throw new TnblockError("not-ours", `Cannot adopt "${path}": ${judged.why}`);
    }
    if (JSON.stringify(judged.identity) !== JSON.stringify(identity)) {
      throw new TnblockError(
        "volume-replaced",
        `Cannot adopt "${path}": it is exported another way by now`,
      );
    }
    storage.deadline.check();
    await zvols.setUserProperties(array, path, {
      ...Object.fromEntries(
        FORMER.map((name) => `tnblock:${name}`)
          .filter((name) => now.userProperties[name] !== undefined)
          .map((name) => [name, undefined]),
      ),
      ...marks(storage, zvol, storage.host.randomUuid()),
    });
    const after = await zvols.read(array, path);
    if (after !== undefined && isOurs(storage, after)) return;
    throw new TnblockError(
      "array-fault",
      `Cannot adopt "${path}": TrueNAS answered that it did, but the marks are not there`,
    );
  });
}
