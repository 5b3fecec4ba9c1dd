/** All objects of the simulated array in one plain form, for tests to compare before and after. */

import type { JsonObject } from "./json.ts";
import { iqnOf } from "./export_view.ts";
import type { World } from "./world.ts";
import { datasetOf } from "./zfs.ts";

export interface Objects {
  readonly datasets: JsonObject[];
  readonly zvols: JsonObject[];
  readonly snapshots: JsonObject[];
  readonly targets: JsonObject[];
  readonly extents: JsonObject[];
  readonly mappings: JsonObject[];
  readonly subsystems: JsonObject[];
  readonly namespaces: JsonObject[];
  readonly services: JsonObject;
}

export function objects(world: World): Objects {
  const { zfs, tables } = world;
  const described = (type: "VOLUME" | "FILESYSTEM") =>
    [...zfs.datasets.values()].filter((dataset) => dataset.type === type).map((dataset) => ({
      name: dataset.name,
      guid: dataset.guid,
      createtxg: dataset.createtxg,
      ...(type === "FILESYSTEM" ? {} : {
        volsize: dataset.volsize,
        volblocksize: dataset.volblocksize,
        refreservation: dataset.refreservation,
        origin: dataset.origin ?? null,
      }),
      properties: Object.fromEntries(dataset.local),
      user_properties: Object.fromEntries(dataset.user),
    }));
  return {
    datasets: described("FILESYSTEM"),
    zvols: described("VOLUME"),
    snapshots: [...zfs.snapshots.values()].map((snapshot) => ({
      name: snapshot.name,
      dataset: datasetOf(snapshot.name),
      guid: snapshot.guid,
      createtxg: snapshot.createtxg,
      volsize: snapshot.volsize,
      holds: [...snapshot.holds.keys()],
      clones: zfs.clonesOf(snapshot.name),
      deferred: snapshot.deferred,
      user_properties: Object.fromEntries(snapshot.user),
    })),
    targets: tables.target.all().map((row) => ({ ...row, iqn: iqnOf(world, String(row.name)) })),
    extents: tables.extent.all(),
    mappings: tables.targetextent.all(),
    subsystems: tables.subsys.all(),
    namespaces: tables.namespace.all(),
    services: Object.fromEntries([...world.services].map(([name, state]) => [name, { ...state }])),
  };
}
