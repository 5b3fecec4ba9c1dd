/** What is not ours, planted beside ours: no call may change a byte of it. */
import type { Place } from "../support/place.ts";

/** Plants one of each kind. Their names look as much like ours as the array allows. */
export async function plantForeign(place: Place): Promise<void> {
  const { dataset, subsystemNqn } = place.simulator.ready;
  const marks = (zvol: string, storage: string) => ({
    "tnblock:schema": "1",
    "tnblock:cluster": place.clusterId,
    "tnblock:storage": storage,
    "tnblock:volume": zvol,
    "tnblock:op": crypto.randomUUID(),
  });
  await place.array(async (nas) => {
    const zvol = (name: string, userProperties: Record<string, string> = {}) =>
      nas.zvols.create({
        name: `${dataset}/${name}`,
        volsize: 1 << 20,
        volblocksize: "16K",
        sparse: true,
        userProperties,
      });
    // An administrator's zvol with a snapshot and a clone.
    await zvol("archive");
    await nas.snapshots.create(`${dataset}/archive`, "one");
    await nas.snapshots.clone(`${dataset}/archive@one`, `${dataset}/archive-copy`);
    // A guest's disk by its name, in our target or subsystem, without a mark.
    await zvol("vm-9001-disk-0");
    // Another storage's, and a replica that still carries the marks of where it came from.
    await zvol("vm-9002-disk-0", marks(`${dataset}/vm-9002-disk-0`, "elsewhere"));
    await zvol("vm-9003-disk-0", marks("backup/pve/vm-9003-disk-0", "san"));
    const extent = (name: string) =>
      nas.extents.create({
        name: name.replaceAll("/", "-"),
        zvol: `${dataset}/${name}`,
        blocksize: 512,
        comment: "by hand",
      });
    if (place.transport === "iscsi") {
      const { id } = await extent("vm-9001-disk-0");
      await nas.session.call("iscsi.targetextent.create", [{ target: 1, extent: id, lunid: 7 }]);
    } else {
      const subsystem = await nas.subsystems.byNqn(subsystemNqn);
      await nas.session.call("nvmet.namespace.create", [{
        device_type: "ZVOL",
        device_path: `zvol/${dataset}/vm-9001-disk-0`,
        subsys_id: subsystem?.id,
        nsid: 7,
      }]);
    }
    // An extent that nothing maps.
    await extent("archive-copy");
  });
}
