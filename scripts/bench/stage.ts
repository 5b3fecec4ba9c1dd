/** An array with its nodes, and the built program at work on them: what every section measures against. */
import { scratchBase } from "../../tests/support/scratch.ts";
import type { ReadyLine } from "../../src/simulator/simulator.ts";
import type { ArrayPlan } from "./array.ts";
import { type Child, firstLine, killAll, startChild } from "./child.ts";

/** How volumes reach the nodes. */
export type TransportKind = "iscsi" | "nvme-tcp";

/** How the stage is set. */
export interface StageOptions {
  readonly binary: string;
  readonly transport: TransportKind;
  readonly volumes?: number;
  /** Names of the nodes; one, `pve1`, unless given. */
  readonly nodes?: readonly string[];
  /** Further options of the storage. */
  readonly config?: Record<string, unknown>;
}

/** Calls, logins and bytes at the array since the last {@link Stage.resetStats}. */
export interface ArrayStats {
  readonly calls: Record<string, number>;
  readonly logins: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** What the daemon says of the calls that it made. */
export interface DaemonCalls {
  readonly method: string;
  readonly count: number;
  readonly failed: number;
  readonly seconds: number;
}

/** The part of `daemon_status` that is used here. */
export interface DaemonReport {
  readonly daemon: { readonly pid: number; readonly arrayCalls: readonly DaemonCalls[] };
}

/** Longer than any request's deadline. */
const ANSWER_MS = 90_000;
/** Until a daemon that begins answers; and how long it is waited for each time that it is asked. */
const FIRST_ANSWER_MS = 30_000;
const TRY_MS = 2_000;

const METHODS_THAT_WRITE =
  /\.(create|update|delete|destroy|rename|clone|rollback|create_snapshot|do_create)$/;

/** Whether a method of the array changes something. */
export function isWrite(method: string): boolean {
  return METHODS_THAT_WRITE.test(method);
}

/** Array, nodes, and the daemons that were started. */
export class Stage implements AsyncDisposable {
  /** Folders of the stages that stand. */
  static readonly #folders = new Set<string>();
  readonly #daemons = new Map<string, Child>();

  private constructor(
    readonly options: StageOptions,
    readonly directory: string,
    readonly array: Child,
    readonly ready: ReadyLine,
    readonly config: Readonly<Record<string, unknown>>,
  ) {}

