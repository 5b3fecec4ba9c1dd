/**
 * A TrueNAS to try things against: the API of a release over TLS on loopback, with portals that
 * listen, and a control endpoint for tests. Everything starts with {@link startSimulator} and ends
 * with `stop()`; importing this module does nothing.
 */

import { randomUUID } from "node:crypto";
import type { Exchange } from "./connection.ts";
import { openControl } from "./control.ts";
import type { DataSide, Exports } from "./exports.ts";
import { noDataSide } from "./exports.ts";
import type { Fault } from "./faults.ts";
import { latencyProfile } from "./latency.ts";
import type { Objects } from "./objects.ts";
import { objects } from "./objects.ts";
import { openPortals } from "./portals.ts";
import type { Portals } from "./portals.ts";
import type { ReleaseName } from "./release.ts";
import { releaseOf } from "./release.ts";
import { type Certificate, openDoor } from "./server.ts";
import { Sim } from "./sim.ts";
import type { Network } from "./start_world.ts";
import { addVolumes, emptyWorld, readyWorld } from "./start_world.ts";
import type { ServiceName, World } from "./world.ts";

export type { Exchange } from "./connection.ts";
export type { Fault } from "./faults.ts";
export type { ReleaseName } from "./release.ts";

/** What a data side learns when it is made. */
export interface DataSideContext {
  readonly network: Network;
  readonly release: ReleaseName;
  readonly world: World;
}

/** How the simulator shall be; everything has a default. */
export interface SimulatorOptions {
  /** Default 127.0.0.1 and a free port. */
  readonly listen?: { readonly address: string; readonly port: number };
  /** Default "25.10". */
  readonly release?: ReleaseName;
  /** "none" (default), "lan" or "slow". */
  readonly latency?: string;
  /** So many volumes of storage `san`, exported. */
  readonly volumes?: number;
  /** The cluster that those volumes belong to; default a new one. */
  readonly clusterId?: string;
  /** Logins a minute from one address; default 20, 0 for no limit. */
  readonly loginLimit?: number;
  /** What the service user may do; default `FULL_ADMIN`, which is everything. */
  readonly roles?: readonly string[];
  /** Start as the recordings do: a pool, addresses and users, nothing else. */
  readonly empty?: boolean;
  /** Who plays data and network side; default nobody. */
  readonly dataSide?: (context: DataSideContext) => Promise<DataSide> | DataSide;
  /** Sees every request with its answer. */
  readonly onExchange?: (exchange: Exchange) => void;
  /** Real portals elsewhere; the simulator then opens none itself. */
  readonly network?: {
    readonly iscsiPortals?: readonly string[];
    readonly iscsiPort?: number;
    readonly nvmePorts?: readonly { readonly address: string; readonly port: number }[];
  };
  /** Silence after which the proxy cuts a connection, in ms; default that of the release. */
  readonly idleMs?: number;
  /** The simulator's clock in ms; default the machine's. */
  readonly now?: () => number;
}

/** The one line that tells a caller where everything is. */
export interface ReadyLine {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly apiKey: string;
  /** SHA-256 of the certificate. */
  readonly fingerprint: string;
  /** URL of the control endpoint. */
  readonly control: string;
  readonly dataset: string;
  readonly targetIqn: string;
  readonly subsystemNqn: string;
  readonly portals: { readonly iscsi: readonly string[]; readonly nvme: readonly string[] };
  /** With `empty`: the users and their API keys. */
  readonly users?: Readonly<Record<string, string>>;
}

export interface Simulator {
  readonly ready: ReadyLine;
  stop(): Promise<void>;
  /** The same as `GET /objects`. */
  objects(): Objects;
  /** The same as `GET /stats`. */
  stats(): ReturnType<Sim["stats"]["toJson"]>;
  /** The same as `POST /faults`. */
  setFaults(faults: readonly Fault[]): void;
  /** Resolves when the fault `hold` has a call of this method; without one it waits for ever. */
  held(method: string): Promise<void>;
  /** Starts or stops a service behind the API's back. */
  setService(name: ServiceName, running: boolean): Promise<void>;
  /** What the array offers on the network now. */
  exports(): Exports;
  /** Cuts every API connection, as a failover or a restart of the proxy does. */
  cutConnections(): void;
  /** Forgets all logins without closing a connection, as TrueNAS does after 30 days. */
  expireSessions(): void;
  /**
   * Goes down: every connection is cut and nobody listens, until the returned function brings the array up
   * again, with another boot id, the same world at the same place, and another release if one is given.
   */
  goDown(): Promise<(release?: ReleaseName) => Promise<void>>;
  /** The inner state, for tests that need to prepare what the API cannot. */
  readonly world: World;
}

