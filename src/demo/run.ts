/**
 * `tnblock demo`: a whole disk life over each transport. Every step goes through the same code that
 * answers the Proxmox shim; the array and the node are simulated, the disk's bytes are real.
 */
import { createHash, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, mkdtemp, open, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { lineLog } from "../common/log.ts";
import { linuxHost } from "../host/linux.ts";
import { answer, type ArrayCall } from "../pve/hook.ts";
import { hostPlayer } from "../simulator/host_player/player.ts";
import { type ReadyLine, startSimulator } from "../simulator/simulator.ts";
import { type DemoDisk, type DemoState, type DemoStep, STEPS } from "./steps.ts";

/** How one step went. */
export interface StepReport {
  readonly transport: string;
  readonly title: string;
  /** The hook's method, or what the demo did itself. */
  readonly asked: string;
  readonly ok: boolean;
  readonly ms: number;
  /** Calls on the array with their milliseconds. */
  readonly arrayCalls: readonly ArrayCall[];
  /** What was logged meanwhile: what the node saw. */
  readonly log: readonly string[];
  /** The result, or the error that was answered. */
  readonly answer: unknown;
  /** Why the step failed. */
  readonly problem: string | undefined;
}

/** What the demo may be told. */
export interface DemoOptions {
  readonly release: "25.10" | "26";
  /** Faults for the simulator, as `POST /faults` takes them. */
  readonly faults?: string | undefined;
  readonly onStep: (report: StepReport) => void;
  /** Ends the demo after the step that is under way. */
  readonly isStopped: () => boolean;
}

/** What {@link runDemoSteps} answers when it was stopped. */
export const INTERRUPTED = "interrupted";

/** The demo's storage. */
const STORAGE = "san";

/**
 * Runs the demo.
 *
 * @returns the failed step's title, or undefined when all is well.
 */
export async function runDemoSteps(options: DemoOptions): Promise<string | undefined> {
  for (const transport of ["nvme-tcp", "iscsi"] as const) {
    const failed = await withArray(options, (place) => runSteps(transport, place, options));
    if (failed === INTERRUPTED) return failed;
    if (failed !== undefined) return `${transport}: ${failed}`;
  }
  return undefined;
}

/** Where the demo takes place. */
interface Place {
  readonly directory: string;
  readonly ready: ReadyLine;
}

async function withArray<T>(options: DemoOptions, work: (place: Place) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(`${tmpdir()}/tnblock-demo-`);
  try {
    const clusterId = crypto.randomUUID();
    const player = await hostPlayer({ directory, clusterId });
    const simulator = await startSimulator({
      release: options.release,
      latency: "lan",
      // Without a daemon every step logs in: more of them in a minute than TrueNAS allows.
      loginLimit: 0,
      clusterId,
      dataSide: () => player,
    });
    try {
      if (options.faults !== undefined) {
        await fetch(new URL("/faults", simulator.ready.control), {
          method: "POST",
          body: options.faults,
        });
      }
      return await work({ directory, ready: simulator.ready });
    } finally {
      await simulator.stop();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function runSteps(
  transport: "nvme-tcp" | "iscsi",
  place: Place,
  options: DemoOptions,
): Promise<string | undefined> {
  await writeSecrets(place);
  const state: DemoState = { volumes: new Map(), token: "" };
  const digests = new Map<string, string>();
  for (const step of STEPS) {
    if (options.isStopped()) return INTERRUPTED;
    const report = await runStep(step, transport, place, state, digests);
    options.onStep(report);
    if (!report.ok) return step.title;
  }
  return undefined;
}

async function writeSecrets(place: Place): Promise<void> {
  const folder = `${place.directory}/etc/pve/priv/storage`;
  await mkdir(folder, { recursive: true });
  await writeFile(
    `${folder}/${STORAGE}.tnblock`,
    JSON.stringify({ "tnb-api-key": place.ready.apiKey }),
    { mode: 0o600 },
  );
}

/** The storage's section as PVE would parse it. */
function configOf(transport: "nvme-tcp" | "iscsi", ready: ReadyLine): Record<string, unknown> {
  const common = {
    type: "tnblock",
    shared: 1,
    content: "images,rootdir",
    "tnb-api-host": ready.host,
    "tnb-api-port": ready.port,
    "tnb-api-user": ready.user,
    "tnb-tls-fingerprint": ready.fingerprint,
    "tnb-dataset": ready.dataset,
    "tnb-transport-mode": transport,
  };
  const portals = transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
  return {
    ...common,
    ...(transport === "iscsi"
      ? { "tnb-target-iqn": ready.targetIqn }
      : { "tnb-subsystem-nqn": ready.subsystemNqn }),
    "tnb-discovery-portal": portals[0],
    "tnb-portals": portals.join(","),
  };
}

type Outcome = Pick<StepReport, "asked" | "answer" | "problem">;

async function runStep(
  step: DemoStep,
  transport: "nvme-tcp" | "iscsi",
  place: Place,
  state: DemoState,
  digests: Map<string, string>,
): Promise<StepReport> {
  const arrayCalls: ArrayCall[] = [];
  const log: string[] = [];
  const start = performance.now();
  let outcome: Outcome;
  try {
    outcome = step.does.kind === "hook"
      ? await askHook(step, transport, place, state, arrayCalls, log)
      : await actOnDisk(step.does, place, state, digests);
  } catch (error) {
    outcome = {
      asked: step.does.kind,
      answer: null,
      problem: error instanceof Error ? error.message : String(error),
    };
  }
  const ms = Math.round(performance.now() - start);
  return {
    transport,
    title: step.title,
    ok: outcome.problem === undefined,
    ms,
    arrayCalls,
    log,
    ...outcome,
  };
}

async function askHook(
  step: DemoStep,
  transport: "nvme-tcp" | "iscsi",
  place: Place,
  state: DemoState,
  arrayCalls: ArrayCall[],
  log: string[],
): Promise<Outcome> {
  if (step.does.kind !== "hook") throw new Error("not a step of the hook");
  const { method, args } = step.does;
  const request = {
    protocol: 1,
    id: crypto.randomUUID().slice(0, 8),
    method,
    storage: STORAGE,
    config: configOf(transport, place.ready),
    args: args(state),
    deadlineMs: 45_000,
    node: "demo",
    pveApi: 13,
  };
  const { reply, settled, delivered } = answer(JSON.stringify(request), {
    host: linuxHost({ root: place.directory }),
    log: lineLog((line) => log.push(line), () => 0),
    setDebugLevel: () => {},
    limitLogins: false,
    onArrayCall: (call) => arrayCalls.push({ ...call, ms: Math.round(call.ms) }),
  });
  const parsed = JSON.parse((await reply).text) as {
    ok: boolean;
    result?: unknown;
    error?: { code: string; message: string };
  };
  await delivered();
  await settled;
  return {
    asked: method,
    answer: parsed.ok ? parsed.result : parsed.error,
    problem: judge(step, parsed, state),
  };
}

function judge(
  step: DemoStep,
  reply: { ok: boolean; result?: unknown; error?: { code: string; message: string } },
  state: DemoState,
): string | undefined {
  if (step.refused !== undefined) {
    if (reply.ok) return "it was not refused";
    return reply.error?.code === step.refused
      ? undefined
      : `it was refused with ${reply.error?.code}: ${reply.error?.message}`;
  }
  if (!reply.ok) return `${reply.error?.message} [${reply.error?.code}]`;
  return step.expect?.(reply.result, state);
}

/** The path that PVE would hand to QEMU, below the demo's folder. */
function pathOf(place: Place, state: DemoState, { volume, snapshot }: DemoDisk): string {
  const zvol = /(?:^|\/)vol-([^/]*)-(?:lun|ns)[^/]*$/.exec(state.volumes.get(volume) ?? "")?.[1];
  const suffix = snapshot === undefined ? "" : `@${snapshot}`;
  return `${place.directory}/dev/tnblock/${STORAGE}/${zvol ?? ""}${suffix}`;
}

const CHUNK = 1024 * 1024;
/** Where the data goes: both ends of the disk and places between them. */
const OFFSETS = [0, 1, 100, 511, 512, 700, 1022, 1023].map((chunk) => chunk * CHUNK);

async function actOnDisk(
  does: Exclude<DemoStep["does"], { kind: "hook" }>,
  place: Place,
  state: DemoState,
  digests: Map<string, string>,
): Promise<Outcome> {
  if (does.kind === "nothing-left") {
    return { asked: "look", answer: null, problem: await whatIsLeft(place) };
  }
  const path = pathOf(place, state, does);
  if (does.kind === "gone") {
    const there = await access(path, constants.F_OK).then(() => true, () => false);
    return { asked: "look", answer: null, problem: there ? "it is still there" : undefined };
  }
  if (does.kind === "write") {
    digests.set(does.data, await writeRandom(path));
    return { asked: "write", answer: digests.get(does.data), problem: undefined };
  }
  const digest = await readBack(path);
  return {
    asked: "read",
    answer: digest,
    problem: digest === digests.get(does.data) ? undefined : "the data differs",
  };
}

async function writeRandom(path: string): Promise<string> {
  const hash = createHash("sha256");
  const disk = await open(path, constants.O_RDWR);
  try {
    for (const offset of OFFSETS) {
      const data = randomBytes(CHUNK);
      hash.update(data);
      await disk.write(data, 0, CHUNK, offset);
    }
  } finally {
    await disk.close();
  }
  return hash.digest("hex");
}

async function readBack(path: string): Promise<string> {
  const hash = createHash("sha256");
  const disk = await open(path, constants.O_RDONLY);
  try {
    for (const offset of OFFSETS) {
      const data = new Uint8Array(CHUNK);
      await disk.read(data, 0, CHUNK, offset);
      hash.update(data);
    }
  } finally {
    await disk.close();
  }
  return hash.digest("hex");
}

/** Of iSCSI the target's weight stays: a target without LUNs would vanish from discovery. */
async function whatIsLeft(place: Place): Promise<string | undefined> {
  const response = await fetch(new URL("/objects", place.ready.control));
  const objects = await response.json() as Record<string, { name?: string }[]>;
  const weights = objects["zvols"]?.filter((zvol) =>
    /\/tnb-weight-[0-9a-f]+$/.test(zvol.name ?? "")
  );
  for (const kind of ["zvols", "snapshots", "extents", "mappings", "namespaces"]) {
    const expected = ["zvols", "extents", "mappings"].includes(kind) ? weights?.length : 0;
    const count = objects[kind]?.length;
    if (count !== expected) return `the array has ${count} ${kind}`;
  }
  const links = await readdir(`${place.directory}/dev/tnblock/${STORAGE}`).catch(() => []);
  return links.length === 0 ? undefined : `there are links: ${links.join(", ")}`;
}
