/** `tnblock daemon` on a node in the VM: started, ended, killed, and asked how it is. */

import { assert, assertEquals, fail } from "@std/assert";
import type { State } from "../../../src/daemon/state.ts";
import type { HookAnswer, Node } from "./node.ts";
import type { Vm } from "./vm.ts";

const SOCKET = "/run/tnblock/daemon.sock";
const JOURNAL = "/var/lib/tnblock/journal";
const STORAGE_CFG = "/etc/pve/storage.cfg";
const LOG = "/run/daemon.log";

/** Perl: sends a line; prints how many milliseconds the answer took, and the answer. */
const ASK =
  `use strict; use IO::Socket::UNIX; use Time::HiRes "time"; my $line = <STDIN>; my $begun = time;
  my $daemon = IO::Socket::UNIX->new($ARGV[0]) or die "$ARGV[0]: $!"; print $daemon $line; $daemon->flush;
  my $answer = <$daemon>; printf "%.1f\\n%s", 1000 * (time - $begun), $answer;`;

/** The disks and portals of one storage, as the daemon sees them. */
export type StorageSeen = State["storages"][number];

/** The daemon of one node. */
export class Daemon {
  readonly #vm: Vm;

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** Starts it; resolves when its socket answers. */
  async start(): Promise<void> {
    await this.#vm.sh(`rm -f /run/daemon.status
      (tnblock daemon >>${LOG} 2>&1 </dev/null &
        echo $! >/run/daemon.pid; wait $!; echo $? >/run/daemon.status) >/dev/null 2>&1 </dev/null &`);
    await this.#vm.until(
      `[ -e /run/daemon.status ] || socat -u OPEN:/dev/null UNIX-CONNECT:${SOCKET} 2>/dev/null`,
      120,
    );
    if (await this.#isOver()) fail("the daemon did not start");
  }

  /** Ends it as systemd does; it must end by itself, with success. */
  async stop(): Promise<void> {
    if (await this.#isOver()) fail("the daemon has ended by itself");
    await this.#vm.sh("kill $(cat /run/daemon.pid)");
    await this.#vm.until("[ -e /run/daemon.status ]", 200);
    assertEquals(await this.#vm.sh("cat /run/daemon.status"), "0");
  }

  /** Kills it. */
  async kill(): Promise<void> {
    await this.#vm.sh("kill -9 $(cat /run/daemon.pid)");
    await this.#vm.until("[ -e /run/daemon.status ]");
  }

  /** What it says of itself to the administrator. */
  async state(): Promise<State> {
    const { stdout, stderr } = await this.#vm.try("tnblock status -o json");
    if (!stdout.startsWith("{")) fail(`no status: ${stdout}${stderr}`);
    return JSON.parse(stdout) as State;
  }

  /** The same of one storage. */
  async storage({ storage }: Node): Promise<StorageSeen> {
    const { storages } = await this.state();
    return storages.find(({ id }) => id === storage) ?? fail(`"${storage}" is unknown`);
  }

  /** One request as the shim sends it, and how many milliseconds its answer took. */
  async ask(node: Node, method: string): Promise<{ answer: HookAnswer; ms: number }> {
    const request = await this.#vm.file(
      JSON.stringify({
        ...{ protocol: 1, id: "ask", method, storage: node.storage, config: node.config, args: {} },
        ...{ deadlineMs: 30_000, node: this.#vm.name, pveApi: 13 },
      }) + "\n",
    );
    const [ms, line = ""] = (await this.#vm.sh(`perl -e '${ASK}' ${SOCKET} <${request}`)).split(
      "\n",
    );
    return { answer: JSON.parse(line) as HookAnswer, ms: Number(ms) };
  }

  /** Whether it is at work on a changing request. */
  async begun(seconds = 60): Promise<void> {
    await this.#vm.until(`[ -n "$(ls -A ${JOURNAL} 2>/dev/null)" ]`, seconds);
  }

  log(): Promise<string> {
    return this.#vm.sh(`cat ${LOG}`);
  }

  async #isOver(): Promise<boolean> {
    return (await this.#vm.try("[ -e /run/daemon.status ]")).status === 0;
  }

  /** Leaves nothing of it to the next case. */
  async remove(): Promise<void> {
    await this.#vm.sh(`[ -e /run/daemon.status ] || kill -9 $(cat /run/daemon.pid)
      rm -rf ${LOG} ${SOCKET} ${STORAGE_CFG} /run/daemon.* /var/lib/tnblock`);
  }
}

/**
 * Runs a case while the daemon runs on a node, whose storages are in its storage.cfg; the daemon must live to see
 * the case's end, and has told no secret then. What it logged is told when the case fails.
 */
export async function withDaemon(
  nodes: readonly Node[],
  run: (daemon: Daemon) => Promise<void>,
): Promise<void> {
  const [{ vm, array } = fail("no node")] = nodes;
  const sections = await vm.file(nodes.map(sectionOf).join("\n"));
  await vm.sh(`cp ${sections} ${STORAGE_CFG}; rm -rf /run/daemon.* /var/lib/tnblock`);
  const daemon = new Daemon(vm);
  try {
    await daemon.start();
    await run(daemon);
    await daemon.stop();
    assert(!(await daemon.log()).includes(array.apiKey), "the API key is in the log");
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    throw new Error(`${text}\n--- the daemon's log ---\n${await daemon.log().catch(String)}`);
  } finally {
    await daemon.remove();
  }
}

/** A section of storage.cfg. */
function sectionOf({ storage, config }: Node): string {
  const { type, ...options } = config;
  const lines = Object.entries(options).map(([name, value]) => `\t${name} ${value}\n`);
  return `${type}: ${storage}\n${lines.join("")}`;
}
