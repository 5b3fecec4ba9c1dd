/** Cleaning up one storage: looking, and removing one by one what a look has offered. */
import { Deadline } from "../common/deadline.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import type { TlsTrust } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import { type Cluster, readCluster } from "../pve/cluster.ts";
import type { SharedSessions } from "../pve/connect_array.ts";
import { openNodeSession } from "../pve/node_session.ts";
import { type OpenStorage, openStorage } from "../pve/open_storage.ts";
import type { StorageSection } from "../pve/storage_cfg.ts";
import { readArrayTime } from "../truenas/array_time.ts";
import type { Session } from "../truenas/session.ts";
import type { Trust } from "../truenas/socket.ts";
import { askNodes } from "./ask_nodes.ts";
import { type Findings, findOrphans } from "./find.ts";
import type { Orphan } from "./orphan.ts";
import { suspectDisks, suspects } from "./suspects.ts";
import { gatherFacts } from "./node_facts.ts";
import { readArray, readSnapshots } from "./read_array.ts";
import { readReferences } from "./references.ts";
import { RemovalRecord } from "./removal_record.ts";
import { removeOrphan } from "./remove.ts";

/** What cleaning up works with. */
export interface CleanupWorld {
  readonly host: Host;
  readonly log: Log;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** Told of what is done, in words. */
  readonly tell: (line: string) => void;
  /** Aborted when nothing more is to be begun. */
  readonly signal: AbortSignal;
}

/** A storage that is cleaned up. */
export interface CleanupStorage {
  readonly section: StorageSection;
  /** Other ids under which guests may name its volumes. */
  readonly aliases: readonly string[];
}

/** What became of a run. */
export interface CleanupResult {
  readonly removed: readonly Orphan[];
  /** What was not begun. */
  readonly left: readonly Orphan[];
  /** Why it ended early. */
  readonly stoppedBy: TnblockError | undefined;
  /** The file that says what was removed; undefined when nothing was begun. */
  readonly record: string | undefined;
}

/** For one look: the array, and every node. */
const LOOK_MS = 60_000;

/** For removing one. */
const REMOVE_MS = 300_000;

const CONNECT_MS = 15_000;

/** One storage; must be closed. */
export class Cleanup {
  readonly #world: CleanupWorld;
  #session: Promise<Session> | undefined;

  constructor(world: CleanupWorld, readonly storage: CleanupStorage) {
    this.#world = world;
  }

