/** What a terminal shows after all that was written to it, with the lines that have scrolled away: text alone. */

/** Plays the bytes of a terminal that is so many columns wide. Colours are left out. */
export function screenOf(written: string, columns: number): string {
  const lines: string[][] = [[]];
  let row = 0;
  let column = 0;
  const lineAt = (at: number): string[] => {
    while (lines.length <= at) lines.push([]);
    return lines[at] ?? [];
  };
  // deno-lint-ignore no-control-regex
  for (const [piece] of written.matchAll(/\x1b\[[0-9;?]*[A-Za-z]|\x1b[^[]|[^\x1b]/gsu)) {
    if (piece.startsWith("\x1b[")) {
      const count = Number.parseInt(piece.slice(2), 10) || 1;
      const order = piece.at(-1);
      if (order === "A") row = Math.max(0, row - count);
      else if (order === "B") row += count;
      else if (order === "C") column += count;
      else if (order === "D") column = Math.max(0, column - count);
      else if (order === "G") column = count - 1;
      else if (order === "K") lineAt(row).splice(piece === "\x1b[2K" ? 0 : column);
      else if (order === "J") {
        lineAt(row).splice(column);
        lines.splice(row + 1);
      }
    } else if (piece === "\r") column = 0;
    else if (piece === "\n") row++;
    else if (piece === "\b") column = Math.max(0, column - 1);
    else if (piece >= " " && !piece.startsWith("\x1b")) {
      if (column >= columns) [row, column] = [row + 1, 0];
      const line = lineAt(row);
      while (line.length < column) line.push(" ");
      line[column++] = piece;
    }
  }
  return lines.map((line) => line.join("").trimEnd()).join("\n").trimEnd() + "\n";
}
