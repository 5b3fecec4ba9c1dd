/**
 * The table of the contract suite, out of a JUnit report: rows are verbs, columns are protocol and
 * release. What stands in a cell is what ran: a test is named `contract: <row>, <column>`, its
 * steps are the variations; a verb that a column cannot do has `: refused (<why>)` behind its name.
 */

/** One `<testcase>` of a report. */
export interface Case {
  readonly name: string;
  readonly passed: boolean;
}

interface Cell {
  readonly row: string;
  readonly column: string;
  refused: string | undefined;
  failed: boolean;
  /** Names of the variations that failed. */
  readonly failures: string[];
}

// A sample: contract: free_image, iscsi 25.10.6 > lost reply
const NAME =
  /^contract: (.+?), ((?:iscsi|nvme-tcp) [\d.]+(?: by daemon)?)(?:: refused \((.+)\))?(?: > (.+))?$/;

/** The table's lines; none when the report has no such tests. */
export function contractTable(cases: readonly Case[]): string[] {
  const cells = cellsOf(cases);
  if (cells.size === 0) return [];
  const rows = [...new Set([...cells.values()].map(({ row }) => row))];
  const columns = [...new Set([...cells.values()].map(({ column }) => column))].sort();
  const words = rows.map((row) => [
    row,
    ...columns.map((column) => wordOf(cells.get(`${row}, ${column}`))),
  ]);
  return [
    "contract suite:",
    ...aligned([["", ...columns], ...words]),
    ...notes([...cells.values()]),
  ];
}

function cellsOf(cases: readonly Case[]): Map<string, Cell> {
  const cells = new Map<string, Cell>();
  for (const { name, passed } of cases) {
    const match = NAME.exec(name);
    if (match === null) continue;
    const [, row = "", column = "", refused, variation] = match;
    const key = `${row}, ${column}`;
    const cell = cells.get(key) ?? { row, column, refused: undefined, failed: false, failures: [] };
    cells.set(key, cell);
    cell.refused ??= refused;
    cell.failed ||= !passed;
    if (!passed && variation !== undefined) cell.failures.push(variation);
  }
  return cells;
}

function wordOf(cell: Cell | undefined): string {
  if (cell === undefined) return "-";
  if (cell.failed) return "FAILED";
  return cell.refused === undefined ? "ok" : "refused";
}

function aligned(table: readonly (readonly string[])[]): string[] {
  const widths = table[0]?.map((_, at) => Math.max(...table.map((row) => row[at]?.length ?? 0)));
  return table.map((row) =>
    `  ${row.map((word, at) => word.padEnd(widths?.[at] ?? 0)).join("  ")}`.trimEnd()
  );
}

/** Why something is refused, each reason once, and what failed. */
function notes(cells: readonly Cell[]): string[] {
  const reasons = new Map<string, Set<string>>();
  for (const { row, refused } of cells) {
    if (refused === undefined) continue;
    reasons.set(refused, (reasons.get(refused) ?? new Set()).add(row));
  }
  return [
    ...[...reasons].map(([why, rows]) => `  refused, because ${why}: ${[...rows].join(", ")}`),
    ...cells.filter(({ failed }) => failed).map(({ row, column, failures }) =>
      `  FAILED: ${row}, ${column}: ${failures.join(", ") || "before the first call"}`
    ),
  ];
}
