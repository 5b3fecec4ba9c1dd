/** How the doctor's findings look on a terminal: a line a check, and five steps for each finding. */
import type { CheckResult, Finding } from "../doctor/check.ts";
import type { Look } from "../doctor/doctor.ts";
import { printable } from "./table.ts";

/** How it is printed. */
export interface ViewOptions {
  readonly version: string;
  /** Of the terminal; undefined for no breaking of lines. */
  readonly columns: number | undefined;
  /** Findings only. */
  readonly quiet: boolean;
}

/** How many there are. */
export function countsOf(results: readonly CheckResult[]) {
  const findings = results.flatMap((result) => result.findings);
  return {
    ok: results.filter(({ outcome }) => outcome === "ok").length,
    skipped: results.filter(({ outcome }) => outcome === "skipped").length,
    errors: findings.filter(({ severity }) => severity === "error").length,
    warnings: findings.filter(({ severity }) => severity === "warning").length,
  };
}

/** All of it. The words carry the meaning: there are no colours. */
export function renderLook(look: Look, { version, columns, quiet }: ViewOptions): string {
  const { node, storages, results } = look;
  const about = storages.length === 0 ? "no storage" : `storage ${storages.join(", ")}`;
  const width = Math.max(...results.map(({ id }) => id.length), 0);
  const lines = quiet ? [] : [`tnblock ${version}: looked at node ${node}, ${about}`, ""];
  const told = new Set<string>();
  for (const result of results) {
    const head = result.id.padEnd(width);
    if (result.findings.length === 0) {
      // What is well is told once for all storages, and not at all of other nodes.
      const key = `${result.id} ${result.note ?? ""}`;
      if (quiet || result.node !== node || told.has(key)) continue;
      told.add(key);
      const isSkipped = result.outcome === "skipped";
      const isEverywhere = results.every((one) =>
        one.id !== result.id || one.node !== node || one.note === result.note
      );
      const where = isEverywhere ? "" : whereOf(result, node, storages.length);
      const text = isSkipped ? `not looked: ${result.note}` : result.title;
      lines.push(
        ...wrapped(`${isSkipped ? "[-] " : "[ok]"}  ${head}  `, `${where}${text}`, columns),
      );
      continue;
    }
    const where = whereOf(result, node, storages.length);
    for (const finding of result.findings) {
      lines.push(...findingLines(finding, `${head}  `, where, columns));
    }
  }
  if (!quiet) lines.push("", ...closing(results));
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** A finding with its guide. */
function findingLines(
  { severity, text, guide }: Finding,
  head: string,
  where: string,
  columns: number | undefined,
): string[] {
  const mark = severity === "error" ? "[x] " : "[!] ";
  return [
    ...wrapped(`${mark}  ${head}`, `${where}${text}`, columns),
    ...guide.flatMap((step, index) => wrapped(`        ${index + 1}. `, step, columns)),
  ];
}

/** What tells results of one check apart. */
function whereOf({ node, storage }: CheckResult, own: string, storages: number): string {
  const parts = [
    ...(node === own ? [] : [`node ${node}`]),
    ...(storage === null || storages < 2 ? [] : [storage]),
  ];
  return parts.length === 0 ? "" : `${parts.join(", ")}: `;
}

function closing(results: readonly CheckResult[]): string[] {
  const { ok, skipped, errors, warnings } = countsOf(results);
  const count = (number: number, word: string) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const parts = [
    `${ok} ok`,
    ...(skipped === 0 ? [] : [`${skipped} not looked at`]),
    ...(warnings === 0 ? [] : [count(warnings, "warning")]),
    ...(errors === 0 ? [] : [count(errors, "error")]),
  ];
  const isWell = errors + warnings === 0;
  return [
    `${parts.join(", ")}.`,
    isWell
      ? "All that was looked at is as it should be."
      : "To share, with all names and addresses masked: tnblock doctor --report",
  ];
}

/** Breaks at blanks, later lines below the text of the first one. */
export function wrapped(head: string, text: string, columns: number | undefined): string[] {
  const words = printable(text).split(" ");
  const indent = " ".repeat(head.length);
  const lines: string[] = [];
  let line = head;
  for (const word of words) {
    const isEmpty = line === head || line === indent;
    const next = isEmpty ? line + word : `${line} ${word}`;
    if (columns !== undefined && next.length > columns && !isEmpty) {
      lines.push(line);
      line = indent + word;
    } else line = next;
  }
  return [...lines, line];
}
