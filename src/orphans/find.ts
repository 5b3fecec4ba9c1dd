/**
 * What is an orphan, and what only looks like one: a pure function of all that was read. Whatever is not known
 * speaks for keeping.
 */
import { blocks } from "./blocks.ts";
import { leftRows } from "./left_rows.ts";
import { leftZvols } from "./left_zvols.ts";
import type { Kept, Orphan } from "./orphan.ts";
import type { World } from "./world.ts";

/** What was found. */
export interface Findings {
  /** Why nothing at all is offered; empty when something may be. */
  readonly blocked: readonly string[];
  readonly offered: readonly Orphan[];
  readonly kept: readonly Kept[];
}

/** Finds them. */
export function findOrphans(world: World): Findings {
  const blocked = blocks(world);
  const offered: Orphan[] = [];
  const kept: Kept[] = [];
  for (const { orphan, reasons } of [...leftRows(world), ...leftZvols(world)]) {
    if (reasons.length === 0 && blocked.length === 0) offered.push(orphan);
    else {
      const { kind, name } = orphan;
      kept.push({ kind, name, reasons: reasons.length > 0 ? reasons : blocked });
    }
  }
  return { blocked, offered, kept };
}
