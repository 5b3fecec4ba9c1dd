/** A simulated array with its simulated nodes for one test, and a way to ask the hook of each. */
import { lineLog } from "../../src/common/log.ts";
import { type Daemon, startDaemon } from "../../src/daemon/daemon.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import { type HostPlayer, hostPlayer } from "../../src/simulator/host_player/player.ts";
import {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from "../../src/simulator/simulator.ts";
import { connectTrueNas, type TrueNas } from "../../src/truenas/array.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import { schemaChecker } from "./schema_check.ts";
import { scratchBase } from "./scratch.ts";
import { sharedArray } from "./shared_array.ts";

/** A reply of the hook. */
export interface Reply {
  readonly ok: boolean;
  // deno-lint-ignore no-explicit-any
  readonly result?: any;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly hint?: string;
    readonly field?: string;
  };
}

/** The transports that every verb is tested over. */
export const TRANSPORTS = ["nvme-tcp", "iscsi"] as const;

/** One of {@link TRANSPORTS}. */
export type TransportKind = typeof TRANSPORTS[number];

/** How a place is made: as its simulator, and which nodes the cluster has. */
export interface PlaceOptions extends Omit<SimulatorOptions, "dataSide"> {
  /** Names of the cluster's nodes; one, `pve1`, unless given. */
  readonly nodes?: readonly string[];
  /** Who answers: the hook itself, or the node's daemon over its socket. */
  readonly through?: "hook" | "daemon";
}

/** How the hook is asked. */
export interface AskOptions {
  readonly config?: Record<string, unknown>;
  readonly deadlineMs?: number;
  readonly storage?: string;
  readonly root?: string;
  /** Which node asks. */
  readonly node?: string;
}

/** A request that is under way. */
export interface Asked {
  readonly reply: Promise<Reply>;
  /** Lets the caller's deadline pass now. */
  giveUp(): void;
  /** Ends when nothing is being done for it any more. */
  readonly settled: Promise<unknown>;
}

/** Far longer than the way to any call of a verb. */
const HELD_WITHIN_MS = 30_000;

/** One node of the cluster. */
export interface PlaceNode {
  readonly name: string;
  /** The node's root. */
  readonly directory: string;
  readonly player: HostPlayer;
}

/** Array, nodes and hook; without a node's name everything is about the first one. */
export class Place implements AsyncDisposable {
  /** Lines of the hook's log. */
  readonly log: string[] = [];
  /** Methods called on the array since the last {@link resetCalls}. */
  calls: string[] = [];
  /** The nodes' daemons, by the nodes' roots; each starts with its node's first request. */
  readonly #daemons = new Map<string, Promise<Daemon>>();

  private constructor(
    readonly transport: TransportKind,
    readonly nodes: ReadonlyMap<string, PlaceNode>,
    readonly directory: string,
    readonly clusterId: string,
    readonly player: HostPlayer,
    readonly simulator: Simulator,
    readonly schema: ReturnType<typeof schemaChecker>,
    readonly through: "hook" | "daemon",
  ) {}

  /** Starts array and nodes. */
  static async start(transport: TransportKind, options: PlaceOptions = {}): Promise<Place> {
    const { nodes: names = ["pve1"], through = "hook", ...simulated } = options;
    const clusterId = crypto.randomUUID();
    const nodes = new Map<string, PlaceNode>();
    for (const name of names) {
      const directory = await Deno.makeTempDir({ dir: scratchBase(), prefix: "tnblock-place-" });
      nodes.set(name, { name, directory, player: await hostPlayer({ directory, clusterId }) });
    }
    const [first] = nodes.values();
    if (first === undefined) throw new Error("a place has at least one node");
    const { directory, player } = first;
    const schema = schemaChecker();
    const simulator = await startSimulator({
      loginLimit: 0,
      clusterId,
      ...simulated,
      dataSide: () =>
        nodes.size === 1 ? player : sharedArray([...nodes.values()].map((node) => node.player)),
      onExchange: (exchange) => {
        schema.onExchange(exchange);
        simulated.onExchange?.(exchange);
      },
    });
    const place = new Place(
      transport,
      nodes,
      directory,
      clusterId,
      player,
      simulator,
      schema,
      through,
    );
    await place.writeSecrets({ "tnb-api-key": simulator.ready.apiKey });
    return place;
  }

  /** A node of the cluster by its name. */
  node(name: string): PlaceNode {
    const node = this.nodes.get(name);
    if (node === undefined) throw new Error(`no node ${name} in this place`);
    return node;
  }

  async writeSecrets(secrets: Record<string, string>, storage = "san"): Promise<void> {
    // On a real cluster all nodes see one and the same /etc/pve.
    for (const { directory } of this.nodes.values()) {
      const folder = `${directory}/etc/pve/priv/storage`;
      await Deno.mkdir(folder, { recursive: true });
      await Deno.writeTextFile(`${folder}/${storage}.tnblock`, JSON.stringify(secrets), {
        mode: 0o600,
      });
    }
  }

