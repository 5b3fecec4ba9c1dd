/** How the plan of an installation, and what became of it on each node, is printed. */
import type { NodeResult } from "../install/all_nodes.ts";
import type { Plan, Step } from "../install/plan.ts";
import { commandLine } from "../install/run_command.ts";
import { printable, renderTable } from "./table.ts";

const MARK: Readonly<Record<Step["state"], string>> = {
  "do": "[do]",
  "already": "[ok]",
  "left-out": "[--]",
  "impossible": "[! ]",
};

const HEAD: Readonly<Record<Plan["kind"], (plan: Plan, node: string) => string>> = {
  "install": ({ version, from }, node) =>
    from === undefined || from === version
      ? `Install tnblock ${version} on ${node}`
      : `Install tnblock ${version} on ${node}, where ${from} is installed`,
  "roll-back": ({ version, from }, node) =>
    `Bring tnblock ${version} back on ${node}, where ${from ?? "none that runs"} is installed`,
  "uninstall": (_, node) => `Remove tnblock from ${node}; volumes on the array stay`,
};

/** The plan for people, and for `--dry-run`. */
export function renderPlan(plan: Plan, node: string): string {
  const lines = [HEAD[plan.kind](plan, node), ""];
  for (const step of plan.steps) {
    const why = step.state === "already" && step.why === undefined ? "already so" : step.why;
    lines.push(`${MARK[step.state]} ${step.about}${why === undefined ? "" : ` (${why})`}`);
    for (const { path, content } of step.changes) {
      lines.push(`       ${content === undefined ? "remove" : "write"}  ${path}`);
    }
    if (step.state === "do") {
      for (const detail of step.details) lines.push(`              ${detail}`);
    }
    for (const check of step.checks) lines.push(`       check  ${check}`);
    for (const command of step.commands) lines.push(`       run    ${commandLine(command)}`);
  }
  for (const each of plan.notes) lines.push("", each);
  return `${lines.map(printable).join("\n")}\n`;
}

/** The plan for programs; `others`: nodes where the same is done then. */
export function planDocument(
  plan: Plan,
  node: string,
  others: readonly string[],
): Record<string, unknown> {
  return {
    ...{ schemaVersion: 1, node, kind: plan.kind, others },
    ...{ version: plan.version ?? null, from: plan.from ?? null },
    steps: plan.steps.map(({ id, state, about, why, changes, checks, commands }) => ({
      ...{ id, state, about, why: why ?? null },
      write: changes.filter(({ content }) => content !== undefined).map(({ path }) => path),
      remove: changes.filter(({ content }) => content === undefined).map(({ path }) => path),
      check: checks,
      run: commands.map(({ program, args }) => [program, ...args]),
    })),
    notes: plan.notes,
  };
}

/** What became of each node. */
export function renderResults(results: readonly NodeResult[]): string {
  return renderTable(
    ["NODE", "RESULT", "VERSION", "WHY"],
    results.map(({ node, result, version, notDone, error }) => [
      ...[node, result, version ?? "-", error?.message ?? notDone?.join("; ") ?? ""],
    ]),
  );
}

/** What became of one node, as `-o json` prints it and `--all-nodes` reads it. */
export function resultDocument(result: NodeResult): Record<string, unknown> {
  return { schemaVersion: 1, ...result, version: result.version ?? null };
}
