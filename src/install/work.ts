/** What is at hand while a plan is carried out: its notes, and the copies of what it replaces. */
import { attempt } from "../host/failure.ts";
import type { NodeFacts } from "./facts.ts";
import { NOTES_FOLDER } from "./places.ts";
import type { Plan } from "./plan.ts";
import type { Before, InstallRecord } from "./record.ts";
import type { InstallWorld } from "./world.ts";

/** Where copies are kept; each is named by what it holds. */
export const KEPT = `${NOTES_FOLDER}/kept`;

/** What is at hand in all of it. */
export interface Work {
  readonly world: InstallWorld;
  readonly facts: NodeFacts;
  readonly plan: Plan;
  record: InstallRecord;
  /** What `pvesm status` showed before; undefined when it did not work. */
  storages: readonly string[] | undefined;
}

/** Keeps a copy of a file as it is. */
export async function keep(
  { programs }: InstallWorld,
  { files }: NodeFacts,
  path: string,
): Promise<Before> {
  const now = files.get(path);
  if (now === undefined) return null;
  const copy = `${KEPT}/${path.slice(path.lastIndexOf("/") + 1)}.${now.digest.slice(0, 16)}`;
  await programs.copy(path, copy, 0o600);
  return { ...now, copy };
}

/** Half-written files of a run that was killed; nobody else writes them while we hold the lock. */
export async function sweep({ world: { host }, facts, plan }: Work): Promise<void> {
  const paths = new Set([
    ...Object.keys(facts.record.pending?.before ?? {}),
    ...plan.steps.flatMap(({ changes }) => changes.map(({ path }) => path)),
  ]);
  await attempt("Cannot clear away what an interrupted run left", async () => {
    for (const path of paths) {
      const folder = path.slice(0, path.lastIndexOf("/"));
      const name = path.slice(folder.length + 1);
      for (const found of await host.files.list(folder) ?? []) {
        if (found === `.${name}.new` || found.startsWith(`.${name}.tmp.`)) {
          await host.files.remove(`${folder}/${found}`);
        }
      }
    }
  });
}

/** Copies that nothing can need any more. */
export async function sweepKept({ world: { host }, record }: Work): Promise<void> {
  const needed = new Set(
    [...Object.values(record.previous?.files ?? {}), ...Object.values(record.pending?.before ?? {})]
      .map((before) => before?.copy),
  );
  for (const name of await host.files.list(KEPT) ?? []) {
    if (!needed.has(`${KEPT}/${name}`)) await host.files.remove(`${KEPT}/${name}`);
  }
}