  /** The storage's section, as PVE parsed it. */
  config(change: Record<string, unknown> = {}): Record<string, unknown> {
    const { ready } = this.simulator;
    const portals = this.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
    return {
      type: "tnblock",
      shared: 1,
      content: { images: 1, rootdir: 1 },
      "tnb-api-host": ready.host,
      "tnb-api-port": ready.port,
      "tnb-api-user": ready.user,
      "tnb-tls-fingerprint": ready.fingerprint,
      "tnb-dataset": ready.dataset,
      "tnb-transport-mode": this.transport,
      ...(this.transport === "iscsi"
        ? { "tnb-target-iqn": ready.targetIqn }
        : { "tnb-subsystem-nqn": ready.subsystemNqn }),
      "tnb-discovery-portal": portals[0],
      "tnb-portals": portals.join(","),
      ...change,
    };
  }

  /** What the hook is asked with, on its standard input or over the daemon's socket. */
  request(
    method: string,
    args: Record<string, unknown> = {},
    { config, deadlineMs = 45_000, node, storage = "san" }: Omit<AskOptions, "root"> = {},
  ) {
    return {
      protocol: 1,
      id: "t",
      method,
      storage,
      config: this.config(config),
      args,
      deadlineMs,
      node: node ?? this.nodes.keys().next().value,
      pveApi: 13,
    };
  }

  /** Asks the hook; waits until nothing is under way any more. */
  async ask(
    method: string,
    args: Record<string, unknown> = {},
    options: AskOptions = {},
  ): Promise<Reply> {
    const { reply, settled } = this.begin(method, args, options);
    const given = await reply;
    await settled;
    return given;
  }

