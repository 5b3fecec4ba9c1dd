/**
 * Puts together what `tnblock status` and the metrics tell: of a running daemon all of it, of a node without
 * one what its files and the kernel show. The arrays are not asked.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import { silentLog } from "../common/log.ts";
import { formatPortal } from "../common/portal.ts";
import type { Host } from "../host/host.ts";
import { outgoing } from "../host/outgoing.ts";
import type { HookWorld } from "../pve/hook.ts";
import { STORAGE_CFG, type StorageSection } from "../pve/storage_cfg.ts";
import { NAMESPACES_LIMIT } from "../transport/numbers.ts";
import { readJournal } from "../volumes/journal.ts";
import type { Storage } from "../volumes/storage.ts";
import { lookAround } from "../volumes/tidy_look.ts";
import type { ArrayLinks } from "./array_link.ts";
import type { Counters } from "./counters.ts";
import type { Keeper, KeeperState } from "./keeper.ts";
import type { Memories } from "./memories.ts";
import type { RecoveryReport } from "./recovery.ts";
import {
  type DiskDocument,
  failureDocument,
  type PortalDocument,
  type State,
  STATE_VERSION,
  type StorageState,
} from "./state.ts";
import {
  isoOf,
  journalDocument,
  keptDisks,
  linkDocument,
  memoryDocument,
  poolOf,
  spaceOf,
} from "./state_documents.ts";
import { Storages } from "./storages.ts";

/** What a process uses of its machine. */
export interface ProcessUse {
  readonly pid: number;
  readonly residentBytes: number;
  readonly cpuSeconds: number;
}

/** The parts of a daemon that are asked. */
export interface DaemonParts {
  readonly version: string;
  /** Milliseconds since the epoch. */
  readonly startedMs: number;
  readonly use: () => ProcessUse;
  readonly counters: Counters;
  readonly loopLagSeconds: () => number;
  /** Requests under way. */
  readonly underWay: () => number;
  readonly links: Pick<ArrayLinks, "find" | "states">;
  readonly memories: Pick<Memories, "of">;
  readonly keeper: Pick<Keeper, "state">;
  readonly journal: () => Promise<RecoveryReport>;
}

/** For all that is read of the node; the file system of the cluster may stand still. */
const LOOK_MS = 5_000;

/** For the files of one storage. */
const OPEN_MS = 3_000;

/** LUNs that TrueNAS has: 14 bits, less the last (docs/kernel-facts.md). */
const LUNS = 16_383;

/** What is read of the node. */
type NodePart = Pick<State, "storages" | "storagesError">;

/** Tells the state; who asks while it is being put together gets the same. */
export class StateSource {
  readonly #world: HookWorld;
  readonly #storages: Storages;
  readonly #daemon: DaemonParts | undefined;
  #looking: Promise<NodePart> | undefined;
  #asked: Promise<State> | undefined;

  /** @param daemon absent where none runs. */
  constructor(world: HookWorld, daemon?: DaemonParts) {
    // Looking is no request: it sets no level, says nothing every few seconds, and keeps nothing going.
    const { memoryOf: _memory, upkeepOf: _upkeep, ...rest } = world;
    this.#world = { ...rest, log: silentLog, setDebugLevel: () => {} };
    this.#storages = new Storages(this.#world);
    this.#daemon = daemon;
  }

  state(): Promise<State> {
    return this.#asked ??= this.#state().finally(() => this.#asked = undefined);
  }

  async #state(): Promise<State> {
    const { host } = this.#world;
    const [node, journal] = await Promise.all([this.#lookInTime(), this.#journal()]);
    return {
      schemaVersion: STATE_VERSION,
      node: host.nodeName,
      time: isoOf(host.now()),
      daemon: this.#daemon === undefined ? null : daemonState(this.#daemon, host),
      ...node,
      journal,
    };
  }

  /** A look that hangs goes on; no second one is begun beside it. */
  async #lookInTime(): Promise<NodePart> {
    const { host } = this.#world;
    const enough = new AbortController();
    const looking = this.#looking ??= this.#look().finally(() => this.#looking = undefined);
    try {
      return await Promise.race([
        looking,
        host.wait(LOOK_MS, enough.signal).then(() => {
          throw new TnblockError(
            "timeout",
            `Cannot read the storages: the node's files have not answered within ${LOOK_MS} ms`,
            { hint: "Look whether /etc/pve answers: pvecm status" },
          );
        }),
      ]);
    } catch (error) {
      return { storages: [], storagesError: failureDocument(asTnblockError(error)) };
    } finally {
      enough.abort();
      looking.catch(() => {});
    }
  }

