/** A TrueNAS as transports and verbs use it: one session, and every resource bound to it. */
import type { Caller } from "./caller.ts";
import * as datasets from "./datasets.ts";
import * as extents from "./extents.ts";
import * as iscsiGlobal from "./iscsi_global.ts";
import * as namespaces from "./namespaces.ts";
import * as pools from "./pools.ts";
import * as portals from "./portals.ts";
import * as services from "./services.ts";
import { openSession, type Session, type SessionOptions } from "./session.ts";
import * as snapshots from "./snapshots.ts";
import * as subsystems from "./subsystems.ts";
import * as targetExtents from "./target_extents.ts";
import * as targets from "./targets.ts";
import * as zvols from "./zvols.ts";

/** A function of a resource without its first parameter, the caller. */
type Bound<F> = F extends (caller: Caller, ...rest: infer Rest) => infer Result
  ? (...rest: Rest) => Result
  : never;

/** A resource file's functions, bound to one session; helpers that need no session are left out. */
export type Resource<M> = {
  readonly [
    K in keyof M as M[K] extends (caller: Caller, ...rest: never[]) => Promise<unknown> ? K
      : never
  ]: Bound<M[K]>;
};

const RESOURCES = {
  pools,
  datasets,
  zvols,
  snapshots,
  extents,
  targets,
  targetExtents,
  portals,
  namespaces,
  subsystems,
  services,
  iscsiGlobal,
} as const;

/** The resources of an array, by name. */
export type Resources = { readonly [K in keyof typeof RESOURCES]: Resource<typeof RESOURCES[K]> };

/** A TrueNAS with a session open. */
export interface TrueNas extends Resources {
  readonly session: Session;
}

/** Binds every resource to a caller; tests bind them to a table of calls. */
export function bindResources(caller: Caller): Resources {
  const bound: Record<string, Record<string, unknown>> = {};
  for (const [name, functions] of Object.entries(RESOURCES)) {
    bound[name] = {};
    for (const [verb, act] of Object.entries(functions)) {
      bound[name][verb] = (...rest: unknown[]) =>
        (act as (caller: Caller, ...rest: unknown[]) => unknown)(caller, ...rest);
    }
  }
  return bound as unknown as Resources;
}

/**
 * Connects and logs in.
 *
 * @example
 * ```ts
 * const nas = await connectTrueNas({ addresses: ["nas.example"], user: "tnblock", apiKey, clock: systemClock });
 * const { zvols } = await nas.zvols.list("tank/pve");
 * nas.session.close();
 * ```
 * @throws ArrayError as `openSession` does.
 */
export async function connectTrueNas(options: SessionOptions): Promise<TrueNas> {
  const session = await openSession(options);
  return { session, ...bindResources(session) };
}