  get #sessions(): SharedSessions {
    return {
      session: async (api, deadline) => {
        const known = await this.#session?.catch(() => undefined);
        if (known?.isOpen === true) return known;
        const { host, limitLogins } = this.#world;
        const dialectFile = `/run/tnblock/${this.storage.section.id}.dialect`;
        return await (this.#session = openNodeSession(
          { host, limitLogins, dialectFile },
          api,
          deadline.bounds(CONNECT_MS),
        ));
      },
    };
  }

  async #with<T>(ms: number, work: (storage: OpenStorage) => Promise<T>): Promise<T> {
    const { host, log, limitLogins } = this.#world;
    const { id, config } = this.storage.section;
    const world = { host, log, limitLogins, setDebugLevel: () => {}, sessions: this.#sessions };
    const storage = await openStorage(
      { storage: id, config, node: host.nodeName },
      world,
      new Deadline(host, ms),
    );
    try {
      return await work(storage);
    } finally {
      await storage.close();
    }
  }

  /** Looks at the array, the configuration of the cluster and every node. Changes nothing. */
  async look(): Promise<Findings> {
    return await this.#with(LOOK_MS, async (storage) => {
      const { host } = storage;
      const { id } = storage.settings;
      const caller = await storage.array();
      const [array, references, cluster] = await Promise.all([
        readArray(storage, caller, () => this.#arrayTime(storage)),
        readReferences(host, [id, ...this.storage.aliases]),
        readCluster(host).catch((error) => asTnblockError(error)),
      ]);
      const known: Cluster = cluster instanceof TnblockError
        ? { name: undefined, isQuorate: true, nodes: [] }
        : cluster;
      const so = { storage, nodeNowMs: host.now(), isQuorate: known.isQuorate, references };
      const early = { ...so, array: { ...array, snapshots: new Map() } };
      const disks = suspectDisks(early);
      const [nodes, snapshots] = await Promise.all([
        askNodes(host, known, { storage: id, disks }, () => gatherFacts(host, storage, disks)),
        readSnapshots(storage, caller, suspects(early)),
      ]);
      return findOrphans({ ...so, array: { ...array, snapshots }, nodes });
    });
  }

  /**
   * Removes them one by one, each after another look that must offer the very same; ends at the first surprise.
   */
  async remove(orphans: readonly Orphan[]): Promise<CleanupResult> {
    const { host, tell, signal } = this.#world;
    return await this.#alone(async () => {
      const removed: Orphan[] = [];
      let record: RemovalRecord | undefined;
      let stoppedBy: TnblockError | undefined;
      for (const orphan of orphans) {
        if (signal.aborted) break;
        try {
          await this.#with(REMOVE_MS, async (storage) => {
            const { id, dataset } = storage.settings;
            const own = record ??= new RemovalRecord(host, { storage: id, dataset });
            await own.begin(orphan);
            try {
              await removeOrphan(storage, orphan, () => this.#again(orphan));
            } catch (error) {
              await own.end(asTnblockError(error).message);
              throw error;
            }
            await own.end();
          });
        } catch (error) {
          stoppedBy = asTnblockError(error);
          break;
        }
        removed.push(orphan);
        tell(`removed: ${orphan.kind} ${orphan.name}`);
      }
      return {
        removed,
        left: orphans.slice(removed.length),
        stoppedBy,
        record: record?.path,
      };
    });
  }

  async #again(orphan: Orphan): Promise<void> {
    const { offered, kept, blocked } = await this.look();
    if (offered.some((one) => isSame(one, orphan))) return;
    const reasons = kept.find(({ kind, name }) => kind === orphan.kind && name === orphan.name)
      ?.reasons ?? blocked;
    throw new TnblockError(
      "in-use",
      `Cannot remove "${orphan.name}": ${
        reasons.length === 0 ? "it is not what it was" : reasons.join("; ")
      }`,
      { hint: "Nothing of it was touched; run tnblock cleanup-orphans again to see what is left" },
    );
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const { host } = this.#world;
    const { id } = this.storage.section;
    let release: () => void;
    try {
      release = await host.lock(`cleanup-orphans-${id}`, { deadlineMs: 0 });
    } catch (error) {
      throw new TnblockError("busy", `Cannot clean up storage "${id}": another clean-up runs`, {
        cause: error,
      });
    }
    try {
      return await work();
    } finally {
      release();
    }
  }

  async #arrayTime({ host, settings }: OpenStorage): Promise<number | undefined> {
    const trust = await trustOf(host, settings.api.tls);
    const session = await this.#session;
    if (trust === undefined || session === undefined) return undefined;
    const { address } = session;
    return await readArrayTime({ address, trust, clock: host, deadlineMs: CONNECT_MS });
  }

  /** Ends the session. */
  async close(): Promise<void> {
    (await this.#session?.catch(() => undefined))?.close();
  }
}

/** Whether it is the very thing that was shown: nothing made since under its name. */
function isSame(a: Orphan, b: Orphan): boolean {
  return a.kind === b.kind && a.name === b.name && a.zvol?.guid === b.zvol?.guid &&
    a.createdMs === b.createdMs &&
    JSON.stringify([a.rows, [...a.snapshots].sort()]) ===
      JSON.stringify([b.rows, [...b.snapshots].sort()]);
}

async function trustOf(host: Host, tls: TlsTrust): Promise<Trust | undefined> {
  if (tls.kind !== "ca") return tls;
  const pem = await host.files.readText(tls.file);
  return pem === undefined ? undefined : { kind: "ca", pem };
}
