/** The daemon: holds sessions and memories, and answers hooks out of them until it is told to end. */
import { TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import { type Host, HostError } from "../host/host.ts";
import type { ArrayCall, HookWorld } from "../pve/hook.ts";
import { ArrayLinks } from "./array_link.ts";
import { Counters } from "./counters.ts";
import { Keeper } from "./keeper.ts";
import type { LinkTimes } from "./link_state.ts";
import { measureLoopLag } from "./loop_lag.ts";
import { Memories } from "./memories.ts";
import type { MemoryTiming } from "./memory_agenda.ts";
import { writeMetrics } from "./metrics_file.ts";
import { type RecoveryTask, startRecovery } from "./recovery.ts";
import { DAEMON_SOCKET, type RequestLog, serve, type Serving } from "./serve.ts";
import { processUse } from "./process_use.ts";
import { STATUS_METHOD } from "./state.ts";
import { StateSource } from "./state_source.ts";
import { Storages } from "./storages.ts";
import { tellVolumes, VOLUMES_METHOD } from "./volumes_document.ts";

/** What the daemon works with. */
export interface DaemonOptions {
  readonly host: Host;
  readonly log: Log;
  /** Makes the log of one request; {@link log} with the request's name before each line unless given. */
  readonly requestLog?: RequestLog;
  readonly setDebugLevel: (level: number) => void;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** What it calls itself in `tnblock status`. */
  readonly version?: string;
  /** Milliseconds between two writes of the metrics; for tests. */
  readonly metricsPeriodMs?: number;
  /** Told each array call: for tests and the bench. */
  readonly onArrayCall?: (call: ArrayCall) => void;
  /** How soon what was stopped is seen to; for tests. */
  readonly recoveryTiming?: { readonly periodMs: number; readonly settleMs: number };
  /** Milliseconds between two looks at this node's sessions, paths and links; for tests. */
  readonly keeperPeriodMs?: number;
  /** How the sessions with arrays are kept; for tests. */
  readonly linkTimes?: Partial<LinkTimes>;
  /** How often the memories read; for tests. */
  readonly memoryTiming?: MemoryTiming;
}

/** A running daemon. */
export interface Daemon {
  /** What it keeps right on this node. */
  readonly keeper: Keeper;
  /** Sees to what was stopped half-way. */
  readonly recovery: RecoveryTask;
  /** Resolves when no request is under way, those past their deadline included. */
  idle(): Promise<void>;
  /** Takes no more requests, lets those under way end, says goodbye to the arrays. */
  stop(): Promise<void>;
}

/** Time for what is under way when the daemon is told to end: longer than any reload of the array. */
const DRAIN_MS = 150_000;

/** Starts the daemon; resolves when its socket answers. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { host, log } = options;
  const startedMs = host.now();
  const counters = new Counters(host);
  const onArrayCall = (call: ArrayCall) => {
    counters.called(call);
    options.onArrayCall?.(call);
  };
  const links = new ArrayLinks({
    ...{ host, log, limitLogins: options.limitLogins },
    ...(options.linkTimes === undefined ? {} : { times: options.linkTimes }),
  });
  const memories = new Memories({
    host,
    log,
    linkOf: (api) => links.link(api),
    onArrayCall,
    ...(options.memoryTiming === undefined ? {} : { timing: options.memoryTiming }),
  });
  const keeper = new Keeper({ host, log, periodMs: options.keeperPeriodMs });
  const world: HookWorld = {
    ...options,
    onArrayCall,
    sessions: links,
    memoryOf: (storage) => memories.of(storage),
    upkeepOf: (storage) => keeper.of(storage),
  };
  await memories.begin(new Storages(world));
  const storages = new Storages(world);
  const source = new StateSource(world, {
    ...{ startedMs, counters, links, memories, keeper },
    version: options.version ?? "unknown",
    use: processUse,
    underWay: () => serving.underWay(),
    loopLagSeconds: () => lag.seconds(),
    journal: () => recovery.report(),
  });
  const state = () => source.state();
  const serving: Serving = await serve(world, {
    requestLog: options.requestLog,
    onAnswered: (request) => counters.answered(request),
    own: new Map<string, () => Promise<unknown>>([
      [STATUS_METHOD, state],
      [VOLUMES_METHOD, () => tellVolumes(world)],
    ]),
  }).catch(async (error) => {
    await memories.stop();
    links.close();
    throw notServed(error);
  });
  const lag = measureLoopLag(host);
  const recovery = startRecovery({ host, log, storages, ...options.recoveryTiming });
  keeper.begin(storages);
  const metrics = writeMetrics({ host, log, state, periodMs: options.metricsPeriodMs });
  return {
    recovery,
    keeper,
    idle: () => serving.idle(),
    stop: async () => {
      lag.stop();
      await Promise.all([
        serving.drain(DRAIN_MS),
        recovery.stop(),
        keeper.stop(),
        metrics.stop(),
      ]);
      await memories.stop();
      links.close();
      await serving.close();
    },
  };
}

/** Why nobody can be served, with what to do about it: a socket that nobody listens on has been replaced already. */
function notServed(error: unknown): unknown {
  if (!(error instanceof HostError)) return error;
  const remedy = error.code === "EADDRINUSE"
    ? "Another daemon runs: systemctl status tnblock"
    : error.code === "EEXIST"
    ? `Look at what lies there, and remove it: rm ${DAEMON_SOCKET}`
    : undefined;
  if (remedy === undefined) return error;
  return new TnblockError("host-fault", `Cannot start the daemon: ${error.message}`, {
    hint: remedy,
    cause: error,
  });
}
