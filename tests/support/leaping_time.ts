/**
 * A node whose time leaps over the hours in which nothing is done. While anything is under way it runs as fast as
 * the world's, so that no deadline passes that would not have passed; when all is still it goes on at the moment
 * at which the next wait ends. The programs, files and sockets of the node are real.
 */
import { readdirSync, readFileSync, readlinkSync, type Stats, statSync } from "node:fs";
import { setImmediate } from "node:timers";
import { linuxHost } from "../../src/host/linux.ts";
import type { FileStatus, Host, HostFiles } from "../../src/host/host.ts";

interface Timer {
  readonly atMs: number;
  /** How long it was set for. */
  readonly ms: number;
  readonly fire: () => void;
}

/** Waits that are shorter belong to work under way: somebody looks again and again whether something has come. */
const SHORT_MS = 150;

/** The daemon looks every second how late it is, and does nothing more. */
const PULSE_MS = 1_000;

/** Looks at all sockets without a sign of work: what is under way on loopback shows itself in some of them. */
const STILL_LOOKS = 3;

/** Milliseconds; waits may end while a file or a program of the node takes longer. */
const OPERATION_MS = 2;

/**
 * Milliseconds without a sign while somebody waits for an answer, or a connection may be being made: the array may be
 * at work, and a handshake shows nothing of itself.
 */
const ANSWER_MS = 40;

/** Looks that showed work, after which the processor is left to others for a moment. */
const BUSY_LOOKS = 50;

/** Functions of the host that end by something else than time; the others are not waited for. */
const UNCOUNTED = new Set(["wait", "askLocal", "serveLocal"]);

/** What the host does not see of the work on the array. */
export interface Elsewhere {
  /** Changes with each sign of work. */
  signs(): number;
  /** Whether the array is at work on a call. */
  isBusy(): boolean;
}

/** The time of one node. */
export class LeapingTime {
  readonly host: Host;
  readonly #real: Host;
  readonly #elsewhere: Elsewhere;
  readonly #timers = new Set<Timer>();
  #leaptMs = 0;
  #pending = 0;
  /** Resolves when one of the operations that are pending has ended. */
  #ended = Promise.withResolvers<void>();
  #signs = 0;
  /** Requests that are not answered yet. */
  #asked = 0;
  /** Whether connections are being made. */
  isConnecting = true;

  constructor(root: string, elsewhere: Elsewhere) {
    const real = linuxHost({ root });
    const machine = linuxHost();
    this.#real = real;
    this.#elsewhere = elsewhere;
    this.host = {
      ...this.#counted(real),
      files: { ...this.#counted(real.files), ...this.#quick(real.files, root) },
      // The processes of this machine, of which there may be many, have nothing open here.
      holders: (paths) => Promise.resolve(playedHolders(root, paths)),
      now: () => this.nowMs(),
      monotonicMs: () => this.#ms(),
      wait: (ms, signal) => this.wait(ms, signal),
      askLocal: async (path, ...asked) => {
        this.#asked++;
        return await machine.askLocal(root + path, ...asked).finally(() => this.#asked--);
      },
    };
  }

  /** The time of day, in milliseconds since the epoch. */
  nowMs(): number {
    return this.#real.now() + this.#leaptMs;
  }

  wait(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const over = () => {
        this.#timers.delete(timer);
        signal?.removeEventListener("abort", onAbort);
      };
      const timer: Timer = { atMs: this.#ms() + ms, ms, fire: () => (over(), resolve()) };
      const onAbort = () => (over(), reject(signal?.reason));
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#timers.add(timer);
      if (ms !== PULSE_MS) this.#signs++;
    });
  }

  /** Lets time pass until the work has ended. */
  async through<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const end = () => isOver = true;
    work.then(end, end);
    using pair = await SocketPair.open();
    let still = 0;
    let busy = 0;
    let seen = this.#seen();
    let seenMs = this.#real.monotonicMs();
    while (!isOver) {
      this.#fireDue();
      // What the pulse is waited for by does nothing, and needs no look.
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (this.#pending > 0) {
        await Promise.race([this.#ended.promise, this.#real.wait(OPERATION_MS)]);
      } else if (still < STILL_LOOKS) await pair.exchange();
      const signs = this.#seen();
      if (signs !== seen || this.#pending > 0 || this.#elsewhere.isBusy()) {
        [seen, still, seenMs] = [signs, 0, this.#real.monotonicMs()];
        if (++busy % BUSY_LOOKS === 0) await this.#real.wait(1);
        continue;
      }
      if (++still < STILL_LOOKS) continue;
      busy = 0;
      const next = this.#next();
      const isAwaited = (this.isConnecting || this.#asked > 0) &&
        this.#real.monotonicMs() - seenMs < ANSWER_MS;
      if (next === undefined || isAwaited || this.#isAnyShort()) await this.#real.wait(1);
      else this.#leaptMs += Math.max(0, next.atMs - this.#ms());
      if (next?.ms !== PULSE_MS) still = 0;
    }
    return await work;
  }

  #ms(): number {
    return this.#real.monotonicMs() + this.#leaptMs;
  }

  #seen(): number {
    return this.#signs + this.#elsewhere.signs();
  }

  #next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (first === undefined || timer.atMs < first.atMs) first = timer;
    }
    return first;
  }

  #isAnyShort(): boolean {
    for (const { ms } of this.#timers) if (ms < SHORT_MS) return true;
    return false;
  }

  /** One alone: whoever waited goes on before the next one is due. */
  #fireDue(): void {
    const next = this.#next();
    if (next !== undefined && next.atMs <= this.#ms()) next.fire();
  }

  /**
   * Reads what is there without following it below the root, link by link: half of a day's cost. The played node
   * has relative links alone.
   */
  #quick(
    { readText, list, status }: HostFiles,
    root: string,
  ): Pick<HostFiles, "readText" | "list" | "status"> {
    const or = <T>(read: () => T, slow: () => Promise<T | undefined>): Promise<T | undefined> => {
      try {
        return Promise.resolve(read());
      } catch (error) {
        const isAbsent = error instanceof Error && "code" in error && error.code === "ENOENT";
        return isAbsent ? Promise.resolve(undefined) : slow();
      }
    };
    const slow = this.#counted({ readText, list, status });
    return {
      status: (path) =>
        path.startsWith("/dev/")
          ? slow.status(path)
          : or(() => statusOf(statSync(root + path)), () => slow.status(path)),
      readText: (path) => or(() => readFileSync(root + path, "utf8"), () => slow.readText(path)),
      list: (path) => or(() => readdirSync(root + path).sort(), () => slow.list(path)),
    };
  }

