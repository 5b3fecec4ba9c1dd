/**
 * A process of a node that can be killed at any moment: from then on nothing that it awaits ever comes, its
 * locks are free, its connection is closed. What it sent to the array is done or not, as the test says.
 */
import { Deadline } from "../../src/common/deadline.ts";
import { lineLog } from "../../src/common/log.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer, type HookWorld } from "../../src/pve/hook.ts";
import { openNodeSession } from "../../src/pve/node_session.ts";
import { type OpenStorage, openStorage } from "../../src/pve/open_storage.ts";
import type { Session } from "../../src/truenas/session.ts";
import { type JournalEntry, readJournal } from "../../src/volumes/journal.ts";
import { type Recovered, recoverStorage } from "../../src/volumes/recover/recover.ts";
import type { RecoverOptions } from "../../src/volumes/recover/recover.ts";
import type { Place, Reply } from "./place.ts";

/** When a process dies: at the nth write on the array, counted from 1. */
export interface Death {
  readonly nth: number;
  /** Before it is sent, after the array has done it, or while the array has it and does it yet. */
  readonly when: "before" | "after" | "under way";
}

/** What came of a process. */
export interface Life {
  /** Undefined when it was killed before it answered. */
  readonly reply: Reply | undefined;
  /** The writes that it sent. */
  readonly writes: readonly string[];
}

/** Asks the hook in a process that dies at a write; without a death it lives to its end. */
export async function askUntilDeath(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  death?: Death,
  node?: string,
): Promise<Life> {
  const process = new MortalProcess(place, death, node);
  return await process.ask(method, args);
}

/**
 * Asks the hook in a process that dies when all is done: right before its answer leaves, or right after, when
 * nobody can tell whether it arrived.
 */
export async function askAndDie(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  moment: "before" | "after",
): Promise<Reply | undefined> {
  const process = new MortalProcess(place, undefined, undefined, moment);
  return (await process.ask(method, args)).reply;
}

/** Recovers in a process that dies at a write; tells whether it lived to its end. */
export async function recoverUntilDeath(place: Place, death: Death): Promise<boolean> {
  return await new MortalProcess(place, death, undefined).recover();
}

const never = <T>(): Promise<T> => new Promise<T>(() => {});

class MortalProcess {
  #isDead = false;
  readonly #end = new AbortController();
  readonly #locks = new Set<() => void>();
  readonly #writes: string[] = [];
  #session: Promise<Session> | undefined;
  readonly #name: string;
  readonly #root: string;

  constructor(
    readonly place: Place,
    readonly death: Death | undefined,
    node: string | undefined,
    readonly atAnswer?: "before" | "after",
  ) {
    const at = node === undefined ? place.nodes.values().next().value : place.node(node);
    this.#name = at?.name ?? "";
    this.#root = at?.directory ?? "";
  }