  /** Asks the hook; the reply and the end of all work come apart. */
  begin(method: string, args: Record<string, unknown> = {}, options: AskOptions = {}): Asked {
    const node = options.node === undefined ? undefined : this.node(options.node);
    const request = this.request(method, args, options);
    const { deadlineMs } = request;
    const host = linuxHost({ root: options.root ?? node?.directory ?? this.directory });
    const passed = Promise.withResolvers<void>();
    const wait = (ms: number, signal?: AbortSignal) =>
      ms === deadlineMs
        ? Promise.race([host.wait(ms, signal), passed.promise])
        : host.wait(ms, signal);
    if (this.through === "daemon") {
      return this.#askDaemon(host, options.root ?? node?.directory ?? this.directory, request);
    }
    const { reply, settled, delivered } = answer(JSON.stringify(request), {
      host: { ...host, wait },
      log: lineLog((line) => this.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
      onArrayCall: (call) => this.calls.push(call.method),
    });
    return {
      reply: reply.then(({ text }) => JSON.parse(text) as Reply),
      giveUp: passed.resolve,
      settled: Promise.all([delivered(), settled]),
    };
  }

  /** Asks over the socket, as the shim does; nobody gives up before the deadline there. */
  #askDaemon(host: Host, root: string, request: { readonly deadlineMs: number }): Asked {
    const asked = this.#daemonOf(host, root).then(async (daemon) => {
      const line = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
        deadlineMs: request.deadlineMs + 5_000,
        maxLine: 64 * 1024 * 1024,
      });
      return { daemon, reply: JSON.parse(line) as Reply };
    });
    return {
      reply: asked.then(({ reply }) => reply),
      giveUp: () => {
        throw new Error("a caller of the daemon does not give up here");
      },
      settled: asked.then(({ daemon }) => daemon.idle()),
    };
  }

  #daemonOf(host: Host, root: string): Promise<Daemon> {
    const known = this.#daemons.get(root);
    if (known !== undefined) return known;
    const started = startDaemon({
      host,
      log: lineLog((line) => this.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
      onArrayCall: (call) => this.calls.push(call.method),
      // Tests cut connections one after the other: that is no array that flaps.
      linkTimes: { stableMs: 0 },
    });
    this.#daemons.set(root, started);
    return started;
  }

  /** As {@link ask}, for a request that must succeed. */
  async must(
    method: string,
    args: Record<string, unknown> = {},
    options: AskOptions = {},
    // deno-lint-ignore no-explicit-any
  ): Promise<any> {
    const reply = await this.ask(method, args, options);
    if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
    return reply.result;
  }

  /** Makes a volume; 64 MiB unless told. */
  async alloc(vmid = 100, sizeKiB = 65536, name: string | null = null): Promise<string> {
    return await this.must("alloc_image", { vmid, format: "raw", name, sizeKiB });
  }

  /** A name that has gone stale: its volume was freed, and made again with another number or uuid. */
  async replaced(): Promise<{ readonly stale: string; readonly today: string }> {
    const stale = await this.alloc();
    let today = stale;
    // Numbers are drawn: the same one may come again.
    while (today === stale) {
      await this.must("free_image", { volname: today, isBase: 0, finish: true });
      today = await this.alloc();
    }
    return { stale, today };
  }

  /** The path of a volume below the node's folder; of a linked clone, either form of its name. */
  linkOf(volname: string, node?: string): string {
    const own = volname.slice(volname.lastIndexOf("/") + 1);
    const zvol = /^vol-(.*)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(own)?.[1] ?? own;
    const root = node === undefined ? this.directory : this.node(node).directory;
    return `${root}/dev/tnblock/san/${zvol}`;
  }

  /** The first characters on an attached disk; reading all of it would cost more than the test. */
  async beginning(volname: string, node?: string): Promise<string> {
    using file = await Deno.open(this.linkOf(volname, node));
    const bytes = new Uint8Array(64);
    const count = await file.read(bytes) ?? 0;
    return new TextDecoder().decode(bytes.subarray(0, count));
  }

  /** Plays a process of the node that has the volume open. */
  async holdOpen(volname: string): Promise<void> {
    const node = await Deno.realPath(this.linkOf(volname));
    const proc = `${this.directory}/proc/4711`;
    await Deno.mkdir(`${proc}/fd`, { recursive: true });
    await Deno.writeTextFile(`${proc}/comm`, "qemu-system-x86\n");
    await Deno.symlink(node.slice((await Deno.realPath(this.directory)).length), `${proc}/fd/12`);
  }

  /** What `GET /objects` tells; the weight of an iSCSI target, which stays for good, only when asked for. */
  // deno-lint-ignore no-explicit-any
  async objects(options: { readonly weight?: boolean } = {}): Promise<Record<string, any[]>> {
    const objects = await (await fetch(new URL("/objects", this.simulator.ready.control))).json();
    return options.weight === true ? objects : withoutWeight(objects);
  }

  /** What `GET /stats` tells. */
  async stats(): Promise<{ readonly connections: number; readonly logins: number }> {
    return await (await fetch(new URL("/stats", this.simulator.ready.control))).json();
  }

  /** Sets the simulator's faults. */
  async faults(faults: readonly Record<string, unknown>[]): Promise<void> {
    const response = await fetch(new URL("/faults", this.simulator.ready.control), {
      method: "POST",
      body: JSON.stringify(faults),
    });
    await response.body?.cancel();
    if (!response.ok) throw new Error(`the simulator refused the faults: ${response.status}`);
  }

  /**
   * Waits until the fault `hold` has a call of the method, which then stays undone until the faults
   * are set anew.
   */
  async held(method: string): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const tooLate = new Promise<never>((_, reject) => {
      const error = new Error(`no call of ${method} came to be held`);
      timer = setTimeout(() => reject(error), HELD_WITHIN_MS);
    });
    try {
      await Promise.race([this.simulator.held(method), tooLate]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Asks the hook, lets the caller's deadline pass while the fault's call is held, and only then the
   * call be done; waits until nothing is under way any more.
   */
  async askAndGiveUp(
    fault: { readonly method: string; readonly nth?: number },
    method: string,
    args: Record<string, unknown> = {},
    options: AskOptions = {},
  ): Promise<Reply> {
    await this.faults([{ ...fault, do: "hold" }]);
    const { reply, giveUp, settled } = this.begin(method, args, options);
    await this.held(fault.method);
    giveUp();
    const given = await reply;
    await this.faults([]);
    await settled;
    return given;
  }

  /** Works on the array past the hook, as an administrator would. */
  async array<T>(work: (nas: TrueNas) => Promise<T>): Promise<T> {
    const { host, port, user, apiKey, fingerprint } = this.simulator.ready;
    const nas = await connectTrueNas({
      addresses: [host],
      port,
      user,
      apiKey,
      trust: { kind: "fingerprint", sha256: fingerprint },
      clock: systemClock,
    });
    try {
      return await work(nas);
    } finally {
      nas.session.close();
    }
  }

  /** Stops a service of the array. */
  async stopService(name: "iscsitarget" | "nvmet"): Promise<void> {
    await this.array((nas) => nas.session.callJob("service.control", ["STOP", name, {}]));
  }

  /** Starts it again. */
  async startService(name: "iscsitarget" | "nvmet"): Promise<void> {
    await this.array((nas) => nas.session.callJob("service.control", ["START", name, {}]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#daemons.values()].map(async (daemon) => (await daemon).stop()));
    await this.simulator.stop();
    for (const { player, directory } of this.nodes.values()) {
      await player.close();
      await Deno.remove(directory, { recursive: true });
    }
    const problems = this.schema.problems();
    if (problems.length > 0) {
      throw new Error(`requests or answers break the schema:\n${problems.join("\n")}`);
    }
  }
}

/** Leaves out the weight with its extent and mapping. */
// deno-lint-ignore no-explicit-any
export function withoutWeight(objects: Record<string, any[]>): Record<string, any[]> {
  const isWeight = (path: unknown) => /\/tnb-weight-[0-9a-f]{8}$/.test(String(path));
  const extents = objects["extents"]?.filter((row) => isWeight(row.disk ?? row.path)) ?? [];
  const ids = extents.map((row) => row.id);
  return {
    ...objects,
    zvols: objects["zvols"]?.filter((row) => !isWeight(row.name)) ?? [],
    extents: objects["extents"]?.filter((row) => !ids.includes(row.id)) ?? [],
    mappings: objects["mappings"]?.filter((row) => !ids.includes(row.extent)) ?? [],
  };
}
