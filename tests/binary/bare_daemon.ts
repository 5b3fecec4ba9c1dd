/** The compiled daemon by itself, and callers of its socket that may behave as badly as they like. */
import { connect, type Socket } from "node:net";
import { BINARY, nvmeConfig, type SimulatorProcess } from "./program.ts";
import { lastingCommand } from "../support/child.ts";

/** How long a test waits for what must come. */
const PATIENCE_MS = 30_000;

/** Waits for a condition. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`no ${what} within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A daemon below the folder of a simulated node; its storages are known from the requests alone. */
export class BareDaemon implements AsyncDisposable {
  #log = "";
  readonly #reading: Promise<void>;

  private constructor(readonly child: Deno.ChildProcess, readonly folder: string) {
    this.#reading = this.#read();
  }

  /** Starts it; resolves when it answers. */
  static async start(folder: string): Promise<BareDaemon> {
    await Deno.mkdir(`${folder}/etc/pve/priv/storage`, { recursive: true });
    const child = lastingCommand(BINARY, {
      args: ["--root", folder, "daemon"],
      clearEnv: true,
      env: { TNBLOCK_LOGIN_BUDGET: "0" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const daemon = new BareDaemon(child, folder);
    await until("socket", () => Deno.lstat(daemon.socket).then(() => true, () => false));
    return daemon;
  }

  get socket(): string {
    return `${this.folder}/run/tnblock/daemon.sock`;
  }

  /** What it has written to its log so far. */
  get log(): string {
    return this.#log;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.child.stderr) {
      this.#log += decoder.decode(chunk, { stream: true });
    }
  }

  /** Sockets that it has open. */
  async sockets(): Promise<number> {
    const folder = `/proc/${this.child.pid}/fd`;
    const names = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
    const targets = names.map((name) => Deno.readLink(`${folder}/${name}`).catch(() => ""));
    return (await Promise.all(targets)).filter((target) => target.startsWith("socket:")).length;
  }

  /** Kills it: a test that has failed does not wait for what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.status;
    await this.#reading;
  }
}

/** The section of a storage on a simulator, at another port where a proxy stands before it. */
export function section(
  { ready }: SimulatorProcess,
  port: number = ready.port,
): Record<string, unknown> {
  return { ...nvmeConfig(ready), "tnb-api-port": port };
}

/** A request's line. */
export function requestLine(
  id: string,
  method: string,
  config: Record<string, unknown>,
  args: Record<string, unknown> = {},
): string {
  const request = { protocol: 1, id, method, storage: "san", config, args, deadlineMs: 25_000 };
  return `${JSON.stringify({ ...request, node: "pve1", pveApi: 13 })}\n`;
}

/** One connection to the daemon's socket. */
export class Caller {
  readonly socket: Socket;
  text = "";
  /** Resolves with all that was heard when the connection has ended. */
  readonly closed: Promise<string>;

  constructor(path: string, line: string) {
    this.socket = connect({ path, allowHalfOpen: true });
    this.socket.setEncoding("utf8");
    this.socket.on("data", (text: string) => this.text += text);
    this.socket.on("error", () => {});
    this.socket.on("end", () => this.socket.end());
    this.closed = new Promise((resolve) => this.socket.on("close", () => resolve(this.text)));
    this.socket.write(line);
  }

  /** Resolves when the daemon has taken the line. */
  async taken(): Promise<void> {
    await until("blank", () => this.text.startsWith(" "));
  }
}
