/** A simulated array with a played node on which setup can run: its own `pvesm` and `dd`, the plugin, a cluster of one. */
import { createHash } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Asker, Cancelled } from "../../src/common/asking.ts";
import { silentLog } from "../../src/common/log.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";
import type { Answers } from "../../src/setup/answers.ts";
import { type PreparedSetup, prepareSetup } from "../../src/setup/setup.ts";
import type { SetupWorld } from "../../src/setup/world.ts";
import { Place, type PlaceOptions, type TransportKind } from "../support/place.ts";

const BUN = new URL("../../node_modules/.bin/bun", import.meta.url).pathname;
const PVESM = new URL("pvesm_program.ts", import.meta.url).pathname;

const STUBS: Readonly<Record<string, string>> = {
  "/usr/sbin/pvesm": `#!/bin/sh
printf '%s\\n' "pvesm $*" >>"\${0%/usr/sbin/pvesm}/run/calls"
exec '${BUN}' --no-env-file run '${PVESM}' "\${0%/usr/sbin/pvesm}" "$@"
`,
  // Direct I/O is nothing that a folder in memory can do, and its devices are files below the root.
  "/usr/bin/dd": `#!/bin/sh
root=\${0%/usr/bin/dd}
set -f
words=
for word in "$@"; do
  case "$word" in
    *flag=direct) ;;
    of=/dev/*) words="$words of=$root\${word#of=}" ;;
    if=/dev/*) words="$words if=$root\${word#if=}" ;;
    *) words="$words $word" ;;
  esac
done
if [ -f "$root/stub/dd-fails" ]; then echo 'planted: dd failed' >&2; exit 1; fi
exec /usr/bin/dd $words
`,
};

/** The node's file that Proxmox VE loads plugins from. */
export const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/** Array and node. */
export class SetupPlace {
  readonly told: string[] = [];
  constructor(readonly place: Place, readonly transport: TransportKind) {}

  static async start(transport: TransportKind, options: PlaceOptions = {}): Promise<SetupPlace> {
    const place = await Place.start(transport, options);
    const made = new SetupPlace(place, transport);
    await rm(`${place.directory}/etc/pve/priv/storage/san.tnblock`);
    for (const [path, text] of Object.entries(STUBS)) await made.write(path, text, 0o755);
    await made.write("/etc/pve/.members", JSON.stringify({ nodename: "pve1", version: 1 }));
    await made.write("/etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n");
    await mkdir(`${place.directory}/etc/pve/nodes/pve1/qemu-server`, { recursive: true });
    await mkdir(`${place.directory}/etc/pve/nodes/pve1/lxc`, { recursive: true });
    await made.write(SHIM_FILE, SHIM);
    await made.write("/root/key", `${place.simulator.ready.apiKey}\n`, 0o600);
    return made;
  }

  get directory(): string {
    return this.place.directory;
  }

