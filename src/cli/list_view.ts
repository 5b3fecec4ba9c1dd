/** `tnblock list` for people and for scripts: one row a volume, no blank inside a cell. */
import type { ListedRow } from "./list.ts";
import { formatBytes, printable, renderTable } from "./table.ts";

/** What stands for what is not known, or is not there. */
const NOTHING = "-";

/** Narrower than this nothing can be read anyway. */
const NARROWEST = 30;

/** A column: its head, its cell, and what its cell is for scripts when that differs. */
interface Column {
  readonly head: string;
  readonly cell: (row: ListedRow) => string;
  readonly exact?: (row: ListedRow) => string;
}

const COLUMNS: readonly Column[] = [
  { head: "STORAGE", cell: ({ storage }) => storage },
  { head: "VOLUME", cell: ({ zvol }) => zvol },
  { head: "SIZE", cell: ({ size }) => sizeOf(size), exact: ({ size }) => String(size) },
  { head: "USED", cell: ({ used }) => sizeOf(used), exact: ({ used }) => String(used) },
  { head: "SNAPS", cell: ({ snapshots }) => snapshots === null ? NOTHING : String(snapshots) },
  { head: "GUEST", cell: ({ vmid }) => vmid === null ? NOTHING : String(vmid) },
  { head: "NAME", cell: ({ guest }) => guest?.name ?? NOTHING },
  { head: "NODE", cell: ({ guest }) => guest?.node ?? NOTHING },
  { head: "VIA", cell: ({ transport }) => transport ?? NOTHING },
  { head: "NUMBER", cell: numberOf },
  { head: "UUID/NAA", cell: ({ uuid, naa }) => uuid ?? naa ?? NOTHING },
  { head: "HERE", cell: hereOf },
  { head: "STATE", cell: ({ state }) => state },
];

/** What goes first when a terminal is too narrow. The last ones stay: storage, volume, size and state. */
const DROPPED = ["UUID/NAA", "VIA", "SNAPS", "NODE", "USED", "NUMBER", "NAME", "HERE", "GUEST"];

/**
 * Renders the rows. A text that nobody reads in a terminal is 80 columns wide too, so that it can be pasted; without
 * a head it is for scripts: all columns, exact numbers, tabs.
 */
export function renderList(
  rows: readonly ListedRow[],
  { header, snapshots, columns }: {
    readonly header: boolean;
    readonly snapshots: boolean;
    readonly columns: number | undefined;
  },
): string {
  if (!header) {
    return rows.map((row) =>
      `${COLUMNS.map(({ cell, exact = cell }) => wordOf(exact(row))).join("\t")}\n`
    ).join("");
  }
  const isShown = ({ head }: Column) => head !== "SNAPS" || snapshots;
  return fitted(COLUMNS.filter(isShown), rows, Math.max(NARROWEST, columns ?? 80), DROPPED);
}

function fitted(
  columns: readonly Column[],
  rows: readonly ListedRow[],
  width: number,
  [first, ...others]: readonly string[],
): string {
  const table = renderTable(
    columns.map(({ head }) => head),
    rows.map((row) => columns.map(({ cell }) => wordOf(cell(row)))),
  );
  const widest = Math.max(...table.split("\n").map(({ length }) => length));
  if (widest <= width || first === undefined) return table;
  return fitted(columns.filter(({ head }) => head !== first), rows, width, others);
}

/** A LUN or NSID: PVE's configuration knows an NVMe disk by its uuid alone. */
function numberOf({ lun, nsid }: ListedRow): string {
  if (lun !== null) return `lun${lun}`;
  return nsid === null ? NOTHING : `ns${nsid}`;
}

/** Whether the disk is attached to this node, and whether somebody has it open. */
function hereOf({ here }: ListedRow): string {
  if (here === undefined) return NOTHING;
  if (here.inUse === null) return "attached";
  return here.inUse ? "in-use" : "idle";
}

function sizeOf(bytes: number): string {
  return formatBytes(bytes).replace(" ", "");
}

function wordOf(cell: string): string {
  return printable(cell).replaceAll(/\s/g, "_");
}