  /** The same functions; what they promise counts as work until it has come. */
  #counted<T extends object>(functions: T): T {
    const counted = Object.entries(functions).map(([name, value]) => {
      if (typeof value !== "function" || UNCOUNTED.has(name)) return [name, value];
      return [name, (...args: unknown[]) => {
        const result = value(...args);
        if (!(result instanceof Promise)) return result;
        this.#signs++;
        this.#pending++;
        const over = () => {
          this.#signs++;
          this.#pending--;
          this.#ended.resolve();
          this.#ended = Promise.withResolvers();
        };
        result.then(over, over);
        return result;
      }];
    });
    return Object.fromEntries(counted);
  }
}

/** Who of the node's own `/proc` has one of the files open. */
function playedHolders(root: string, paths: readonly string[]): { pid: number; name: string }[] {
  const inodes = new Set(paths.flatMap((path) => inodeOf(root + path)));
  return readdirSync(`${root}/proc`).filter((entry) => /^\d+$/.test(entry)).flatMap((entry) => {
    const folder = `${root}/proc/${entry}`;
    const targets = readdirSync(`${folder}/fd`).map((fd) => readlinkSync(`${folder}/fd/${fd}`));
    const uses = targets.some((path) => inodeOf(root + path).some((inode) => inodes.has(inode)));
    const name = () => readFileSync(`${folder}/comm`, "utf8").trim();
    return uses ? [{ pid: Number(entry), name: name() }] : [];
  });
}

function inodeOf(path: string): number[] {
  const inode = statSync(path, { throwIfNoEntry: false })?.ino;
  return inode === undefined ? [] : [inode];
}

function statusOf(stats: Stats): FileStatus {
  const { size, ino: inode, uid, mtimeMs: modifiedMs } = stats;
  const kind = stats.isFile() ? "file" : stats.isDirectory() ? "directory" : "other";
  return { kind, size, inode, mode: stats.mode & 0o7777, uid, device: undefined, modifiedMs };
}

/** A byte that goes once around: when it has come the runtime has looked at all sockets, which it does not in each turn. */
class SocketPair {
  readonly #byte = new Uint8Array(1);

  private constructor(readonly one: Deno.Conn, readonly other: Deno.Conn) {}

  static async open(): Promise<SocketPair> {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    return new SocketPair(...await Promise.all([Deno.connect({ port }), listener.accept()]));
  }

  async exchange(): Promise<void> {
    // Waited for first: what is there already is read without a look.
    const come = this.other.read(this.#byte);
    await this.one.write(this.#byte);
    await come;
  }

  [Symbol.dispose](): void {
    this.one.close();
    this.other.close();
  }
}
