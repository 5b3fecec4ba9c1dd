/** The compiled daemon below a manager that plays systemd: restarted and killed while work goes on. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { BINARY, nvmeConfig, run, SimulatorProcess } from "./program.ts";
import { lastingCommand } from "../support/child.ts";

const SOCKET = "/run/tnblock/daemon.sock";
const SMALL_SYSTEMD = new URL("small_systemd.pl", import.meta.url).pathname;

/** How long a test waits for what must come. */
const PATIENCE_MS = 60_000;

interface Reply {
  readonly ok: boolean;
  // deno-lint-ignore no-explicit-any
  readonly result?: any;
  readonly error?: { readonly code: string; readonly message: string };
}

/** A simulated array and node, and a daemon that is started whenever it ends. */
class Node implements AsyncDisposable {
  readonly #lines: string[] = [];
  readonly #commands: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<void>;
  readonly #config: Record<string, unknown>;
  readonly #log: Promise<string>;

  private constructor(
    readonly folder: string,
    readonly simulator: SimulatorProcess,
    readonly manager: Deno.ChildProcess,
  ) {
    this.#config = nvmeConfig(simulator.ready);
    this.#commands = manager.stdin.getWriter();
    this.#reading = this.#read();
    this.#log = new Response(manager.stderr).text();
  }

