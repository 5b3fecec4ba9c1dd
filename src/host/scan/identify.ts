/** What a node or link in `/dev` really is, by sysfs: the last check before a disk is used. */
import { attempt } from "../failure.ts";
import type { HostFiles } from "../host.ts";
import { attribute, entries, lastName, readCommon } from "./attributes.ts";
import { readMultipathMap } from "./maps.ts";
import { readNvmeDisk } from "./nvme.ts";
import { naaOf } from "./scsi.ts";

/** The identity of the disk that a path leads to. */
export interface DiskIdentity {
  /** Where the path led to, e.g. `/dev/nvme0n1`. */
  readonly node: string;
  /** The kernel's name, e.g. `nvme0n1`. */
  readonly name: string;
  readonly kind: "nvme" | "multipath" | "scsi" | "other";
  /** Lower case; NVMe only. */
  readonly uuid: string | undefined;
  /** NQN of the subsystem; NVMe only. */
  readonly subsystem: string | undefined;
  /** 32 hex digits; SCSI and multipath only. Of a map it is what the map was made for. */
  readonly naa: string | undefined;
  readonly sizeBytes: number;
  readonly logicalBlockSize: number | undefined;
  /** Paths below a map; kernel names. */
  readonly slaves: readonly string[];
}

/**
 * Undefined when the path dangles, leads to no block device, or the kernel has another disk under that name.
 *
 * @throws TnblockError `host-fault` when the path cannot be followed.
 */
export async function identify(
  files: HostFiles,
  path: string,
): Promise<DiskIdentity | undefined> {
  const [node, status] = await attempt(
    `Cannot identify "${path}"`,
    () => Promise.all([files.resolve(path), files.status(path)]),
  );
  if (node === undefined || status?.kind !== "block") return undefined;
  const name = lastName(node);
  const common = await readCommon(files, name);
  if (common === undefined) return undefined;
  // A node that was left over from an earlier disk has another number than the disk of that name.
  if (status.device !== undefined && status.device !== common.device) return undefined;
  const [nvme, map, wwid, slaves] = await Promise.all([
    readNvmeDisk(files, name),
    readMultipathMap(files, name),
    attribute(files, `/sys/block/${name}/device/wwid`),
    entries(files, `/sys/block/${name}/slaves`),
  ]);
  const naa = map?.naa ?? (nvme === undefined ? naaOf(wwid) : undefined);
  return {
    node,
    name,
    kind: nvme ? "nvme" : map ? "multipath" : naa !== undefined ? "scsi" : "other",
    uuid: nvme?.uuid,
    subsystem: nvme?.subsystem,
    naa,
    sizeBytes: common.sizeBytes,
    logicalBlockSize: common.logicalBlockSize,
    slaves,
  };
}
