/** Volumes as the Perl plugin made them, with the marks that `tnblock adopt` gives them. */
import { createHash } from "node:crypto";
import type { Place } from "./place.ts";

/** What is planted. */
export interface LegacyVolume {
  /** Last component of the zvol's path. */
  readonly zvol: string;
  /** Bytes. */
  readonly size?: number;
  /** iSCSI: how the extent is called, by generation of the plugin. */
  readonly extentName?: "plain" | "hashed";
  /** iSCSI: logical block size of the extent. */
  readonly blocksize?: 512 | 4096;
  /** LUN or NSID. */
  readonly number: number;
  /** Zvol below the dataset whose `@__base__` it is a clone of; the snapshot is made when missing. */
  readonly cloneOf?: string;
  /** Whether it carries tnblock's marks. */
  readonly adopted?: boolean;
}

/** Plants a volume and returns its name in the plugin's grammar. */
export async function plantLegacy(place: Place, volume: LegacyVolume): Promise<string> {
  const { dataset, targetIqn, subsystemNqn } = place.simulator.ready;
  const path = `${dataset}/${volume.zvol}`;
  const marks = {
    "tnblock:schema": "1",
    "tnblock:cluster": place.clusterId,
    "tnblock:storage": "san",
    "tnblock:volume": path,
    "tnblock:op": crypto.randomUUID(),
  };
  return await place.array(async (nas) => {
    if (volume.cloneOf === undefined) {
      await nas.zvols.create({
        name: path,
        volsize: volume.size ?? 1 << 26,
        volblocksize: "16K",
        sparse: true,
      });
    } else {
      const base = `${dataset}/${volume.cloneOf}`;
      const snapshots = await nas.snapshots.names(base);
      if (!snapshots.includes("__base__")) await nas.snapshots.create(base, "__base__");
      await nas.snapshots.clone(`${base}@__base__`, path);
    }
    if (volume.adopted ?? true) await nas.zvols.setUserProperties(path, marks);
    if (place.transport === "nvme-tcp") {
      const subsystem = (await nas.subsystems.all()).find((one) => one.nqn === subsystemNqn);
      const row = await nas.namespaces.create({
        subsystem: subsystem?.id ?? 0,
        zvol: path,
        nsid: volume.number,
      });
      return `vol-${volume.zvol}-ns${row.uuid}`;
    }
    const hash = createHash("sha1").update(path).digest("hex").slice(0, 8);
    const extent = await nas.extents.create({
      name: volume.extentName === "plain"
        ? volume.zvol
        : `${volume.zvol.toLowerCase().slice(0, 55)}-${hash}`,
      zvol: path,
      blocksize: volume.blocksize ?? 512,
      comment: "",
    });
    const target = (await nas.targets.all()).find((one) => targetIqn.endsWith(`:${one.name}`));
    await nas.targetExtents.create({
      target: target?.id ?? 0,
      extent: extent.id,
      lun: volume.number,
    });
    return `vol-${volume.zvol}-lun${volume.number}`;
  });
}