  static async start(): Promise<Node> {
    const folder = await Deno.makeTempDir({ prefix: "tnblock-daemon-" });
    const simulator = await SimulatorProcess.start(["--host", folder, "--login-limit", "0"]);
    await Deno.mkdir(`${folder}/etc/pve/priv/storage`, { recursive: true });
    await simulator.writeSecrets(folder);
    await Deno.chmod(`${folder}/etc/pve/priv/storage/san.tnblock`, 0o600);
    await Deno.mkdir(`${folder}/run/tnblock`, { recursive: true });
    // What the daemon says to systemd, and which descriptors its children have.
    await Deno.mkdir(`${folder}/usr/bin`, { recursive: true });
    await Deno.writeTextFile(
      `${folder}/usr/bin/systemd-notify`,
      `#!/bin/sh\necho "$@" >> '${folder}/told'\nls -l /proc/$$/fd >> '${folder}/descriptors'\n`,
    );
    await Deno.chmod(`${folder}/usr/bin/systemd-notify`, 0o755);
    const manager = lastingCommand("perl", {
      args: [SMALL_SYSTEMD, `${folder}${SOCKET}`, BINARY, "--root", folder, "daemon"],
      clearEnv: true,
      env: { PATH: "/usr/bin:/bin", TNBLOCK_LOGIN_BUDGET: "0" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const node = new Node(folder, simulator, manager);
    const lines = Object.entries(node.#config).filter(([key]) => key !== "type")
      .map(([key, value]) => `\t${key} ${value}\n`);
    await Deno.writeTextFile(
      `${folder}/etc/pve/storage.cfg`,
      `tnblock: san\n${lines.join("")}\tcontent images\n`,
    );
    return node;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.manager.stdout) {
      this.#lines.push(...decoder.decode(chunk).split("\n").filter((line) => line !== ""));
    }
  }

  /** Starts so far. */
  get starts(): number {
    return this.#lines.filter((line) => line.startsWith("start ")).length;
  }

  /** How the daemons have ended so far. */
  get ends(): string[] {
    return this.#lines.filter((line) => line.startsWith("end "))
      .map((line) => line.split(" ")[2] ?? "");
  }

  /** Ends the daemon by a signal; resolves when the next one has been started. */
  async signal(command: "term" | "kill"): Promise<void> {
    const { starts } = this;
    await this.#commands.write(new TextEncoder().encode(`${command}\n`));
    await until(`the next daemon`, () => this.starts > starts);
  }

  /** A request through `tnblock hook`, which forwards it. */
  async hook(method: string, args: Record<string, unknown> = {}): Promise<Reply> {
    const { stdout, stderr } = await run(["hook"], {
      input: `${JSON.stringify(this.request(method, args))}\n`,
      env: { TNBLOCK_ROOT: this.folder, TNBLOCK_LOGIN_BUDGET: "0" },
    });
    assertMatch(stdout, /^\{.*\}\n$/, stderr);
    return JSON.parse(stdout);
  }

  async must(method: string, args: Record<string, unknown> = {}): Promise<Reply["result"]> {
    const reply = await this.hook(method, args);
    if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
    return reply.result;
  }

  /**
   * A request straight to the socket, as the shim makes it: again when it was not taken. The daemon's own
   * line, or none.
   */
  async ask(method: string, args: Record<string, unknown> = {}): Promise<Reply | undefined> {
    const path = `${this.folder}${SOCKET}`;
    for (;;) {
      const socket = await Deno.connect({ transport: "unix", path });
      const line = `${JSON.stringify(this.request(method, args))}\n`;
      await socket.write(new TextEncoder().encode(line));
      const text = await new Response(socket.readable).text().catch(() => "");
      const reply = text.endsWith("\n") ? JSON.parse(text) : undefined;
      if (reply?.id !== null || reply.error?.code !== "busy") return reply;
    }
  }

  request(method: string, args: Record<string, unknown>): Record<string, unknown> {
    return {
      protocol: 1,
      id: "7f3a",
      method,
      storage: "san",
      config: this.#config,
      args,
      deadlineMs: 30_000,
      node: "pve1",
      pveApi: 13,
    };
  }

  /** Names of the zvols on the array. */
  async zvols(): Promise<string[]> {
    const { zvols } = await this.simulator.get("objects");
    return zvols.map((zvol: { name: string }) => zvol.name.split("/").at(-1)).sort();
  }

  /** Entries of the journal; a file whose writer was killed is none yet. */
  async journal(): Promise<string[]> {
    const folder = `${this.folder}/var/lib/tnblock/journal`;
    try {
      return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name)
        .filter((name) => /^[0-9a-f].*\.json$/.test(name));
    } catch {
      return [];
    }
  }

  /**
   * Makes the journal older than any call of the dead may last on the array, and has the next daemon look
   * into it.
   */
  async age(): Promise<void> {
    const file = `${this.folder}/run/tnblock/recovery.json`;
    const deaths = async (): Promise<Record<string, number>> =>
      JSON.parse(await Deno.readTextFile(file).catch(() => "{}"));
    await until("death of each entry", async () => {
      const seen = await deaths();
      return (await this.journal()).every((name) => name.slice(0, -".json".length) in seen);
    });
    const older = Object.entries(await deaths()).map(([id, at]) => [id, at - 600]);
    await Deno.writeTextFile(file, JSON.stringify(Object.fromEntries(older)));
    await this.signal("kill");
  }

  /** Ends the daemon for good; gives its whole log. */
  async stop(): Promise<string> {
    await this.#commands.close().catch(() => {});
    await this.manager.status;
    await this.#reading;
    return await this.#log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.simulator[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Waits for a condition. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`no ${what} within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const zvolOf = (volname: string) => /^vol-(.*)-ns[0-9a-f-]{36}$/.exec(volname)?.[1] ?? volname;

Deno.test("the daemon serves the socket that it is handed, tells systemd and the journal, and hands it to no child", async () => {
  await using node = await Node.start();
  const { total } = await node.must("status");
  assert(total > 0);
  await node.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  const told = async () => await Deno.readTextFile(`${node.folder}/told`).catch(() => "");
  await until("sign of life", async () => (await told()).includes("WATCHDOG=1"));
  assertMatch(await told(), /^--ready --status=Answering requests\n/);
  const sockets = (await Deno.readTextFile("/proc/net/unix")).split("\n");
  const listening = sockets.find((line) => line.endsWith(` ${node.folder}${SOCKET}`))?.split(
    / +/,
  )[6];
  assert(listening !== undefined);
  const log = await node.stop();
  assertEquals(node.ends, ["0"], log);
  assertMatch(log, /^<6>\[7f3a alloc_image san\] done after \d+ ms$/m);
  for (const line of log.trim().split("\n")) assertMatch(line, /^<[3-7]>\S/);
  assert(!log.includes(node.simulator.ready.apiKey), "a secret in the log");
  assertMatch(await told(), /\nSTOPPING=1 /);
  // Where another process goes on listening, a dead daemon's callers wait for nobody.
  const descriptors = await Deno.readTextFile(`${node.folder}/descriptors`);
  assert(!descriptors.includes(`socket:[${listening}]`), descriptors);
  // The socket is the manager's.
  assert((await Deno.lstat(`${node.folder}${SOCKET}`)).isSocket);
});

Deno.test("a restart under load refuses no call and loses none", async () => {
  await using node = await Node.start();
  await node.must("status");
  let isOver = false;
  const failures: unknown[] = [];
  const counts = { read: 0, made: 0 };
  const reader = async () => {
    while (!isOver) {
      const reply = await node.ask(counts.read % 2 === 0 ? "status" : "list_images");
      counts.read += 1;
      if (reply?.ok !== true) failures.push(["read", reply]);
    }
  };
  const maker = async (vmid: number) => {
    while (!isOver) {
      const made = await node.hook("alloc_image", { vmid, format: "raw", sizeKiB: 1024 });
      counts.made += 1;
      if (!made.ok) failures.push(["alloc_image", made]);
      else {
        const freed = await node.hook("free_image", { volname: made.result, finish: true });
        if (!freed.ok) failures.push(["free_image", freed]);
      }
    }
  };
  const work = Promise.all([reader(), reader(), maker(101), maker(102), maker(103)]);
  for (let count = 0; count < 3; count++) {
    const made = counts.made;
    await until("work", () => counts.made > made + 3);
    await node.signal("term");
  }
  isOver = true;
  await work;
  assertEquals(failures, []);
  assertEquals(node.ends, ["0", "0", "0"]);
  assertEquals([await node.zvols(), await node.journal()], [[], []]);
});

Deno.test("a daemon killed under load: each caller has an answer or a clear error, and nothing half-made stays", async () => {
  await using node = await Node.start();
  await node.must("status");
  let isOver = false;
  /** What callers were told that they have. */
  const theirs = new Set<string>();
  /** What a failed free may or may not have left. */
  const unsure = new Set<string>();
  const errors: string[] = [];
  let made = 0;
  const work = async (vmid: number) => {
    while (!isOver) {
      const reply = await node.hook("alloc_image", { vmid, format: "raw", sizeKiB: 1024 });
      if (!reply.ok) {
        errors.push(`${reply.error?.code}: ${reply.error?.message}`);
        continue;
      }
      made += 1;
      theirs.add(zvolOf(reply.result));
      if (made % 3 === 0) continue;
      const freed = await node.hook("free_image", { volname: reply.result, finish: true });
      theirs.delete(zvolOf(reply.result));
      if (!freed.ok) {
        errors.push(`${freed.error?.code}: ${freed.error?.message}`);
        unsure.add(zvolOf(reply.result));
      }
    }
  };
  const working = Promise.all([101, 102, 103, 104].map(work));
  for (let count = 0; count < 8; count++) {
    const before = made;
    await until("work", () => made > before + 1);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
    await node.signal("kill");
  }
  isOver = true;
  await working;
  for (const error of errors) {
    assertMatch(
      error,
      /^(host-fault: Cannot finish \S+ on storage "san": the tnblock daemon was at it, and |)/,
    );
    assert(/the tnblock daemon was at it/.test(error), error);
  }
  await node.age();
  await until("empty journal", async () => (await node.journal()).length === 0);
  const zvols = await node.zvols();
  assertEquals([...theirs].filter((zvol) => !zvols.includes(zvol)), [], "a volume is gone");
  // Between the end of an operation in the journal and the answer lies a moment: a volume that is whole, and
  // that nobody was told of. To remove it might remove one that somebody was told of.
  const nobodys = zvols.filter((zvol) => !theirs.has(zvol) && !unsure.has(zvol));
  const failed = errors.filter((error) => error.includes("Cannot finish alloc_image"));
  assert(nobodys.length <= failed.length, `${nobodys} ${failed}`);
  const listed = (await node.must("list_images")).map(({ volid }: { volid: string }) =>
    zvolOf(volid.slice("san:".length))
  );
  assertEquals(listed.sort(), zvols);
});

Deno.test("the units are printed, each below its name", async () => {
  const { status, stdout } = await run(["daemon", "--print-units"]);
  assertEquals(status, 0);
  assertMatch(stdout, /^# \/etc\/systemd\/system\/tnblock\.socket\n# Made by tnblock\n\[Unit\]\n/);
  assertMatch(stdout, /\n# \/etc\/systemd\/system\/tnblock\.service\n/);
});
