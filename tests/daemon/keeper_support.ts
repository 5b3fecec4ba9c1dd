/** A daemon whose keeper looks when it is told to, on a node of a place whose clock can leap. */
import { lineLog } from "../../src/common/log.ts";
import { startDaemon } from "../../src/daemon/daemon.ts";
import type { Keeper, KeeperState } from "../../src/daemon/keeper.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { AskOptions, Place, Reply } from "../support/place.ts";
import { QUICK } from "./memory_support.ts";

/** Longer than any test. */
const NEVER_MS = 3_600_000;

/** A daemon under test. */
export interface KeptNode extends AsyncDisposable {
  readonly keeper: Keeper;
  readonly log: string[];
  /** Calls on the array. */
  readonly calls: string[];
  /** Programs run and TCP connections made on the node, apart from those to the array's API. */
  readonly efforts: string[];
  /** Called before each TCP connection, with `ADDR:PORT`: may fail it or hold it up. */
  onProbe: (address: string) => Promise<void>;
  /** Lets time pass without waiting. */
  leap(ms: number): void;
  /** The state of the one storage. */
  state(): KeeperState;
  // deno-lint-ignore no-explicit-any
  must(method: string, args?: Record<string, unknown>, options?: AskOptions): Promise<any>;
}

/** Starts a daemon on the first node. */
export async function keptNode(place: Place, periodMs = NEVER_MS): Promise<KeptNode> {
  const root = place.directory;
  const section = Object.entries(place.config({ content: "images", type: undefined }))
    .flatMap(([key, value]) => value === undefined ? [] : [`\t${key} ${value}\n`]);
  await Deno.writeTextFile(`${root}/etc/pve/storage.cfg`, `tnblock: san\n${section.join("")}`);
  const real = linuxHost({ root });
  let leapt = 0;
  const efforts: string[] = [];
  const host: Host = {
    ...real,
    monotonicMs: () => real.monotonicMs() + leapt,
    now: () => real.now() + leapt,
    run: (program, args, options) => {
      efforts.push(`${program} ${args.join(" ")}`);
      return real.run(program, args, options);
    },
    exchangeTcp: async (address, port, ...rest) => {
      efforts.push(`${address}:${port}`);
      await kept.onProbe(`${address}:${port}`);
      return await real.exchangeTcp(address, port, ...rest);
    },
  };
  const log: string[] = [];
  const calls: string[] = [];
  const daemon = await startDaemon({
    host,
    log: lineLog((line) => log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
    onArrayCall: ({ method }) => calls.push(method),
    memoryTiming: QUICK,
    keeperPeriodMs: periodMs,
  });
  const kept: KeptNode = {
    keeper: daemon.keeper,
    log,
    calls,
    efforts,
    onProbe: () => Promise.resolve(),
    leap: (ms) => {
      leapt += ms;
    },
    state: () => {
      const [state] = daemon.keeper.state();
      if (state === undefined) throw new Error("no storage is kept");
      return state;
    },
    must: async (method, args = {}, how = {}) => {
      const request = place.request(method, args, { deadlineMs: 20_000, ...how });
      const text = await real.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
        deadlineMs: 60_000,
        maxLine: 1 << 26,
      });
      const reply: Reply = JSON.parse(text);
      if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
      return reply.result;
    },
    [Symbol.asyncDispose]: () => daemon.stop(),
  };
  return kept;
}

/** Whether the volume's link is there. */
export async function isLinked(place: Place, volname: string): Promise<boolean> {
  return await Deno.lstat(place.linkOf(volname)).then(() => true, () => false);
}

/** How many SCSI paths the node has. */
export function scsiPaths(place: Place): number {
  return [...Deno.readDirSync(`${place.directory}/sys/block`)].filter(({ name }) =>
    /^sd/.test(name)
  ).length;
}

/** The storage's portals as address and port. */
export function portalsOf(place: Place): (readonly [string, number])[] {
  const { ready } = place.simulator;
  const all = place.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
  return all.map((text) => {
    const at = text.lastIndexOf(":");
    return [text.slice(0, at), Number(text.slice(at + 1))] as const;
  });
}
