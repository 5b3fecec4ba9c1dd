/** Which datasets, targets and subsystems a new storage may have for itself (design decision 10). */
import { isDirectChild } from "../transport/direct_child.ts";
import type { Filesystem } from "../truenas/filesystems.ts";
import { OWNER_PROPERTY } from "../volumes/ownership.ts";
import { isWeight } from "../volumes/weight.ts";
import type { ArrayFacts, ExportFact } from "./array_facts.ts";
import { type AnySection, storageNaming, storageOfDataset } from "./used_names.ts";

/** What decides. */
export interface Surroundings {
  readonly sections: readonly AnySection[];
  /** Undefined: this cluster has none yet, so nothing is its own. */
  readonly clusterId: string | undefined;
}

/** Why a dataset is somebody's; undefined when it is free, or was a storage's of this cluster that is gone. */
export function datasetTaken(
  { sections, clusterId }: Surroundings,
  { name, userProperties }: Pick<Filesystem, "name" | "userProperties">,
): string | undefined {
  const storage = storageOfDataset(sections, name);
  if (storage !== undefined) return `storage "${storage}" has it, or one that it holds or is in`;
  const owner = userProperties[OWNER_PROPERTY];
  if (owner === undefined) return undefined;
  return clusterId !== undefined && owner.startsWith(`${clusterId}/`)
    ? undefined
    : `it belongs to storage "${owner.slice(owner.indexOf("/") + 1)}" of another cluster`;
}

/** The storage of this cluster that a dataset belonged to; undefined when none did. */
export function formerOwner(
  { clusterId }: Surroundings,
  { userProperties }: Pick<Filesystem, "userProperties">,
): string | undefined {
  const owner = userProperties[OWNER_PROPERTY];
  return clusterId !== undefined && owner?.startsWith(`${clusterId}/`) === true
    ? owner.slice(clusterId.length + 1)
    : undefined;
}

/** Why a target or subsystem is somebody's; undefined when it is free. */
export function targetTaken(
  { sections, clusterId }: Surroundings,
  { marks }: Pick<ArrayFacts, "marks">,
  target: Pick<ExportFact, "name" | "zvols" | "count">,
  dataset: Pick<Filesystem, "name" | "userProperties">,
): string | undefined {
  const storage = storageNaming(sections, target.name);
  if (storage !== undefined) return `storage "${storage}" has it`;
  const elsewhere = target.zvols.find((name) =>
    !isDirectChild(name, dataset.name) && !isWeight({ name })
  );
  if (elsewhere !== undefined) return `it carries "${elsewhere}"`;
  if (target.count > target.zvols.length) return "it carries something that is no zvol";
  const own = dataset.userProperties[OWNER_PROPERTY];
  const foreign = target.zvols.find((name) => {
    const mark = isWeight({ name }) ? undefined : marks.get(name);
    if (mark === undefined || mark["tnblock:volume"] !== name) return false;
    return `${mark["tnblock:cluster"]}/${mark["tnblock:storage"]}` !== own ||
      mark["tnblock:cluster"] !== clusterId;
  });
  return foreign === undefined ? undefined : `"${foreign}" on it is another storage's`;
}
