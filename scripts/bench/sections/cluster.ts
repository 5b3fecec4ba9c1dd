/**
 * A cluster that polls one array: 32 nodes with a daemon each, asked every ten seconds as pvestatd does, for ten
 * minutes of a clock that runs faster than the world's.
 */
import { cp } from "node:fs/promises";
import { lineLog } from "../../../src/common/log.ts";
import { type Daemon, startDaemon } from "../../../src/daemon/daemon.ts";
import { DAEMON_SOCKET } from "../../../src/daemon/serve.ts";
import type { Host } from "../../../src/host/host.ts";
import { linuxHost } from "../../../src/host/linux.ts";
import type { Measured } from "../row.ts";
import type { Section } from "../section.ts";
import { type ArrayStats, Stage } from "../stage.ts";
import { mean } from "../statistics.ts";
import { pause, until } from "../timing.ts";

const NODES = 32;
const MINUTES = 10;
const MINUTE_MS = 60_000;
/** Between two rounds of pvestatd. */
const POLL_MS = 10_000;
/** How much faster the nodes' clock runs. The array's latencies do not. */
const PACE = 20;
const VOLUMES = 200;
/** Of the world's clock, as what follows. */
const START_MS = 60_000;
const DEADLINE_MS = 20_000;

export const cluster: Section = {
  title: "a cluster that polls one array",
  measure: async ({ binary, quick }) => {
    const minutes = quick ? 3 : MINUTES;
    await using stage = await Stage.start({ binary, transport: "iscsi", volumes: VOLUMES });
    const nodes = await startNodes(stage, quick ? 8 : NODES);
    try {
      return rowsOf(nodes.length, await pollFor(stage, nodes, minutes));
    } finally {
      await Promise.all(nodes.map(({ daemon }) => daemon.stop()));
    }
  },
};

interface ClusterNode {
  readonly host: Host;
  readonly daemon: Daemon;
  readonly name: string;
}

/** Folders as the first node's; nobody plays these nodes, because polling touches no disk. */
async function startNodes(stage: Stage, count: number): Promise<ClusterNode[]> {
  const nodes: ClusterNode[] = [];
  for (let number = 1; number <= count; number++) {
    const name = `node${number}`;
    const root = stage.root(name);
    await Deno.mkdir(`${root}/run`, { recursive: true });
    await cp(`${stage.root()}/etc`, `${root}/etc`, { recursive: true });
    await Deno.writeTextFile(`${root}/etc/hostname`, `${name}\n`);
    const host = faster(linuxHost({ root }));
    const log = lineLog(() => {}, () => 0);
    const daemon = await startDaemon({ host, log, setDebugLevel: () => {}, limitLogins: false });
    nodes.push({ host, daemon, name });
  }
  // As long as nothing is known `status` says inactive.
  await until("the first read of all nodes", START_MS, async () => {
    const active = await Promise.all(nodes.map((node) => pollOf(stage, node)));
    return active.every((isActive) => isActive);
  });
  return nodes;
}

/** The node with a clock that runs at {@link PACE}. */
function faster(host: Host): Host {
  const began = host.now();
  const monotonicMs = () => host.monotonicMs() * PACE;
  return {
    ...host,
    monotonicMs,
    now: () => began + (host.now() - began) * PACE,
    wait: (ms, signal) => host.wait(ms / PACE, signal),
  };
}

/** What the nodes asked, and what the array had counted at the begin and after each minute. */
interface Polled {
  readonly polls: number;
  readonly counts: readonly ArrayStats[];
}

async function pollFor(
  stage: Stage,
  nodes: readonly ClusterNode[],
  minutes: number,
): Promise<Polled> {
  const counts: ArrayStats[] = [await stage.stats()];
  const start = performance.now();
  const passedMs = () => (performance.now() - start) * PACE;
  let polls = 0;
  // By the nodes' clock, which does not wait for a machine that is too slow for it.
  for (let round = 0; counts.length <= minutes; round = Math.ceil(passedMs() / POLL_MS)) {
    await pause(Math.max(0, round * POLL_MS - passedMs()) / PACE);
    if (passedMs() >= counts.length * MINUTE_MS) counts.push(await stage.stats());
    await Promise.all(nodes.map(async (node, index) => {
      // Nodes do not ask in step.
      await pause(index / nodes.length * POLL_MS / PACE / 2);
      if (!await pollOf(stage, node)) throw new Error(`${node.name} calls its storage inactive`);
      polls++;
    }));
  }
  return { polls, counts };
}

/** What pvestatd asks of each storage, but for what it does on the node; whether it is active. */
async function pollOf(stage: Stage, { host, name }: ClusterNode): Promise<boolean> {
  let isActive = false;
  for (const method of ["check_connection", "status"]) {
    const line = JSON.stringify({
      protocol: 1,
      id: "c",
      method,
      storage: "san",
      config: stage.config,
      args: {},
      deadlineMs: DEADLINE_MS * PACE,
      node: name,
      pveApi: 13,
    });
    const bounds = { takenMs: DEADLINE_MS, deadlineMs: DEADLINE_MS, maxLine: 1 << 20 };
    const text = await host.askLocal(DAEMON_SOCKET, line, bounds);
    const reply = JSON.parse(text);
    if (method === "status") isActive = reply.result?.active === 1;
  }
  return isActive;
}

function rowsOf(nodes: number, { polls, counts }: Polled): Measured[] {
  const minutes = counts.slice(1).map((now, index) => {
    const before = counts[index] ?? now;
    return {
      calls: callsOf(now) - callsOf(before),
      bytes: bytesOf(now) - bytesOf(before),
      logins: now.logins - before.logins,
    };
  });
  const last = counts.at(-1) ?? { calls: {}, logins: 0, bytesIn: 0, bytesOut: 0 };
  // What was read at the start is not read again in the first minute.
  const steady = minutes.slice(1);
  const each = (key: "calls" | "bytes") => steady.map((minute) => minute[key] / nodes);
  const name = `${nodes} nodes, ${minutes.length} minutes`;
  return [
    {
      what: `${name}: logins of a node`,
      value: last.logins / nodes,
      unit: "logins",
      target: 1,
      note: `from the start on; ${Math.max(0, ...steady.map(({ logins }) => logins))} ` +
        "in any later minute",
    },
    {
      what: `${name}: calls of a node in a minute`,
      value: mean(each("calls")),
      unit: "calls",
      note: `mean after the first; all nodes: ${minutes.map(({ calls }) => calls).join(" ")}`,
    },
    {
      what: `${name}: busiest minute / mean`,
      value: Math.max(0, ...each("calls")) / mean(each("calls")),
      unit: "x",
      note: "calls after the first minute; 1 is flat",
    },
    {
      what: `${name}: kB of a node in a minute`,
      value: mean(each("bytes")) / 1000,
      unit: "",
      note: `mean after the first; ${VOLUMES} volumes, read whole once a minute`,
    },
    {
      what: `${name}: calls for each status asked`,
      value: callsOf(last) / polls,
      unit: "calls",
      note: `${callsOf(last)} calls, ${polls} times status, ` +
        `${(bytesOf(last) / 1e6).toFixed(1)} MB, start included`,
    },
  ];
}

function callsOf({ calls }: ArrayStats): number {
  return Object.values(calls).reduce((sum, count) => sum + count, 0);
}

function bytesOf({ bytesIn, bytesOut }: ArrayStats): number {
  return bytesIn + bytesOut;
}
