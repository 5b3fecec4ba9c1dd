/** A cluster of three simulated nodes whose storage is the Perl plugin's: /etc/pve is that of the first one for all. */
import { silentLog } from "../../src/common/log.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import type { Host, ProgramResult } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { hostIdentity } from "../../src/host/nvme_identity.ts";
import { attachHere } from "../../src/migrate/attach.ts";
import { gatherNodeFacts } from "../../src/migrate/node_facts.ts";
import { sectionTexts } from "../../src/migrate/section_text.ts";
import type { MigrateWorld } from "../../src/migrate/world.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";
import { DAEMON, state } from "../daemon/state_examples.ts";
import { plantLegacy } from "../support/legacy.ts";
import { Place, type TransportKind } from "../support/place.ts";

export const VERSION = "0.1.0";
export const NODES = ["pve1", "pve2", "pve3"] as const;

const LIB = new URL("lib", import.meta.url).pathname;
const CUSTOM = "/usr/share/perl5/PVE/Storage/Custom";
export const SHIM_FILE = `${CUSTOM}/TnblockPlugin.pm`;
const PERL_FILE = `${CUSTOM}/TrueNASPlugin.pm`;

const RUNNING = "2026-03-01 12:00:00.250000";
/** When both plugins came to their place: before {@link RUNNING}. */
const INSTALLED = new Date("2026-03-01T11:59:58Z");

/** Array and nodes. */
export class PerlPlace implements AsyncDisposable {
  readonly told: string[] = [];
  /** Volnames that were planted. */
  volnames: string[] = [];
  /** The nodes whose pvesm shows no storage as active. */
  readonly broken = new Set<string>();
  readonly offline = new Set<string>();
  /** A change of a node's answers. */
  loadedAt: Record<string, string> = {};
  daemonVersion: Record<string, string | undefined> = {};
  /** The next Perl is killed after its work. */
  perlDies = false;
  /** Called before each program that a node runs; what it gives is the result. */
  onRun: (
    node: string,
    words: readonly string[],
  ) => ProgramResult | undefined | Promise<undefined> = () => undefined;

  private constructor(readonly place: Place) {}

  static async start(transport: TransportKind): Promise<PerlPlace> {
    const place = await Place.start(transport, { nodes: NODES });
    const made = new PerlPlace(place);
    await Deno.remove(`${place.directory}/etc/pve/priv/storage/san.tnblock`);
    for (const name of NODES) {
      await made.write(name, SHIM_FILE, SHIM);
      await made.write(name, PERL_FILE, "sub type { return 'truenasplugin'; }\n# tn_api_host\n");
      for (const file of [SHIM_FILE, PERL_FILE]) {
        await Deno.utime(`${place.node(name).directory}${file}`, INSTALLED, INSTALLED);
      }
      await made.write("pve1", `/etc/pve/nodes/${name}/qemu-server/9${name.slice(3)}.conf`, "\n");
    }
    await made.write("pve1", "/etc/pve/storage.cfg", made.storageCfg());
    for (const [index, zvol] of ["vm-100-disk-0", "vm-100-disk-1", "vm-101-disk-0"].entries()) {
      made.volnames.push(await plantLegacy(place, { zvol, number: 21 + index, adopted: false }));
    }
    const disks = made.volnames.map((name, index) => `scsi${index}: san:${name},size=64M\n`);
    await made.write(
      "pve1",
      "/etc/pve/nodes/pve1/qemu-server/100.conf",
      disks.slice(0, 2).join(""),
    );
    await made.write("pve1", "/etc/pve/nodes/pve2/qemu-server/101.conf", disks.slice(2).join(""));
    const now = Math.floor(Date.now() / 1000);
    await made.write(
      "pve1",
      "/etc/pve/.rrd",
      [100, 101].map((vmid) => `pve2.3-vm/${vmid}:9:n:running:0:${now}:1\n`).join(""),
    );
    return made;
  }

