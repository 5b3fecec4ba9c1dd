/** How the plan of a new storage is printed. */
import type { Plan } from "../setup/plan.ts";
import { printable } from "./table.ts";

/** The plan for people, and for `--dry-run`. */
export function renderPlan({ steps, notes }: Plan, title: string): string {
  const lines = [
    title,
    "",
    ...steps.flatMap(({ about, how }, index) => [
      `${String(index + 1).padStart(2)}. ${about}`,
      `      ${how}`,
    ]),
    ...notes.flatMap((note) => ["", `[!] ${note}`]),
  ];
  return `${lines.map(printable).join("\n")}\n`;
}

/** The plan for programs. */
export function planDocument({ steps, notes }: Plan, storage: string): Record<string, unknown> {
  return {
    schemaVersion: 1,
    storage,
    steps: steps.map(({ action, about, how }) => ({ kind: action.kind, about, how })),
    notes,
  };
}