const LOOPBACK = ["127.0.0.1", "127.0.0.2"];

const joined = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

async function networkOf(
  options: SimulatorOptions,
): Promise<{ network: Network; portals: Portals | undefined }> {
  const given = options.network;
  if (given !== undefined) {
    const network = {
      iscsi: { addresses: given.iscsiPortals ?? [], port: given.iscsiPort ?? 3260 },
      nvme: given.nvmePorts ?? [],
    };
    return { network, portals: undefined };
  }
  if (options.empty) {
    return { network: { iscsi: { addresses: [], port: 3260 }, nvme: [] }, portals: undefined };
  }
  const portals = await openPortals(LOOPBACK);
  return { network: portals, portals };
}

/** Starts a simulator; it listens when this resolves. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  let release = releaseOf(options.release ?? "25.10");
  const latency = latencyProfile(options.latency);
  const now = options.now ?? Date.now;
  const { network, portals } = await networkOf(options);
  const prepared = options.empty ? undefined : readyWorld(now, network, release, options.roles);
  const world = prepared?.world ?? emptyWorld(now);
  const dataSide = await options.dataSide?.({ network, release: release.name, world }) ??
    noDataSide();
  const loginLimit = options.loginLimit ?? 20;
  let sim = new Sim({ release, latency, world, dataSide, now, loginLimit });
  const volumes = addVolumes(
    world,
    prepared === undefined ? 0 : options.volumes ?? 0,
    options.clusterId ?? randomUUID(),
    release,
  );
  for (const name of volumes) {
    await dataSide.createZvol(name, world.zfs.datasets.get(name)?.volsize ?? 0);
  }
  await sim.applyService("iscsitarget");
  await sim.applyService("nvmet");
  const control = await openControl(() => sim);
  const open = (port: number, certificate?: Certificate) =>
    openDoor({
      sim,
      address: options.listen?.address ?? "127.0.0.1",
      port,
      idleMs: options.idleMs ?? release.idleMs,
      certificate,
      onExchange: options.onExchange,
    });
  let door = await open(options.listen?.port ?? 0);
  const admin = prepared?.user ?? world.users.get("truenas_admin");
  const ready: ReadyLine = {
    host: door.host,
    port: door.port,
    user: admin?.name ?? "",
    apiKey: admin?.apiKey ?? "",
    fingerprint: door.fingerprint,
    control: control.url,
    dataset: prepared?.dataset ?? "tank",
    targetIqn: prepared?.targetIqn ?? "",
    subsystemNqn: prepared?.subsystemNqn ?? "",
    portals: {
      iscsi: network.iscsi.addresses.map((address) => joined(address, network.iscsi.port)),
      nvme: network.nvme.map(({ address, port }) => joined(address, port)),
    },
    ...(options.empty
      ? { users: Object.fromEntries([...world.users].map(([name, user]) => [name, user.apiKey])) }
      : {}),
  };
  return {
    ready,
    world,
    objects: () => objects(world),
    stats: () => sim.stats.toJson(),
    setFaults: (faults) => sim.faults.set(faults),
    held: (method) => sim.faults.held(method),
    setService: async (name, running) => {
      const state = world.services.get(name);
      if (state !== undefined) state.running = running;
      await sim.applyService(name);
    },
    exports: () => sim.exports,
    cutConnections: () => door.cutAll(),
    expireSessions: () => door.expireAll(),
    goDown: async () => {
      sim.faults.set([]);
      await door.close();
      return async (next) => {
        if (next !== undefined) release = releaseOf(next);
        world.bootId = randomUUID();
        sim = new Sim({ release, latency, world, dataSide, now, loginLimit });
        await sim.applyService("iscsitarget");
        await sim.applyService("nvmet");
        door = await open(door.port, door.certificate);
      };
    },
    stop: async () => {
      // What is held goes on, and finds its connection closed.
      sim.faults.set([]);
      await Promise.all([door.close(), control.close(), portals?.close()]);
      await dataSide.close();
    },
  };
}
