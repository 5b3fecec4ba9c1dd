/**
 * What on the array looks as if nobody needed it any more: a pure function of what was read, for counting and
 * telling. A sign is no proof: whoever removes something looks at much more, and again right before (cleanup-orphans).
 */
import type { Extent } from "../truenas/extents.ts";
import type { Namespace } from "../truenas/namespaces.ts";
import type { TargetExtent } from "../truenas/target_extents.ts";
import type { Zvol } from "../truenas/zvols.ts";
import { isDirectChild } from "../transport/direct_child.ts";
import { isOurs } from "./ownership.ts";
import { readingOf } from "./reading.ts";
import type { Storage } from "./storage.ts";
import { isWeight } from "./weight.ts";

/** Younger things may be being made just now. */
export const ORPHAN_AGE_MS = 24 * 3_600_000;

/** What was read. */
export interface OrphanWorld {
  readonly zvols: readonly Zvol[];
  /** Empty over NVMe/TCP. */
  readonly extents: readonly Extent[];
  /** Of the storage's target. */
  readonly mappings: readonly TargetExtent[];
  /** Of the storage's subsystem. */
  readonly namespaces: readonly Namespace[];
  /** Volumes that guests name, see `host/guest_volnames.ts`; undefined when not all could be read. */
  readonly volnames: ReadonlySet<string> | undefined;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}

/** What looks orphaned. */
export interface OrphanSigns {
  /** Mappings of the target whose extent is gone, by their ids. */
  readonly mappings: readonly number[];
  /** Extents and namespaces of this storage whose zvol is gone, by the zvol's path. */
  readonly exports: readonly string[];
  /** Volumes of this storage that nothing exports, by path. */
  readonly unexported: readonly string[];
  /** Volumes of this storage that no guest names, by path. */
  readonly unnamed: readonly string[];
}

/** Finds the signs. */
export function orphanSigns(
  storage: Pick<Storage, "settings" | "clusterId">,
  world: OrphanWorld,
): OrphanSigns {
  const { dataset } = storage.settings;
  const paths = new Set(world.zvols.map(({ name }) => name));
  const rows = [...world.extents.filter(isOurComment(storage.settings.id)), ...world.namespaces];
  const exported = new Set([...world.extents, ...world.namespaces].map(({ zvol }) => zvol));
  const extentIds = new Set(world.extents.map(({ id }) => id));
  const volumes = world.zvols.filter((zvol) =>
    isOurs(storage, zvol) && readingOf(zvol) === undefined && !isWeight(zvol) &&
    world.nowMs - zvol.createdMs > ORPHAN_AGE_MS
  );
  const named = world.volnames === undefined ? undefined : zvolNames(world.volnames);
  const isBase = new Set(world.zvols.flatMap(({ origin }) => origin?.split("@")[0] ?? []));
  return {
    mappings: world.mappings.filter(({ extent }) => !extentIds.has(extent)).map(({ id }) => id),
    exports: rows.flatMap(({ zvol }) =>
      zvol !== undefined && isDirectChild(zvol, dataset) && !paths.has(zvol) ? [zvol] : []
    ),
    unexported: volumes.filter(({ name }) => !exported.has(name)).map(({ name }) => name),
    unnamed: named === undefined ? [] : volumes
      .filter(({ name }) =>
        exported.has(name) && !isBase.has(name) && !named.has(name.slice(dataset.length + 1))
      )
      .map(({ name }) => name),
  };
}

/** Extents say in their comment whose they are. */
function isOurComment(storage: string): (extent: Extent) => boolean {
  return ({ comment }) => comment === `tnblock ${storage}`;
}

/** The zvols that volnames mean: `vol-<zvol>-lun5`, `vol-<zvol>-ns<uuid>`, cloud-init as it stands; both parts of a clone. */
function zvolNames(volnames: ReadonlySet<string>): Set<string> {
  const names = [...volnames].flatMap((volname) => volname.split("/")).map((part) =>
    /^vol-(.+)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(part)?.[1] ?? part
  );
  return new Set(names);
}
