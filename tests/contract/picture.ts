/**
 * What the array and its nodes hold, put so that it can be written down beside a call: one line for
 * each thing of a case's guests, and one text of everything else, which no call may change.
 */
import type { Place } from "../support/place.ts";

/** Guests of one case, by the letters that stand for them in its lines. */
export type Guests = Readonly<Record<string, number>>;

/** Both halves. */
export interface Picture {
  /**
   * Sorted, e.g. `vm-A-disk-0 1M exported`, `vm-A-disk-0@one`, `vm-B-disk-0 1M exported, clone of
   * base-A-disk-0@__base__`, `vm-A-disk-0 linked on pve1`.
   */
  readonly ours: readonly string[];
  /** Everything else on the array, the administrator's infrastructure included. */
  readonly others: string;
}

// The simulator's tables are plain JSON.
// deno-lint-ignore no-explicit-any
type Row = any;

/** Looks at array and nodes now. */
export async function pictureOf(place: Place, guests: Guests): Promise<Picture> {
  const { world } = place.simulator;
  const objects: Record<string, Row> = JSON.parse(JSON.stringify(place.simulator.objects()));
  const dataset = place.simulator.ready.dataset;
  const ids = Object.values(guests).join("|");
  const isGuests = new RegExp(`^(?:vm|base)-(?:${ids})-`);
  const nameOf = (path: string) =>
    path.startsWith(`${dataset}/`) ? path.slice(dataset.length + 1) : "";
  const zvolOf = (device: unknown) => String(device ?? "").replace(/^zvol\//, "");
  const originOf = (zvol: Row) => String(zvol.origin ?? "").split("@")[0] ?? "";
  // A hidden clone is named as its maker likes: what it is cloned from tells whose it is.
  const isOurs = (path: string): boolean =>
    isGuests.test(nameOf(path)) ||
    objects.zvols.some((zvol: Row) => zvol.name === path && isGuests.test(nameOf(originOf(zvol))));
  const split = <T>(rows: readonly T[], ours: (row: T) => boolean): [T[], T[]] => [
    rows.filter(ours),
    rows.filter((row) => !ours(row)),
  ];

  const [zvols, otherZvols] = split<Row>(objects.zvols, (zvol) => isOurs(zvol.name));
  const [snapshots, otherSnapshots] = split<Row>(objects.snapshots, (one) => isOurs(one.dataset));
  const [extents, otherExtents] = split<Row>(
    objects.extents,
    (row) => isOurs(zvolOf(row.path)),
  );
  const extentIds = new Set(extents.map((row: Row) => row.id));
  const allExtents = new Set(objects.extents.map((row: Row) => row.id));
  const [mappings, otherMappings] = split<Row>(
    objects.mappings,
    (row) => extentIds.has(row.extent) || !allExtents.has(row.extent),
  );
  const [namespaces, otherNamespaces] = split<Row>(
    objects.namespaces,
    (row) => isOurs(zvolOf(row.device_path)),
  );

  const lines: string[] = [];
  for (const zvol of zvols) {
    const name = nameOf(zvol.name);
    const on = extents.filter((row: Row) => zvolOf(row.path) === zvol.name);
    const mapped = mappings.filter((row: Row) =>
      on.some((extent: Row) => extent.id === row.extent)
    );
    const spaces = namespaces.filter((row: Row) => zvolOf(row.device_path) === zvol.name);
    const how = exportWords(on.length, mapped.length, spaces.length, place.transport);
    const isVolume = isGuests.test(name);
    const origin = zvol.origin === null ? "" : nameOf(zvol.origin);
    // A volume says its path, or the one that its last rename was to give it.
    const marks = ["tnblock:volume", "tnblock:rename-to"].map((key) => zvol.user_properties[key]);
    const mark = marks.includes(zvol.name) ? "" : ", WRONG MARK";
    lines.push(
      isVolume
        ? `${name} ${sizeWords(zvol.volsize)} ${how}${
          origin === "" ? "" : `, clone of ${origin}`
        }${mark}`
        : `reader of ${origin}, ${how}`,
    );
  }
  for (const one of snapshots) {
    // Keeps a rollback whose answer was lost from coming late, and goes by itself some minutes after.
    if (one.name.includes("@tnblock-rolled-back-")) continue;
    lines.push(nameOf(one.dataset) + one.name.slice(one.dataset.length));
  }
  const paths = new Set(zvols.map((zvol: Row) => zvol.name));
  for (const row of extents) if (!paths.has(zvolOf(row.path))) lines.push(`extent on nothing`);
  for (const row of mappings) if (!allExtents.has(row.extent)) lines.push("mapping of nothing");
  for (const row of namespaces) {
    if (!paths.has(zvolOf(row.device_path))) lines.push(`namespace on nothing`);
  }
  lines.push(...await linkLines(place, isGuests));

  return {
    ours: lines.map((line) => lettered(line, guests)).sort(),
    others: JSON.stringify(
      {
        datasets: objects.datasets,
        zvols: otherZvols,
        snapshots: otherSnapshots,
        extents: otherExtents,
        mappings: otherMappings,
        namespaces: otherNamespaces,
        services: objects.services,
        tables: Object.fromEntries(
          Object.entries(world.tables)
            .filter(([name]) => !["extent", "targetextent", "namespace"].includes(name))
            .map(([name, table]) => [name, table.all()]),
        ),
      },
      null,
      1,
    ),
  };
}

function exportWords(
  extents: number,
  mappings: number,
  namespaces: number,
  transport: Place["transport"],
): string {
  const numbers = `${extents} ${mappings} ${namespaces}`;
  if (numbers === (transport === "iscsi" ? "1 1 0" : "0 0 1")) return "exported";
  if (numbers === "0 0 0") return "not exported";
  if (numbers === "1 0 0" && transport === "iscsi") return "half exported";
  return `exported by ${extents} extents, ${mappings} mappings, ${namespaces} namespaces`;
}

function sizeWords(bytes: number): string {
  return bytes % (1 << 20) === 0 ? `${bytes / (1 << 20)}M` : `${bytes} bytes`;
}

/** `vm-104-disk-0` as `vm-A-disk-0`. */
function lettered(line: string, guests: Guests): string {
  return Object.entries(guests).reduce(
    (text, [letter, id]) =>
      text.replaceAll(new RegExp(`\\b(vm|base)-${id}-`, "g"), `$1-${letter}-`),
    line,
  );
}

async function linkLines(place: Place, isGuests: RegExp): Promise<string[]> {
  const lines: string[] = [];
  for (const { name, directory } of place.nodes.values()) {
    try {
      for await (const entry of Deno.readDir(`${directory}/dev/tnblock/san`)) {
        if (isGuests.test(entry.name)) lines.push(`${entry.name} linked on ${name}`);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return lines;
}
