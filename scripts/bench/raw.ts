/** The bare API, without anything of ours but the connection: what the array itself costs. */
import { connectTrueNas } from "../../src/truenas/array.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import type { Session } from "../../src/truenas/session.ts";
import type { Stage } from "./stage.ts";

const MIB = 1 << 20;
/** The zvol's device appears some time after the zvol. */
const DEVICE_TRY_MS = 5;
const DEVICE_TRIES = 400;

/** Works with a session of its own, login included. */
export async function withSession<T>(
  { ready }: Stage,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const nas = await connectTrueNas({
    addresses: [ready.host],
    port: ready.port,
    user: ready.user,
    apiKey: ready.apiKey,
    trust: { kind: "fingerprint", sha256: ready.fingerprint },
    clock: systemClock,
  });
  try {
    return await work(nas.session);
  } finally {
    nas.session.close();
  }
}

/** The cheapest queries that a list of all volumes can be made from, at once; how many rows they gave. */
export async function listBare(stage: Stage): Promise<number> {
  const database = { extra: { retrieve_locked_info: false } };
  return await withSession(stage, async (session) => {
    const zvols = session.call("zfs.resource.query", [{
      paths: [stage.ready.dataset],
      get_children: true,
      get_user_properties: true,
      properties: ["volsize", "used", "creation", "origin"],
    }]);
    const tables = stage.options.transport === "iscsi"
      ? [
        session.call("iscsi.extent.query", [[], database]),
        session.call("iscsi.targetextent.query", [[], {}]),
      ]
      : [session.call("nvmet.namespace.query", [[], database])];
    const [rows] = await Promise.all([zvols, ...tables]);
    return (rows as unknown[]).length;
  });
}

/** Makes and exports a zvol with the fewest writes there are, one after the other; its time in ms. */
export async function allocateBare(
  session: Session,
  stage: Stage,
  number: number,
): Promise<number> {
  const name = `${stage.ready.dataset}/bare-${number}`;
  const start = performance.now();
  await session.call("pool.dataset.create", [{
    name,
    type: "VOLUME",
    volsize: 64 * MIB,
    volblocksize: "16K",
    sparse: true,
    force_size: true,
    comments: "",
    snapdev: "INHERIT",
    reservation: 0,
    refreservation: 0,
    special_small_block_size: "INHERIT",
  }]);
  if (stage.options.transport === "nvme-tcp") {
    await onceThere(() =>
      session.call("nvmet.namespace.create", [{
        subsys_id: 1,
        device_type: "ZVOL",
        device_path: `zvol/${name}`,
        enabled: true,
      }])
    );
  } else {
    const extent = await onceThere(() =>
      session.call("iscsi.extent.create", [{
        name: `bare-${number}`,
        type: "DISK",
        disk: `zvol/${name}`,
        blocksize: 512,
      }])
    );
    const { id } = extent as { readonly id: number };
    await session.call("iscsi.targetextent.create", [{ target: 1, extent: id }]);
  }
  return performance.now() - start;
}

/** Tries until the zvol's device is there. */
async function onceThere(attempt: () => Promise<unknown>): Promise<unknown> {
  for (let left = DEVICE_TRIES;; left--) {
    try {
      return await attempt();
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, DEVICE_TRY_MS));
    }
  }
}
