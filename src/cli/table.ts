/** Plain tables for a terminal: columns as wide as their widest cell, two blanks between them. */

/** Renders a table with a head line; each line ends with a line feed. No colours, no borders. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows].map((row) => head.map((_, index) => printable(row[index] ?? "")));
  const widths = head.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  return lines.map((line) =>
    line.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join("  ").trimEnd() + "\n"
  ).join("");
}

/** A size for people: powers of 1,024 with one digit behind the point. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** Names come from arrays and kernels: no control character of theirs reaches the terminal. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