  async ask(method: string, args: Record<string, unknown>): Promise<Life> {
    const request = this.place.request(method, args, { node: this.#name });
    const { reply, settled, delivered } = answer(JSON.stringify(request), this.#world());
    const told = await Promise.race([
      reply.then(({ text }) => JSON.parse(text) as Reply),
      this.#killed(),
    ]);
    if (this.atAnswer === "after") this.#kill();
    else if (told !== undefined) {
      await delivered();
      await settled;
    }
    (await this.#session)?.close();
    return { reply: told, writes: this.#writes };
  }

  async recover(): Promise<boolean> {
    const work = (async () => {
      const storage = await openPlace(this.place, this.#name, this.#world());
      await recoverStorage(storage, { settleMs: 0 });
      return true;
    })();
    const isAlive = await Promise.race([work, this.#killed()]) ?? false;
    (await this.#session)?.close();
    return isAlive;
  }

  #world(): HookWorld {
    return {
      host: this.#host(linuxHost({ root: this.#root })),
      log: lineLog((line) => this.place.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
      sessions: { session: (api) => this.#open(api) },
    };
  }

  #killed(): Promise<undefined> {
    return new Promise((resolve) =>
      this.#end.signal.addEventListener("abort", () => resolve(undefined), { once: true })
    );
  }

  #kill(): void {
    this.#isDead = true;
    for (const release of this.#locks) release();
    this.#end.abort(new Error("killed"));
  }

  /** What a dead process never sees. */
  async #lives<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isDead) return never();
    try {
      const result = await work();
      return this.#isDead ? never() : result;
    } catch (error) {
      if (this.#isDead) return never();
      throw error;
    }
  }

  #host(host: Host): Host {
    const wrapped = this.#wrap(host);
    const replaceText: typeof host.files.replaceText = async (path, ...rest) => {
      if (this.atAnswer === "before" && path.endsWith(".told")) this.#kill();
      else await host.files.replaceText(path, ...rest);
    };
    return {
      ...wrapped,
      files: this.#wrap({ ...host.files, replaceText }),
      // Not async: a clock, random numbers and constants.
      now: () => host.now(),
      monotonicMs: () => host.monotonicMs(),
      randomUuid: () => host.randomUuid(),
      randomInteger: (limit) => host.randomInteger(limit),
      wait: (ms, signal) =>
        this.#lives(() =>
          host.wait(
            ms,
            AbortSignal.any([this.#end.signal, ...(signal === undefined ? [] : [signal])]),
          )
        ),
      lock: (name, bounds) =>
        this.#lives(async () => {
          const release = await host.lock(name, bounds);
          const once = () => this.#locks.delete(once) && release();
          this.#locks.add(once);
          if (this.#isDead) once();
          return once;
        }),
    };
  }

  #wrap<T extends object>(object: T): T {
    const entries = Object.entries(object).map(([key, value]) => [
      key,
      typeof value === "function"
        ? (...args: unknown[]) => this.#lives(() => value.apply(object, args))
        : value,
    ]);
    return Object.fromEntries(entries) as T;
  }

  async #open(api: Parameters<typeof openNodeSession>[1]): Promise<Session> {
    this.#session ??= openNodeSession(
      {
        host: linuxHost({ root: this.#root }),
        limitLogins: false,
        dialectFile: "/run/tnblock/mortal.dialect",
      },
      api,
      { deadlineMs: 15_000 },
    );
    const session = await this.#session;
    const mortal = (name: "call" | "callJob"): Session["call"] => (method, params, options) =>
      this.#lives(async () => {
        if (options?.lane !== "write") return await session[name](method, params, options);
        this.#writes.push(method);
        const isLast = this.death?.nth === this.#writes.length;
        if (isLast && this.death.when === "before") {
          this.#kill();
          return undefined;
        }
        const work = session[name](method, params, options);
        if (isLast && this.death.when === "under way") {
          work.catch(() => {});
          // Its frame has left when the next answer comes.
          await session.call("core.ping", []);
          this.#kill();
          return undefined;
        }
        const result = await work;
        if (isLast) this.#kill();
        return result;
      });
    return {
      address: session.address,
      release: session.release,
      get isOpen() {
        return session.isOpen;
      },
      closed: session.closed,
      call: mortal("call"),
      callJob: mortal("callJob"),
      subscribe: (...args) => session.subscribe(...args),
      close: () => {},
    };
  }
}

/** Opens the storage of a node, as the daemon does. */
export async function openPlace(
  place: Place,
  node?: string,
  world: Partial<HookWorld> = {},
): Promise<OpenStorage> {
  const at = node === undefined ? place.nodes.values().next().value : place.node(node);
  const host = world.host ?? linuxHost({ root: at?.directory ?? place.directory });
  return await openStorage(
    { storage: "san", config: place.config(), node: at?.name ?? "pve1" },
    {
      host,
      log: lineLog((line) => place.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
      onArrayCall: (call) => place.calls.push(call.method),
      ...world,
    },
    new Deadline(host, 60_000),
  );
}

/** Recovers what is open on a node, at once unless told otherwise. */
export async function recover(
  place: Place,
  options: RecoverOptions = {},
  node?: string,
): Promise<Recovered[]> {
  const storage = await openPlace(place, node);
  try {
    return await recoverStorage(storage, { settleMs: 0, ...options });
  } finally {
    await storage.close();
  }
}

/** What a node's journal holds. */
export async function openEntries(place: Place, node?: string): Promise<readonly JournalEntry[]> {
  const directory = node === undefined ? place.directory : place.node(node).directory;
  return (await readJournal(linuxHost({ root: directory }))).entries;
}