  async write(path: string, text: string, mode = 0o644): Promise<void> {
    const file = join(this.directory, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
    await chmod(file, mode);
  }

  async read(path: string): Promise<string | undefined> {
    return await readFile(join(this.directory, path), "utf8").catch(() => undefined);
  }

  world(change: Partial<SetupWorld> = {}): SetupWorld {
    return {
      host: linuxHost({ root: this.directory }),
      log: silentLog,
      ...{ version: "0.1.0", limitLogins: false },
      tell: (line) => void this.told.push(line),
      input: () => Promise.resolve(this.place.simulator.ready.apiKey),
      ...change,
    };
  }

  /** Answers for a new target or subsystem in the dataset that is there. */
  answers(change: Answers = {}): Answers {
    const { ready } = this.place.simulator;
    const portals = this.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
    return {
      "api-host": ready.host,
      "api-port": String(ready.port),
      "trust": ready.fingerprint,
      "api-user": ready.user,
      "api-key-file": "/root/key",
      "dataset": "tank/pve",
      "transport": this.transport,
      "portals": portals.join(","),
      "target": "new:lab",
      "storage": "san",
      ...change,
    };
  }

  /** Asks nobody; does it unless `decide` says otherwise. */
  async run(
    answers: Answers,
    options: {
      readonly asker?: Asker;
      readonly world?: SetupWorld;
      readonly decide?: (prepared: PreparedSetup) => Promise<void>;
    } = {},
  ): Promise<void> {
    await prepareSetup(
      options.world ?? this.world(),
      {
        asker: options.asker ?? nobody,
        isTerminal: options.asker !== undefined,
        given: answers,
      },
      options.decide ?? ((prepared) => prepared.carryOut()),
    );
  }

  /** All that is on the array, access included. */
  // deno-lint-ignore no-explicit-any
  async objects(): Promise<any> {
    const { tables } = this.place.simulator.world;
    const { portal, initiator, auth, host, port, hostSubsys, portSubsys } = tables;
    const access = { portal, initiator, auth, host, port, hostSubsys, portSubsys };
    return structuredClone({
      ...await this.place.objects({ weight: true }),
      ...Object.fromEntries(Object.entries(access).map(([name, table]) => [name, table.all()])),
    });
  }

  /** Every file of the node that outlives a boot, by what is in it. */
  async files(): Promise<Record<string, string>> {
    const found: Record<string, string> = {};
    const walk = async (path: string): Promise<void> => {
      for (const entry of await readdir(join(this.directory, path), { withFileTypes: true })) {
        const inner = `${path}/${entry.name}`;
        if (/^\/(run|sys|dev|proc|\.array|stub)$/.test(inner)) continue;
        if (entry.isDirectory()) await walk(inner);
        else if (entry.isFile()) {
          const { mode } = await stat(join(this.directory, inner));
          const text = await readFile(join(this.directory, inner));
          const digest = createHash("sha256").update(text).digest("hex").slice(0, 12);
          found[inner] = `${(mode & 0o777).toString(8)} ${digest}`;
        }
      }
    };
    await walk("");
    return found;
  }

  /** Connections of the node to the array's data side. */
  async connections(): Promise<string[]> {
    const names: string[] = [];
    for (const folder of ["nvme", "iscsi_session"]) {
      const inside = await readdir(join(this.directory, "sys/class", folder)).catch(() => []);
      names.push(...inside);
    }
    return names;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.place[Symbol.asyncDispose]();
  }
}

/** Nobody is there to answer. */
export const nobody: Asker = {
  text: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  secret: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  choose: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  chooseSome: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  confirm: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  confirmTyped: (question) => Promise.reject(new Error(`asked: ${question.flag}`)),
  tell: () => {},
  working: (_doing, work) => work(),
};

/** Someone who takes what is proposed, types from a list, and leaves at the nth question when told to. */
export class Scripted implements Asker {
  readonly asked: string[] = [];
  readonly told: string[] = [];
  constructor(
    /** What is typed at the questions of a flag, one after the other; a choice by its value. */
    readonly typed: Readonly<Record<string, readonly unknown[]>>,
    /** Leaves at this question, counted from 1. */
    readonly leaveAt = Infinity,
  ) {}

  #next(flag: string, proposed: unknown): unknown {
    this.asked.push(flag);
    if (this.asked.length >= this.leaveAt) throw new Cancelled();
    const turn = this.asked.filter((other) => other === flag).length - 1;
    return this.typed[flag]?.[turn] ?? proposed;
  }

  // deno-lint-ignore require-await
  async text({ flag, initial }: { flag: string; initial?: string }): Promise<string> {
    return String(this.#next(flag, initial ?? ""));
  }
  // deno-lint-ignore require-await
  async secret({ flag }: { flag: string }): Promise<string> {
    return String(this.#next(flag, ""));
  }
  // deno-lint-ignore require-await
  async choose<T>(
    { flag, choices, initial = 0 }: {
      flag: string;
      choices: readonly { value: T }[];
      initial?: number;
    },
  ): Promise<T> {
    return this.#next(flag, choices[initial]?.value) as T;
  }
  // deno-lint-ignore require-await
  async chooseSome<T>(
    { flag, choices }: { flag: string; choices: readonly { value: T }[] },
  ): Promise<readonly T[]> {
    return this.#next(flag, choices.map(({ value }) => value)) as readonly T[];
  }
  // deno-lint-ignore require-await
  async confirm({ flag, initial = false }: { flag: string; initial?: boolean }): Promise<boolean> {
    return this.#next(flag, initial) as boolean;
  }
  // deno-lint-ignore require-await
  async confirmTyped({ flag }: { flag: string }): Promise<boolean> {
    return this.#next(flag, false) as boolean;
  }
  tell(text: string): void {
    this.told.push(text);
  }
  working<T>(_doing: string, work: () => Promise<T>): Promise<T> {
    return work();
  }
}

/** The host, failing at one of the operations that change the node. */
export function failingHost(host: Host, fails: (what: string) => boolean): Host {
  return {
    ...host,
    run: (program, args, options) => {
      if (fails(`run ${program} ${args.join(" ")}`)) {
        return Promise.resolve({ status: 1, stdout: "", stderr: "planted" });
      }
      return host.run(program, args, options);
    },
  };
}
