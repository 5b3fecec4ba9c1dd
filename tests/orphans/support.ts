/** A cluster of simulated nodes with one array, for cleaning up: the other nodes answer in this process. */
import { silentLog } from "../../src/common/log.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { Cleanup } from "../../src/orphans/cleanup.ts";
import type { Findings } from "../../src/orphans/find.ts";
import { gatherFacts, parseQuestion } from "../../src/orphans/node_facts.ts";
import { storagesToClean } from "../../src/orphans/storages_of.ts";
import { openStorage } from "../../src/pve/open_storage.ts";
import { Deadline } from "../../src/common/deadline.ts";
import { Place, type PlaceOptions, type TransportKind } from "../support/place.ts";

/** Two days, in seconds. */
const OLD = 2 * 86_400;

/** The place, with what a cluster's configuration holds. */
export class Cluster implements AsyncDisposable {
  /** Nodes that ssh does not reach. */
  readonly dead = new Set<string>();
  /** Called with the name of each node that is asked. */
  onAsk: (node: string) => Promise<void> = () => Promise.resolve();

  private constructor(readonly place: Place) {}

  static async start(transport: TransportKind, options: PlaceOptions = {}): Promise<Cluster> {
    const place = await Place.start(transport, { nodes: ["pve1", "pve2", "pve3"], ...options });
    const cluster = new Cluster(place);
    const names = [...place.nodes.keys()];
    const nodelist = Object.fromEntries(
      names.map((name, index) => [name, { id: index, online: 1, ip: `10.0.0.${index + 1}` }]),
    );
    const { type, content: _, ...config } = place.config();
    const lines = Object.entries(config).map(([key, value]) => `\t${key} ${value}\n`).join("");
    for (const name of names) {
      await cluster.write(
        name,
        "/etc/pve/.members",
        JSON.stringify({ nodename: name, cluster: { name: "lab", quorate: 1 }, nodelist }),
      );
    }
    await cluster.everywhere("/etc/pve/storage.cfg", `${type}: san\n${lines}\tcontent images\n`);
    for (const name of names) {
      await cluster.everywhere(
        `/etc/pve/nodes/${name}/qemu-server/9${name.slice(3)}.conf`,
        "cores: 1\n",
      );
    }
    return cluster;
  }

  async write(node: string, path: string, text: string): Promise<void> {
    const file = `${this.place.node(node).directory}${path}`;
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(file, text);
  }

  /** Writes a file of pmxcfs, which all nodes see. */
  async everywhere(path: string, text: string): Promise<void> {
    for (const name of this.place.nodes.keys()) await this.write(name, path, text);
  }

  /** Makes all volumes and snapshots that are there older than the floor. */
  age(): void {
    const { zfs } = this.place.simulator.world;
    for (const one of [...zfs.datasets.values(), ...zfs.snapshots.values()]) {
      const aged = one as { creation: number };
      if (aged.creation > Date.now() / 1000 - OLD) aged.creation -= OLD;
    }
  }

  /** A node's host, from which the others are reached. */
  host(node = "pve1"): Host {
    const host = linuxHost({ root: this.place.node(node).directory, nodeName: node });
    return {
      ...host,
      run: async (program, args, options) => {
        if (program !== "/usr/bin/ssh") return await host.run(program, args, options);
        const index = Number(
          /^root@10\.0\.0\.(\d+)$/.exec(args.find((one) => one.startsWith("root@")) ?? "")?.[1],
        );
        const name = [...this.place.nodes.keys()][index - 1] ?? "";
        if (this.dead.has(name)) return { status: 255, stdout: "", stderr: "No route to host\n" };
        await this.onAsk(name);
        return { status: 0, stdout: await this.facts(name, options.input ?? ""), stderr: "" };
      },
    };
  }

  /** What a node tells. */
  async facts(node: string, question: string): Promise<string> {
    const host = linuxHost({ root: this.place.node(node).directory, nodeName: node });
    const [found] = await storagesToClean(host, "san", true);
    if (found === undefined) throw new Error("no storage");
    const { section } = found;
    await using storage = Object.assign(
      await openStorage(
        { storage: section.id, config: section.config, node },
        { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false },
        new Deadline(host, 20_000),
      ),
      { [Symbol.asyncDispose]: () => Promise.resolve() },
    );
    return JSON.stringify(await gatherFacts(host, storage, parseQuestion(question) ?? []));
  }

  /** Works with a clean-up on a node. */
  async clean<T>(
    work: (cleanup: Cleanup, told: string[]) => Promise<T>,
    node = "pve1",
    signal = new AbortController().signal,
  ): Promise<T> {
    const host = this.host(node);
    const told: string[] = [];
    const [storage] = await storagesToClean(host, "san");
    if (storage === undefined) throw new Error("no storage");
    const world = { host, log: silentLog, limitLogins: false, signal };
    const cleanup = new Cleanup({ ...world, tell: (line) => void told.push(line) }, storage);
    try {
      return await work(cleanup, told);
    } finally {
      await cleanup.close();
    }
  }

  /** What a look finds. */
  look(): Promise<Findings> {
    return this.clean((cleanup) => cleanup.look());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.place[Symbol.asyncDispose]();
  }
}

/** `kind name` of what is offered. */
export function offered({ offered }: Findings): string[] {
  return offered.map(({ kind, name }) => `${kind} ${name}`).sort();
}

/** Reasons by name. */
export function kept({ kept }: Findings): Record<string, readonly string[]> {
  return Object.fromEntries(kept.map(({ name, reasons }) => [name, reasons]));
}
