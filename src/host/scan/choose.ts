/** Which of the disks is the one that was asked for: pure decisions over a scan. */
import type { NvmeDisk, NvmeScan } from "./types.ts";

/** A namespace that is looked for; nothing but the two together says which. */
export interface NvmeWanted {
  /** NQN of the subsystem. */
  readonly nqn: string;
  /** Lower case, with hyphens. */
  readonly uuid: string;
}

/** What was found. */
export interface NvmeChoice {
  /** The one disk to use; undefined when there is none yet, or more than one. */
  readonly disk: NvmeDisk | undefined;
  /**
   * Several disks with nodes are the same namespace: native multipath is off and there are several
   * paths. None of them may be used, as each of them dies with its path.
   */
  readonly ambiguous: boolean;
  /** All disks of that namespace that are not hidden paths, with and without a node. */
  readonly candidates: readonly NvmeDisk[];
}

/** The disk of a namespace: visible, with a node, and the only one. */
export function chooseNvmeNode(scan: Pick<NvmeScan, "disks">, wanted: NvmeWanted): NvmeChoice {
  const candidates = scan.disks.filter((disk) =>
    disk.kind !== "path" && !disk.hidden && disk.uuid === wanted.uuid &&
    disk.subsystem === wanted.nqn
  );
  const usable = candidates.filter((disk) => disk.node !== undefined && disk.sizeBytes > 0);
  const ambiguous = usable.length > 1;
  return { disk: ambiguous ? undefined : usable[0], ambiguous, candidates };
}
