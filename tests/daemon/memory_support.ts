/** A daemon on a node of a place, asked over its socket, with its log and its calls on the array. */
import { lineLog } from "../../src/common/log.ts";
import { startDaemon } from "../../src/daemon/daemon.ts";
import type { MemoryTiming } from "../../src/daemon/memory_agenda.ts";
import { STATUS_METHOD } from "../../src/daemon/state.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { ArrayCall } from "../../src/pve/hook.ts";
import type { AskOptions, Place, Reply } from "../support/place.ts";

/** Reads come quickly, so that no test waits; a read of everything comes when it is asked for alone. */
export const QUICK: MemoryTiming = { periodMs: 3_600_000, eventMs: 20, ownMs: 5 };

/** A daemon under test. */
export interface TestDaemon extends AsyncDisposable {
  readonly log: string[];
  readonly calls: string[];
  /** Lets time pass for the daemon's clock, without waiting. */
  leap(ms: number): void;
  ask(method: string, args?: Record<string, unknown>, options?: AskOptions): Promise<Reply>;
  // deno-lint-ignore no-explicit-any
  must(method: string, args?: Record<string, unknown>, options?: AskOptions): Promise<any>;
  /** Reads of the array that were begun for the one storage, which must stand in storage.cfg. */
  reads(): Promise<number>;
  /** Names of the volumes that it lists. */
  listed(): Promise<string[]>;
}

/** Starts a daemon on a node. */
export async function daemonOn(
  place: Place,
  options: { readonly node?: string; readonly timing?: MemoryTiming } = {},
): Promise<TestDaemon> {
  const node = options.node === undefined ? undefined : place.node(options.node);
  const real = linuxHost({ root: node?.directory ?? place.directory });
  let leapt = 0;
  const host: Host = { ...real, monotonicMs: () => real.monotonicMs() + leapt };
  const log: string[] = [];
  const calls: string[] = [];
  const daemon = await startDaemon({
    host,
    log: lineLog((line) => log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
    onArrayCall: (call: ArrayCall) => calls.push(call.method),
    memoryTiming: options.timing ?? QUICK,
  });
  const ask = async (
    method: string,
    args: Record<string, unknown> = {},
    how: AskOptions = {},
  ): Promise<Reply> => {
    const request = place.request(method, args, {
      deadlineMs: 20_000,
      ...(options.node === undefined ? {} : { node: options.node }),
      ...how,
    });
    const text = await real.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      deadlineMs: 60_000,
      maxLine: 1 << 26,
    });
    return JSON.parse(text);
  };
  const must: TestDaemon["must"] = async (method, args, how) => {
    const reply = await ask(method, args, how);
    if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
    return reply.result;
  };
  return {
    log,
    calls,
    leap: (ms) => {
      leapt += ms;
    },
    ask,
    must,
    reads: async () => (await must(STATUS_METHOD)).storages[0].memory.reads,
    listed: async () =>
      (await must("list_images")).map((row: { volid: string }) => row.volid.replace(/^san:/, ""))
        .sort(),
    [Symbol.asyncDispose]: () => daemon.stop(),
  };
}

/** Waits until something holds; the last failure is thrown after fifteen seconds. */
export async function eventually<T>(look: () => Promise<T>): Promise<T> {
  const end = performance.now() + 15_000;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}