  /** The section as the Perl plugin has it. */
  perlSection(): string {
    const { ready } = this.place.simulator;
    const isIscsi = this.place.transport === "iscsi";
    const portals = isIscsi ? ready.portals.iscsi : ready.portals.nvme;
    const options = {
      tn_api_host: ready.host,
      tn_api_port: ready.port,
      tn_api_key: ready.apiKey,
      tn_api_insecure: 1,
      tn_dataset: ready.dataset,
      tn_transport_mode: this.place.transport,
      ...(isIscsi ? { tn_target_iqn: ready.targetIqn } : { tn_subsystem_nqn: ready.subsystemNqn }),
      tn_discovery_portal: portals[0],
      tn_portals: portals.join(","),
      tn_prefer_ipv4: 1,
      content: "images",
      shared: 1,
    };
    const lines = Object.entries(options).map(([key, value]) => `\t${key} ${value}\n`);
    return `truenasplugin: san\n${lines.join("")}`;
  }

  storageCfg(): string {
    return `dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n${this.perlSection()}\nlvm: z\n\tvgname pve\n\n`;
  }

  async write(node: string, path: string, text: string): Promise<void> {
    const file = `${this.place.node(node).directory}${path}`;
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(file, text);
  }

  async read(path: string): Promise<string | undefined> {
    return await Deno.readTextFile(`${this.place.directory}${path}`).catch(() => undefined);
  }

  /** Connects a node to every portal as nvme-cli and open-iscsi do for the Perl plugin. */
  async connectAsPerl(node: string): Promise<void> {
    const host = linuxHost({ root: this.place.node(node).directory, nodeName: node });
    const { portals, subsystemNqn, targetIqn } = this.place.simulator.ready;
    const bounds = { deadlineMs: 20_000 };
    if (this.place.transport === "nvme-tcp") {
      const { hostNqn, hostId } = await hostIdentity(host);
      for (const portal of portals.nvme) {
        const [, address, port] = /^(.*):(\d+)$/.exec(portal) ?? [];
        const to = `transport=tcp,traddr=${address},trsvcid=${port},nqn=${subsystemNqn}`;
        await host.connectFabrics(`${to},hostnqn=${hostNqn},hostid=${hostId}`, bounds);
      }
    } else {
      for (const portal of portals.iscsi) {
        const record = ["-m", "node", "-T", targetIqn, "-p", `${portal},1`];
        for (const action of [["-o", "new"], ["--login"]]) {
          await host.run("/usr/sbin/iscsiadm", [...record, ...action], bounds);
        }
      }
    }
  }

  /** Sessions and controllers of a node, by the kernel's names. */
  async connections(node: string): Promise<string[]> {
    const { files } = linuxHost({ root: this.place.node(node).directory });
    const folders = ["/sys/class/nvme", "/sys/class/iscsi_session"];
    return (await Promise.all(folders.map((folder) => files.list(folder)))).flatMap((one) =>
      one ?? []
    );
  }

  /** All that a failed migration must leave as it was. */
  // deno-lint-ignore no-explicit-any
  async everything(): Promise<any> {
    return {
      storageCfg: await this.read("/etc/pve/storage.cfg"),
      secrets: await this.read("/etc/pve/priv/storage/san.tnblock"),
      copy: await this.read("/etc/pve/priv/tnblock/migrate-san.json"),
      objects: await this.place.objects(),
      datasets: structuredClone([...this.place.simulator.world.zfs.datasets.values()]),
    };
  }

  /** A node, whose /etc/pve is that of the first one. */
  host(name: string): Host {
    const own = linuxHost({ root: this.place.node(name).directory, nodeName: name });
    const shared = linuxHost({ root: this.place.directory, nodeName: name }).files;
    const of = (path: string) => path.startsWith("/etc/pve") ? shared : own.files;
    const files: Host["files"] = {
      ...own.files,
      readText: (path) =>
        path === "/etc/pve/.members"
          ? Promise.resolve(this.#members(name))
          : of(path).readText(path),
      list: (path) => of(path).list(path),
      status: (path) => of(path).status(path),
      replaceText: (path, ...rest) => of(path).replaceText(path, ...rest),
      remove: (path, options) => of(path).remove(path, options),
    };
    return {
      ...own,
      files,
      askLocal: (path, line, options) => {
        if (path !== DAEMON_SOCKET) return own.askLocal(path, line, options);
        const version = name in this.daemonVersion ? this.daemonVersion[name] : VERSION;
        if (version === undefined) return Promise.reject(new Error("nobody"));
        const result = state({ daemon: { ...DAEMON, version } });
        return Promise.resolve(JSON.stringify({ id: "daemon_status", ok: true, result }));
      },
      run: async (program, args, options) => {
        const played = await this.#run(name, program, args, options.input ?? "");
        return played ?? await own.run(program, args, options);
      },
    };
  }

  #members(nodename: string): string {
    const nodelist = Object.fromEntries(
      NODES.map((name, index) => [name, {
        id: index + 1,
        online: this.offline.has(name) ? 0 : 1,
        ip: `10.0.0.${index + 1}`,
      }]),
    );
    return JSON.stringify({ nodename, cluster: { name: "lab", quorate: 1 }, nodelist });
  }

