/** Looks after the node's storages between the verbs: sessions, controllers, paths and links (design decision 6). */
import { Deadline } from "../common/deadline.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import type { HookWorld, MemorizedStorage } from "../pve/hook.ts";
import { reopenStorage } from "../pve/open_storage.ts";
import type { KeeperState } from "./keeper_state.ts";
import { StorageKeeper } from "./keeper_storage.ts";
import { SaidLately, sparingLog } from "./sparing_log.ts";
import { Storages } from "./storages.ts";

export type { KeeperState } from "./keeper_state.ts";

/** Milliseconds between two looks. */
const PERIOD_MS = 10_000;
/** PVE asks every ten seconds: a storage that it did not ask for so long, and has not in storage.cfg, is none any more. */
const UNASKED_MS = 300_000;
/** More than a cluster has storages; the least asked one goes first. */
const MOST = 100;
/** Time for reading a section and its secrets. */
const OPEN_MS = 5_000;

/** What the keeper works with. */
export interface KeeperPlace {
  readonly host: Host;
  readonly log: Log;
  /** Milliseconds between two looks; the first comes after as long. */
  readonly periodMs?: number | undefined;
}

interface Kept {
  readonly keeper: StorageKeeper;
  storage: MemorizedStorage;
  /** Whether that is what storage.cfg says: a request may bring settings that are only tried. */
  isConfigured: boolean;
  askedMs: number;
}

/** All storages of the node. */
export class Keeper {
  readonly #place: KeeperPlace;
  /** For what may be said again and again. */
  readonly #quiet: Log;
  readonly #kept = new Map<string, Kept>();
  readonly #stopped = new AbortController();
  readonly #looks = new Map<StorageKeeper, Promise<void>>();
  #storages: Storages | undefined;
  #loop: Promise<void> = Promise.resolve();

  constructor(place: KeeperPlace) {
    this.#place = place;
    const { host, log } = place;
    this.#quiet = sparingLog(log, "keeper", new SaidLately(), () => host.monotonicMs());
  }

  /** The upkeep of a storage that somebody asks for. */
  of(storage: MemorizedStorage): StorageKeeper | undefined {
    return this.#of(storage, false);
  }

  #of(storage: MemorizedStorage, isConfigured: boolean): StorageKeeper | undefined {
    if (this.#stopped.signal.aborted) return undefined;
    const nowMs = this.#place.host.monotonicMs();
    const { id } = storage.settings;
    const known = this.#kept.get(id);
    if (known !== undefined) {
      known.askedMs = nowMs;
      if (isConfigured || !known.isConfigured) Object.assign(known, { storage, isConfigured });
      return known.keeper;
    }
    const keeper = new StorageKeeper({
      id,
      host: this.#place.host,
      log: this.#place.log,
      open: (ms) => this.#open(id, ms),
    });
    this.#kept.set(id, { keeper, storage, isConfigured, askedMs: nowMs });
    return keeper;
  }

  /** Begins to look around. */
  begin(storages: Storages): void {
    // What is opened here is nobody's request.
    this.#storages = new Storages({
      ...storages.world,
      log: this.#quiet,
      setDebugLevel: () => {},
      upkeepOf: (storage) => this.#of(storage, true),
    });
    this.#loop = this.#run();
  }

  /** One look at every storage, and all that follows of it. */
  async round(): Promise<void> {
    await this.#look();
    await Promise.all(this.#looks.values());
    await Promise.all([...this.#kept.values()].map(({ keeper }) => keeper.settled()));
  }

  /** What is known of each storage. */
  state(): KeeperState[] {
    return [...this.#kept.values()].map(({ keeper }) => keeper.state());
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
    await Promise.all(this.#looks.values());
    await Promise.all([...this.#kept.values()].map(({ keeper }) => keeper.stop()));
  }

  async #run(): Promise<void> {
    const { host, periodMs = PERIOD_MS } = this.#place;
    const { signal } = this.#stopped;
    for (;;) {
      await host.wait(periodMs, signal).catch(() => {});
      if (signal.aborted) return;
      await this.#look();
    }
  }

  /** Begins a look at each storage: one that hangs keeps no other one waiting. */
  async #look(): Promise<void> {
    await this.#readSections();
    this.#sweep();
    for (const { keeper } of this.#kept.values()) {
      if (this.#looks.has(keeper)) continue;
      this.#looks.set(keeper, keeper.look().finally(() => this.#looks.delete(keeper)));
    }
  }

  /** Storages are kept whether PVE asks for them or not; the settings are those of today. */
  async #readSections(): Promise<void> {
    const storages = this.#storages;
    if (storages === undefined) return;
    const sections = await storages.sections().catch((error) => {
      this.#quiet.warning(`the storages of this node cannot be read: ${textOf(error)}`);
      return [];
    });
    for (const [id, kept] of this.#kept) {
      kept.isConfigured &&= sections.some((section) => section.id === id);
    }
    for (const section of sections) {
      try {
        // Opening it makes it known here.
        await (await storages.open(section, OPEN_MS)).close();
      } catch (error) {
        this.#quiet.warning(`storage "${section.id}" is not looked after: ${textOf(error)}`);
      }
    }
  }

  #sweep(): void {
    const nowMs = this.#place.host.monotonicMs();
    const byAge = [...this.#kept].sort(([, one], [, other]) => one.askedMs - other.askedMs);
    for (const [id, { askedMs, keeper }] of byAge) {
      if (nowMs - askedMs < UNASKED_MS && this.#kept.size <= MOST) continue;
      this.#kept.delete(id);
      void keeper.stop();
    }
  }

  #open(id: string, ms: number) {
    const kept = this.#kept.get(id);
    if (kept === undefined || this.#storages === undefined) {
      throw new Error(`The storage "${id}" is not kept any more`);
    }
    // Whatever is done here is no reason to go on keeping the storage.
    const { upkeepOf: _, ...world }: HookWorld = this.#storages.world;
    const { host } = this.#place;
    return reopenStorage(kept.storage, world, new Deadline(host, ms));
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
