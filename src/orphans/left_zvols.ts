/** Zvols that nobody names. */
import type { ExportRow } from "../transport/transport.ts";
import type { Zvol } from "../truenas/zvols.ts";
import { isProtected } from "../volumes/attributes.ts";
import { BASE_SNAPSHOT } from "../volumes/create_base.ts";
import { isOurs } from "../volumes/ownership.ts";
import { placeOf, readingOf } from "../volumes/reading.ts";
import { isWeight } from "../volumes/weight.ts";
import type { Candidate, Orphan } from "./orphan.ts";
import { atNodes, lastOf, list, replicated } from "./reasons.ts";
import { isSuspect } from "./suspects.ts";
import { AGE_FLOOR_MS, type World } from "./world.ts";

/** On a volume whose bytes are still coming: its path. */
const IMPORTING = "tnblock:importing";

/** All of them, with what speaks for keeping each. */
export function leftZvols(world: World): Candidate[] {
  return world.array.zvols.filter((zvol) => isSuspect(world, zvol))
    .map((zvol) => ofZvol(world, zvol));
}

function ofZvol(world: World, zvol: Zvol): Candidate {
  const { array } = world;
  const snapshots = array.snapshots.get(zvol.name);
  const rows = exportRows(world, zvol);
  const reading = readingOf(zvol);
  const isWeightOne = isWeight(zvol);
  const isImport = zvol.userProperties[IMPORTING] === zvol.name;
  const orphan: Orphan = {
    kind: isWeightOne
      ? "weight"
      : reading !== undefined
      ? "reading"
      : isImport
      ? "import"
      : "volume",
    name: zvol.name,
    size: zvol.volsize,
    used: zvol.used,
    createdMs: zvol.createdMs,
    why: isWeightOne
      ? "the target that it kept visible is gone"
      : reading !== undefined
      ? `node ${reading.node} does not read "${reading.of}" any more`
      : isImport
      ? "its bytes never all came, and no guest names it"
      : "no guest names it",
    snapshots: snapshots?.map(({ name }) => name) ?? [],
    rows: rows.own,
    zvol,
  };
  const foreign = whoseElse(world, zvol);
  if (foreign !== undefined) return { orphan, reasons: [foreign] };
  const name = lastOf(zvol.name);
  const reasons: string[] = [];
  if (array.nowMs !== undefined && !(array.nowMs - zvol.createdMs > AGE_FLOOR_MS)) {
    reasons.push("it is younger than 24 hours");
  }
  if (zvol.createdMs <= 0) reasons.push("its age is not known");
  if (isProtected(zvol)) reasons.push("it is protected");
  reasons.push(...renaming(world, zvol), ...rows.reasons);
  const clones = array.clones.filter(({ origin }) => origin.startsWith(`${zvol.name}@`));
  if (clones.length > 0) reasons.push(`clones hang on it: ${list(clones.map(({ name }) => name))}`);
  if (snapshots === undefined) reasons.push("its snapshots were not read");
  for (const snapshot of snapshots ?? []) {
    if (snapshot.holds.length > 0) reasons.push(`snapshot "${snapshot.name}" is held`);
    else if (!isOwnSnapshot(zvol, snapshot)) {
      reasons.push(`snapshot "${snapshot.name}" was not taken by tnblock`);
    }
  }
  if (isWeightOne && rows.own.length > 0) reasons.push("it is exported");
  if (reading !== undefined) {
    if (!world.nodes.some((node) => node.name === reading.node)) {
      reasons.push(`node ${reading.node} is not in the cluster any more, and cannot be asked`);
    }
  }
  reasons.push(
    ...atNodes(world, name, rows.disks, reading && { ...placeOf(reading), node: reading.node }),
    ...replicated(world, zvol.name),
  );
  return { orphan, reasons };
}

/** Whose a zvol is, when it is not this storage's. */
function whoseElse({ storage }: World, zvol: Zvol): string | undefined {
  if (isOurs(storage, zvol)) return undefined;
  const has = zvol.userProperties;
  const own = has["tnblock:volume"];
  if (own === undefined) return "it carries no mark of tnblock";
  if (has["tnblock:cluster"] !== storage.clusterId) return "it belongs to another cluster";
  if (has["tnblock:storage"] !== storage.settings.id) {
    return `it belongs to storage "${has["tnblock:storage"]}"`;
  }
  return `its marks are those of "${own}": it is a copy, or was renamed by hand`;
}

/** Snapshots inherit the token of their zvol: one that tnblock took has its own. */
function isOwnSnapshot(
  zvol: Zvol,
  { name, userProperties }: { name: string; userProperties: Readonly<Record<string, string>> },
): boolean {
  const op = userProperties["tnblock:op"];
  if (name === BASE_SNAPSHOT && lastOf(zvol.name).startsWith("base-")) return true;
  return op !== undefined && op !== zvol.userProperties["tnblock:op"];
}

function renaming({ array, references }: World, zvol: Zvol): string[] {
  const { "tnblock:rename-to": to, "tnblock:volume": from } = zvol.userProperties;
  if (to === undefined) return [];
  if (to !== zvol.name) return [`it is being renamed to "${to}"`];
  if (from === undefined || from === zvol.name) return [];
  const isHalf = [...array.extents, ...array.namespaces].some((row) => row.zvol === from);
  const named = references.byZvol.get(lastOf(from));
  return [
    ...(isHalf ? [`its export is still that of "${from}"`] : []),
    ...(named === undefined ? [] : [`its former name is named by ${list(named)}`]),
  ];
}

/** What exports the zvol, whoever made that. */
function exportRows(world: World, { name }: Zvol): {
  readonly own: readonly ExportRow[];
  readonly disks: readonly string[];
  readonly reasons: readonly string[];
} {
  const { array, storage } = world;
  const extents = array.extents.filter(({ zvol }) => zvol === name);
  const namespaces = array.namespaces.filter(({ zvol }) => zvol === name);
  const ids = extents.map(({ id }) => id);
  const mappings = array.mappings.filter(({ extent }) => ids.includes(extent));
  const isIscsi = storage.settings.transport.kind === "iscsi";
  const reasons: string[] = [];
  if (isIscsi && namespaces.length > 0) reasons.push("it is also exported as an NVMe namespace");
  if (!isIscsi && extents.length > 0) reasons.push(`it is also exported as ${extents[0]?.name}`);
  if (extents.length > 1) reasons.push("several extents are on it");
  if (mappings.length > 1) reasons.push("it is mapped several times");
  if (mappings.some(({ target }) => target !== array.parent)) {
    reasons.push("it is mapped to another target");
  }
  if (
    isIscsi && mappings.length === 0 &&
    extents.some(({ comment }) => comment !== `tnblock ${storage.settings.id}`)
  ) reasons.push("the extent on it is not marked as one of this storage");
  if (!isIscsi && namespaces.some(({ subsystem }) => subsystem !== array.parent)) {
    reasons.push("it is a namespace of another subsystem");
  }
  if ([...extents, ...namespaces].some(({ enabled }) => !enabled)) {
    reasons.push("an administrator has switched its export off");
  }
  return {
    own: [
      ...mappings.map(({ id }) => ({ kind: "mapping" as const, id })),
      ...extents.map(({ id }) => ({ kind: "extent" as const, id })),
      ...namespaces.map(({ id }) => ({ kind: "namespace" as const, id })),
    ],
    disks: [...extents.map(({ naa }) => naa), ...namespaces.map(({ uuid }) => uuid)],
    reasons,
  };
}
