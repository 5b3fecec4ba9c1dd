/** The bench's table as text. */
import { type Row, shown } from "./row.ts";

/** What the bench ran on. */
export interface Machine {
  readonly processors: number;
  /** Programs that wanted a processor in the minute before the bench began. */
  readonly loadBefore: number;
}

/** One line a row, below the name of its section; what missed its target says so. */
export function renderTable(rows: readonly Row[], machine: Machine): string {
  const cells = rows.map((row) => ({
    section: row.section,
    what: row.what,
    value: `${shown(row.value)} ${row.unit}`.trim(),
    target: row.target === undefined ? "" : `≤ ${shown(row.target)}`,
    met: row.met === undefined ? "" : row.met ? "met" : "MISSED",
    note: row.note ?? "",
  }));
  const width = (key: "what" | "value" | "target" | "met") =>
    Math.max(0, ...cells.map((cell) => cell[key].length));
  const [what, value, target, met] = [
    width("what"),
    width("value"),
    width("target"),
    width("met"),
  ];
  const lines: string[] = [];
  let section = "";
  for (const cell of cells) {
    if (cell.section !== section) lines.push(...(section === "" ? [] : [""]), cell.section);
    section = cell.section;
    const text = [
      cell.what.padEnd(what),
      cell.value.padStart(value),
      cell.target.padStart(target),
      cell.met.padEnd(met),
      cell.note,
    ].join("  ");
    lines.push(`  ${text.trimEnd()}`);
  }
  const judged = rows.filter((row) => row.met !== undefined);
  const missed = judged.filter((row) => row.met === false);
  lines.push("", `${judged.length - missed.length} of ${judged.length} targets met`);
  const { processors, loadBefore } = machine;
  lines.push(`${processors} processors, load ${loadBefore.toFixed(1)} before`);
  if (loadBefore > processors / 2) {
    lines.push("The machine had other things to do: times are worse than they need be");
  }
  return lines.join("\n");
}
