/** The memories of the node's storages: one for each storage and each way that its settings were seen. */
import type { ApiSettings } from "../common/storage_settings.ts";
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import type { ArrayCall, MemorizedStorage } from "../pve/hook.ts";
import { Memory, type MemoryLink, type MemoryReport } from "./memory.ts";
import { MEMORY_TIMING, type MemoryTiming } from "./memory_agenda.ts";
import { SharedEvents } from "./memory_events.ts";
import { placeOf } from "./memory_file.ts";
import type { Storages } from "./storages.ts";

/** What the memories work with. */
export interface MemoriesPlace {
  readonly host: Host;
  /** The daemon's own: a request's lines say whose they are. */
  readonly log: Log;
  readonly linkOf: (api: ApiSettings) => MemoryLink;
  readonly onArrayCall?: ((call: ArrayCall) => void) | undefined;
  readonly timing?: MemoryTiming;
}

/** PVE asks every ten seconds: a memory that nobody asked for so long is of settings of the past. */
const UNASKED_MS = 300_000;

/** The same when the storage is asked for with other settings by now. */
const SUPERSEDED_MS = 30_000;

/** More than a cluster has storages; the least asked one goes first. */
const MOST = 100;

/** Longest time that a start waits for what was kept on disk. */
const BEGIN_MS = 5_000;

interface Held {
  /** The storage's. */
  readonly id: string;
  readonly memory: Memory;
  askedMs: number;
}

/** All memories of the node. */
export class Memories {
  readonly #place: MemoriesPlace;
  readonly #events = new SharedEvents();
  readonly #held = new Map<string, Held>();
  readonly #ending = new Set<Promise<void>>();
  #isStopped = false;

  constructor(place: MemoriesPlace) {
    this.#place = place;
  }

  /** The memory of a storage as it is configured now. It begins to read when it is first asked something. */
  of(storage: MemorizedStorage): Memory | undefined {
    if (this.#isStopped) return undefined;
    const nowMs = this.#place.host.monotonicMs();
    const key = keyOf(storage);
    this.#sweep(nowMs, key, storage.settings.id);
    let held = this.#held.get(key);
    if (held === undefined) {
      const { log, linkOf, onArrayCall, timing = MEMORY_TIMING } = this.#place;
      const memory = new Memory({
        storage: { ...storage, log },
        link: () => linkOf(storage.settings.api),
        events: this.#events,
        timing,
        onArrayCall,
      });
      held = { id: storage.settings.id, memory, askedMs: nowMs };
    }
    held.askedMs = nowMs;
    // The last asked one stands last.
    this.#held.delete(key);
    this.#held.set(key, held);
    return held.memory;
  }

  /** Begins the memories of the node's storages, so that answers are there before the first question. */
  async begin(storages: Storages): Promise<void> {
    const { host, log } = this.#place;
    const all = storages.sections().then((sections) =>
      Promise.all(sections.map(async (section) => {
        try {
          const open = await storages.open(section, BEGIN_MS);
          await this.of(open)?.begin();
          await open.close();
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          log.warning(`storage "${section.id}" is not read yet: ${reason}`);
        }
      }))
    ).catch((error: unknown) => log.warning(`the storages are not read yet: ${String(error)}`));
    const enough = new AbortController();
    await Promise.race([all, host.wait(BEGIN_MS, enough.signal).catch(() => {})]);
    enough.abort();
  }

  /** What each memory says of itself. */
  reports(): MemoryReport[] {
    return [...this.#held.values()].map(({ memory }) => memory.report());
  }

  /** Ends all; what is worth keeping is on disk then. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const key of [...this.#held.keys()]) this.#end(key, true);
    await Promise.all(this.#ending);
  }

  /** Ends what is asked for no more. */
  #sweep(nowMs: number, askedKey: string, askedId: string): void {
    for (const [key, { id, askedMs }] of this.#held) {
      if (key === askedKey) continue;
      const mostMs = id === askedId ? SUPERSEDED_MS : UNASKED_MS;
      if (nowMs - askedMs >= mostMs || this.#held.size > MOST) this.#end(key, false);
    }
  }

  #end(key: string, isKept: boolean): void {
    const held = this.#held.get(key);
    this.#held.delete(key);
    if (held === undefined) return;
    const ending = held.memory.stop(isKept).catch(() => {}).finally(() =>
      this.#ending.delete(ending)
    );
    this.#ending.add(ending);
  }
}

/** Differs whenever something else would be read, or in another way. In memory only: it holds the API key. */
function keyOf(storage: MemorizedStorage): string {
  const { id, api } = storage.settings;
  return JSON.stringify([id, placeOf(storage), api, storage.settings.transport.portals]);
}