  async #run(
    node: string,
    program: string,
    args: readonly string[],
    input: string,
  ): Promise<ProgramResult | undefined> {
    if (program === "/usr/bin/ssh") {
      const address = args.find((one) => one.startsWith("root@")) ?? "";
      const to = NODES[Number(address.slice(-1)) - 1] ?? "pve1";
      return await this.#remote(to, args.slice(args.indexOf("--") + 1));
    }
    const words = [program, ...args];
    const forced = await this.onRun(node, words);
    if (forced !== undefined) return forced;
    if (program === "/usr/bin/perl") {
      const result = await this.#perl(args, input);
      if (!this.perlDies) return result;
      this.perlDies = false;
      return { status: 137, stdout: "", stderr: "" };
    }
    if (program === "/usr/sbin/pvesm") return await this.#pvesm(node);
    if (program !== "/usr/bin/systemctl") return undefined;
    const at = this.loadedAt[node] ?? RUNNING;
    return {
      ...{ status: 0, stderr: "" },
      stdout: `ActiveState=active\nStateChangeTimestamp=Sun ${at} UTC\n`,
    };
  }

  async #remote(node: string, words: readonly string[]): Promise<ProgramResult> {
    const done = (value: unknown) => ({
      status: 0,
      stdout: `${JSON.stringify(value)}\n`,
      stderr: "",
    });
    const forced = await this.onRun(node, words);
    if (forced !== undefined) return forced;
    if (words[0] === "/usr/sbin/pvesm") return await this.#pvesm(node);
    const host = this.host(node);
    if (words.includes("--node-facts")) return done(await gatherNodeFacts(host, VERSION));
    if (!words.includes("--node-attach")) throw new Error(`not played: ${words.join(" ")}`);
    const hook = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
    return done(await attachHere(hook, "san", await this.#config()));
  }

  async #config(): Promise<Record<string, string>> {
    const found = sectionTexts(await this.read("/etc/pve/storage.cfg") ?? "")
      .find(({ id }) => id === "san");
    return { type: found?.type ?? "", ...found?.options };
  }

  /** The program as it is, by the real Perl, with stand-ins for PVE's modules. */
  async #perl(args: readonly string[], input: string): Promise<ProgramResult> {
    const child = new Deno.Command("/usr/bin/perl", {
      args: ["-I", LIB, ...args],
      env: { TNBLOCK_TEST_ROOT: this.place.directory },
      ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { status: code, stdout: text(stdout), stderr: text(stderr) };
  }

  /** `pvesm status`: for a storage of ours what the hook of that node says. */
  async #pvesm(node: string): Promise<ProgramResult> {
    const config = await this.#config();
    let status = this.broken.has(node) ? "inactive" : "active";
    let stderr = "";
    if (config["type"] === "tnblock" && status === "active") {
      // Secrets and section are those of the cluster, wherever it is asked.
      const secrets = JSON.parse(await this.read("/etc/pve/priv/storage/san.tnblock") ?? "{}");
      await this.place.writeSecrets(secrets);
      const reply = await this.place.ask("activate_storage", {}, { node, config });
      if (!reply.ok) status = "inactive";
      stderr = reply.error?.message ?? "";
    }
    return {
      status: 0,
      stdout: `Name Type Status\nsan ${config["type"]} ${status} 0 0 0 0%\n`,
      stderr,
    };
  }

  world(change: Partial<MigrateWorld> = {}): MigrateWorld {
    return {
      ...{ host: this.host("pve1"), log: silentLog, version: VERSION, limitLogins: false },
      tell: (line) => void this.told.push(line),
      ...change,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.place[Symbol.asyncDispose]();
  }
}
