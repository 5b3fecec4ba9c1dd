/**
 * How the Perl plugin for TrueNAS asks, played by its calls alone: a connection and a login for each
 * question, whole tables, and one read for each volume that is asked about. Its own time is left out.
 */
import { withSession } from "./raw.ts";
import type { Stage } from "./stage.ts";

/** The plugin waits as long as it takes. */
const PATIENT = { deadlineMs: 120_000 };

/** A list of all volumes: login and three tables, one after the other. */
export async function listAsPerl(stage: Stage): Promise<number> {
  const { dataset } = stage.ready;
  return await withSession(stage, async (session) => {
    if (stage.options.transport === "iscsi") {
      await session.call("iscsi.extent.query", [[], {}], PATIENT);
      await session.call("iscsi.targetextent.query", [[], {}], PATIENT);
    } else {
      await session.call("nvmet.subsys.query", [[], {}], PATIENT);
      await session.call("nvmet.namespace.query", [[], {}], PATIENT);
    }
    const rows = await session.call(
      "pool.dataset.query",
      [[["id", "^", `${dataset}/`]], {}],
      PATIENT,
    );
    return (rows as unknown[]).length;
  });
}

/** The size of one volume: login and a read of its own. */
export async function sizeAsPerl(stage: Stage, zvol: string): Promise<void> {
  const { dataset } = stage.ready;
  await withSession(
    stage,
    (session) => session.call("pool.dataset.get_instance", [`${dataset}/${zvol}`]),
  );
}

/** The state of the storage: login, its dataset, its pool. */
export async function statusAsPerl(stage: Stage): Promise<void> {
  const { dataset } = stage.ready;
  await withSession(stage, async (session) => {
    await session.call("pool.dataset.get_instance", [dataset]);
    await session.call("pool.query", [[["name", "=", dataset.split("/")[0] ?? ""]], {}]);
  });
}
