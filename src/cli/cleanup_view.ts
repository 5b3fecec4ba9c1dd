/** How orphans, and what became of them, are printed. */
import type { CleanupResult } from "../orphans/cleanup.ts";
import type { Findings } from "../orphans/find.ts";
import type { Orphan } from "../orphans/orphan.ts";
import { formatBytes, printable, renderTable } from "./table.ts";

/** What was found in one storage, for people. */
export function renderFindings(
  storage: string,
  { blocked, offered, kept }: Findings,
  nowMs: number,
): string {
  const lines: string[] = [];
  const say = (line: string) => lines.push(`${printable(line)}\n`);
  if (blocked.length > 0) {
    say(`Storage ${storage}: nothing can be called an orphan now`);
    for (const why of blocked) say(`  ${why}`);
  } else if (offered.length === 0) say(`Storage ${storage}: no orphans`);
  if (offered.length > 0) {
    say(`Storage ${storage}: ${counted(offered.length, "orphan")}`);
    lines.push(renderTable(
      ["KIND", "NAME", "SIZE", "USED", "AGE", "WHY"],
      offered.map(({ kind, name, size, used, createdMs, why }) => [
        ...[kind, name],
        ...[size === undefined ? "-" : formatBytes(size).replace(" ", "")],
        ...[used === undefined ? "-" : formatBytes(used).replace(" ", "")],
        ...[createdMs === undefined ? "-" : `${Math.floor((nowMs - createdMs) / 86_400_000)}d`],
        why,
      ]),
    ));
  }
  if (kept.length > 0) {
    lines.push("\n");
    say("Kept:");
    for (const { kind, name, reasons } of kept) {
      say(`  ${kind} ${name}: ${reasons.join("; ")}`);
    }
  }
  return lines.join("");
}

/** What removing them means, call by call. */
export function renderPlan(offered: readonly Orphan[]): string {
  return offered.flatMap((orphan) => stepsOf(orphan)).map((line) => `${printable(line)}\n`).join(
    "",
  );
}

function stepsOf({ kind, name, rows, zvol, snapshots }: Orphan): string[] {
  const head = `${kind} ${name}:`;
  return [
    head,
    ...rows.map(({ kind, id }) => `  delete ${kind} ${id}`),
    ...(zvol === undefined ? [] : [
      `  destroy zvol ${zvol.name}${
        snapshots.length === 0 ? "" : ` with its snapshots ${snapshots.join(", ")}`
      }`,
    ]),
  ];
}

/** What was found, for programs. */
export function findingsDocument(storage: string, { blocked, offered, kept }: Findings) {
  return { storage, blocked, offered: offered.map(orphanDocument), kept };
}

function orphanDocument({ kind, name, size, used, createdMs, why, snapshots, rows }: Orphan) {
  return {
    ...{ kind, name, size: size ?? null, used: used ?? null },
    created: createdMs === undefined ? null : new Date(createdMs).toISOString(),
    ...{ why, snapshots, rows },
  };
}

/** What became of a run, for programs. */
export function resultDocument({ removed, left, stoppedBy, record }: CleanupResult) {
  return {
    removed: removed.map(({ kind, name }) => ({ kind, name })),
    left: left.map(({ kind, name }) => ({ kind, name })),
    error: stoppedBy === undefined ? null : { code: stoppedBy.code, message: stoppedBy.message },
    record: record ?? null,
  };
}

/** `1 orphan`, `2 orphans`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