  /** Starts the array and its nodes; no daemon yet. */
  static async start(options: StageOptions): Promise<Stage> {
    const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "tnblock-bench-" });
    Stage.#folders.add(directory);
    const nodes = (options.nodes ?? ["pve1"]).map((name) => `${directory}/${name}`);
    for (const node of nodes) await Deno.mkdir(node);
    const plan: ArrayPlan = { volumes: options.volumes ?? 0, nodes };
    const array = startChild(Deno.execPath(), [
      "run",
      "-A",
      "--no-lock",
      new URL("./array.ts", import.meta.url).pathname,
      JSON.stringify(plan),
    ]);
    const ready: ReadyLine = JSON.parse(await firstLine(array));
    const config = configOf(ready, options);
    for (const node of nodes) {
      await Deno.writeTextFile(`${node}/etc/hostname`, `${node.split("/").at(-1)}\n`);
      await Deno.writeTextFile(
        `${node}/etc/pve/priv/storage/san.tnblock`,
        JSON.stringify({ "tnb-api-key": ready.apiKey }),
        { mode: 0o600 },
      );
      await Deno.writeTextFile(`${node}/etc/pve/storage.cfg`, storageCfg(config));
    }
    const stage = new Stage(options, directory, array, ready, config);
    for (const node of options.nodes ?? ["pve1"]) await stage.#writeProgram(node);
    return stage;
  }

  /** Leaves nothing behind of any stage, without waiting: for a bench that is told to end. */
  static strikeAll(): void {
    killAll();
    for (const folder of Stage.#folders) Deno.removeSync(folder, { recursive: true });
  }

  /** The root of a node. */
  root(node = "pve1"): string {
    return `${this.directory}/${node}`;
  }

  /** A program for the shim to start, which finds its node below the root. */
  program(node = "pve1"): string {
    return `${this.directory}/tnblock-${node}`;
  }

  /** Starts the daemon of a node; resolves when it answers. */
  async startDaemon(node = "pve1"): Promise<void> {
    const child = startChild(this.options.binary, ["--root", this.root(node), "daemon"], {
      // The simulator lets everybody in, and a bench starts more daemons than a node.
      TNBLOCK_LOGIN_BUDGET: "0",
    });
    this.#daemons.set(node, child);
    const deadline = performance.now() + FIRST_ANSWER_MS;
    for (;;) {
      try {
        await this.ask("daemon_status", {}, node, TRY_MS);
        return;
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Ends the daemon of a node. */
  async stopDaemon(node = "pve1"): Promise<void> {
    const child = this.#daemons.get(node);
    this.#daemons.delete(node);
    await child?.end();
  }

  /** Starts the daemons of all nodes. */
  async startDaemons(): Promise<void> {
    for (const node of this.options.nodes ?? ["pve1"]) await this.startDaemon(node);
  }

  /** What the daemon says of itself. */
  async daemonStatus(node = "pve1"): Promise<DaemonReport> {
    const { result } = await this.ask("daemon_status", {}, node);
    return result as DaemonReport;
  }

  /** One request at a daemon's socket; wall time in ms. @throws Error what it answered instead. */
  async ask(
    method: string,
    args: Record<string, unknown> = {},
    node = "pve1",
    answerMs = ANSWER_MS,
  ): Promise<{ readonly result: unknown; readonly ms: number }> {
    const line = JSON.stringify({
      protocol: 1,
      id: "b",
      method,
      storage: "san",
      config: this.config,
      args,
      deadlineMs: 60_000,
      node,
      pveApi: 13,
    });
    const start = performance.now();
    const text = await exchange(`${this.root(node)}/run/tnblock/daemon.sock`, line, answerMs);
    const ms = performance.now() - start;
    const reply = JSON.parse(text);
    if (!reply.ok) throw new Error(`${method}: ${reply.error.message} [${reply.error.code}]`);
    return { result: reply.result, ms };
  }

  async resetStats(): Promise<void> {
    await (await fetch(new URL("/reset", this.ready.control), { method: "POST" })).body?.cancel();
  }

  async stats(): Promise<ArrayStats> {
    return await (await fetch(new URL("/stats", this.ready.control))).json();
  }

  /** The shim hands no environment on, and the simulator lets everybody in. */
  async #writeProgram(node: string): Promise<void> {
    const variables = `TNBLOCK_LOGIN_BUDGET=0 TNBLOCK_ROOT='${this.root(node)}'`;
    const text = `#!/bin/sh\n${variables} exec '${this.options.binary}' "$@"\n`;
    await Deno.writeTextFile(this.program(node), text, { mode: 0o755 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#daemons.values()].map((child) => child.end()));
    await this.array.end();
    await Deno.remove(this.directory, { recursive: true });
    Stage.#folders.delete(this.directory);
  }
}

/** The storage's section as PVE parses it. */
function configOf(ready: ReadyLine, options: StageOptions): Record<string, unknown> {
  const isIscsi = options.transport === "iscsi";
  const portals = isIscsi ? ready.portals.iscsi : ready.portals.nvme;
  return {
    type: "tnblock",
    shared: 1,
    content: { images: 1, rootdir: 1 },
    "tnb-api-host": ready.host,
    "tnb-api-port": ready.port,
    "tnb-api-user": ready.user,
    "tnb-tls-fingerprint": ready.fingerprint,
    "tnb-dataset": ready.dataset,
    "tnb-transport-mode": options.transport,
    ...(isIscsi
      ? { "tnb-target-iqn": ready.targetIqn }
      : { "tnb-subsystem-nqn": ready.subsystemNqn }),
    "tnb-discovery-portal": portals[0],
    "tnb-portals": portals.join(","),
    ...options.config,
  };
}

/** The same as it stands in the file. */
function storageCfg({ type, content: _, ...values }: Readonly<Record<string, unknown>>): string {
  const lines = Object.entries(values).map(([key, value]) => `\t${key} ${value}`);
  return [`${type}: san`, "\tcontent images,rootdir", ...lines, ""].join("\n");
}

/** Sends a line to a unix socket and reads one. @throws Error without an answer within `ms`. */
async function exchange(path: string, line: string, ms: number): Promise<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  const late = setTimeout(() => connection.close(), ms);
  try {
    for (let rest = new TextEncoder().encode(`${line}\n`); rest.length > 0;) {
      rest = rest.subarray(await connection.write(rest));
    }
    const decoder = new TextDecoder();
    const parts: string[] = [];
    const buffer = new Uint8Array(1 << 18);
    for (;;) {
      const count = await connection.read(buffer);
      if (count === null) break;
      parts.push(decoder.decode(buffer.subarray(0, count), { stream: true }));
    }
    const text = parts.join("");
    if (!text.includes("\n")) throw new Error(`no answer from ${path} within ${ms} ms`);
    return text;
  } finally {
    clearTimeout(late);
  }
}