  async #look(): Promise<NodePart> {
    const sections = await this.#sections();
    const kept = new Map(this.#daemon?.keeper.state().map((one) => [one.storage, one]));
    const storages = await Promise.all(
      sections.map((section) => this.#storage(section, kept.get(section.id))),
    );
    return { storages, storagesError: null };
  }

  /** That there are no storages, and that nobody knows which there are, are two things. */
  async #sections(): Promise<StorageSection[]> {
    const unknown = (why: string, cause?: unknown) =>
      new TnblockError("host-fault", `Cannot tell which storages this node has: ${why}`, {
        hint: "Look whether /etc/pve is there: systemctl status pve-cluster",
        cause,
      });
    const sections = await this.#storages.sections().catch((error: unknown) => {
      throw unknown(error instanceof Error ? error.message : String(error), error);
    });
    if (sections.length > 0) return sections;
    if (await this.#world.host.files.status(STORAGE_CFG) !== undefined) return [];
    throw unknown(`there is no ${STORAGE_CFG}`);
  }

  async #storage(
    section: StorageSection,
    kept: KeeperState | undefined,
  ): Promise<StorageState> {
    try {
      const open = await this.#storages.open(section, OPEN_MS);
      try {
        return await this.#opened(open, kept);
      } finally {
        await open.close();
      }
    } catch (error) {
      return { ...NOTHING, id: section.id, error: failureDocument(asTnblockError(error)) };
    }
  }

  async #opened(storage: Storage, kept: KeeperState | undefined): Promise<StorageState> {
    const { settings, host } = storage;
    const report = this.#daemon?.memories.of(storage)?.report();
    const link = this.#daemon?.links.find(settings.api)?.state();
    const [portals, disks] = await Promise.all([
      portalsHere(storage, kept, this.#daemon !== undefined && kept?.lastRoundMs === undefined),
      kept?.lastRoundMs === undefined ? disksHere(storage) : keptDisks(kept),
    ]);
    const ways = await outgoing(
      host.files,
      settings.transport.portals.map(({ address }) => address),
    );
    const wayOf = new Map(
      settings.transport.portals.map((portal, index) => [formatPortal(portal), ways[index]]),
    );
    return {
      id: settings.id,
      error: null,
      transport: settings.transport.kind,
      dataset: settings.dataset,
      array: link === undefined ? null : linkDocument(settings.api.hosts, link, host),
      memory: report === undefined ? null : memoryDocument(report),
      space: spaceOf(report),
      pool: poolOf(report),
      volumeLimit: settings.transport.kind === "iscsi" ? LUNS : NAMESPACES_LIMIT,
      portals: portals.map((portal) => ({
        ...portal,
        interface: wayOf.get(portal.address)?.name ?? null,
        bytesPerSecond: wayOf.get(portal.address)?.bytesPerSecond ?? null,
      })),
      disks,
    };
  }

  async #journal(): Promise<State["journal"]> {
    if (this.#daemon !== undefined) return journalDocument(await this.#daemon.journal());
    const { entries, unread } = await readJournal(this.#world.host);
    return journalDocument({
      open: entries.map(({ id, details, storage, zvol, startedMs }) => ({
        ...{ id, op: details.op, storage, zvol, startedMs, failures: 0, isGivenUp: false },
      })),
      unread,
    });
  }
}

const NOTHING: Omit<StorageState, "id" | "error"> = {
  transport: null,
  dataset: null,
  array: null,
  memory: null,
  space: null,
  pool: null,
  volumeLimit: null,
  portals: [],
  disks: [],
};

function daemonState(parts: DaemonParts, host: Host): NonNullable<State["daemon"]> {
  const { requests, ...counted } = parts.counters.state();
  return {
    version: parts.version,
    ...parts.use(),
    startedAt: isoOf(parts.startedMs),
    loopLagSeconds: parts.loopLagSeconds(),
    requests: { ...requests, underWay: parts.underWay() },
    ...counted,
    links: parts.links.states().map(({ hosts, state }) => linkDocument(hosts, state, host)),
  };
}

type BarePortal = Omit<PortalDocument, "interface" | "bytesPerSecond">;

/**
 * As they are now; the keeper's last look, which tells since when, may be some seconds old.
 *
 * @param isNew whether the daemon has not looked yet, and so has connected nothing that was not wanted.
 */
async function portalsHere(
  storage: Storage,
  kept: KeeperState | undefined,
  isNew: boolean,
): Promise<BarePortal[]> {
  const found = await storage.transport.portals();
  return found.map(({ portal, state }) => {
    const address = formatPortal(portal);
    const seen = kept?.portals.find((one) => one.address === address && one.state === state);
    return {
      address,
      state: isNew && state === "missing" ? "unseen" : state,
      since: seen === undefined ? null : isoOf(seen.sinceMs),
      error: seen?.error ?? null,
    };
  });
}

async function disksHere(storage: Storage): Promise<DiskDocument[]> {
  const held = await lookAround(storage);
  return held.filter(({ isAttached }) => isAttached).map(({ name, seemsUsed, disk }) => ({
    name,
    inUse: seemsUsed,
    idleSince: null,
    pathsUp: disk?.paths.up ?? 0,
    pathsConfigured: disk?.paths.configured ?? storage.settings.transport.portals.length,
  }));
}
