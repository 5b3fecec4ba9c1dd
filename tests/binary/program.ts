/** Running the compiled program as a user does. */
import { lastingCommand } from "../support/child.ts";

/** Path of the binary that `deno task build` made. */
export const BINARY = new URL("../../dist/tnblock", import.meta.url).pathname;

/** How a run ended. */
export interface Run {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the binary with nothing in its environment but what is given. */
export async function run(
  args: readonly string[],
  options: { input?: string; env?: Record<string, string>; cwd?: string } = {},
): Promise<Run> {
  const child = lastingCommand(BINARY, {
    args: [...args],
    env: options.env ?? {},
    clearEnv: true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: options.input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (options.input !== undefined) {
    const writer = child.stdin.getWriter();
    // A program that has heard enough closes its end.
    await writer.write(new TextEncoder().encode(options.input)).then(() => writer.close()).catch(
      () => {},
    );
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { status: code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A running simulator process. */
export class SimulatorProcess implements AsyncDisposable {
  // deno-lint-ignore no-explicit-any
  private constructor(readonly child: Deno.ChildProcess, readonly ready: any) {}

  /** Starts `tnblock simulate` and waits for its ready line. */
  static async start(args: readonly string[]): Promise<SimulatorProcess> {
    const child = lastingCommand(BINARY, {
      args: ["simulate", ...args],
      clearEnv: true,
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout.values({ preventCancel: true })) {
      text += decoder.decode(chunk, { stream: true });
      if (text.includes("\n")) break;
    }
    return new SimulatorProcess(child, JSON.parse(text));
  }

  /** Lets the played node know the key. */
  async writeSecrets(folder: string): Promise<void> {
    const text = JSON.stringify({ "tnb-api-key": this.ready.apiKey });
    await Deno.writeTextFile(`${folder}/etc/pve/priv/storage/san.tnblock`, text);
  }

  /** Sets the faults. */
  async faults(faults: readonly Record<string, unknown>[]): Promise<void> {
    const body = JSON.stringify(faults);
    const response = await fetch(new URL("/faults", this.ready.control), { method: "POST", body });
    await response.body?.cancel();
  }

  /** What `GET /objects` or `GET /stats` tells. */
  // deno-lint-ignore no-explicit-any
  async get(what: "objects" | "stats"): Promise<any> {
    return await (await fetch(new URL(`/${what}`, this.ready.control))).json();
  }

  /** Ends it; returns its exit status. */
  async stop(): Promise<number> {
    this.child.kill("SIGTERM");
    const [{ code }] = await Promise.all([this.child.status, this.child.stdout.cancel()]);
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop();
    } catch {
      // It has ended already.
    }
  }
}

/** Starts a hook below a root and sends it one request; the caller reads the reply, or does not. */
export async function startHook(
  folder: string,
  request: Record<string, unknown>,
): Promise<Deno.ChildProcess> {
  const child = lastingCommand(BINARY, {
    args: ["hook"],
    env: { TNBLOCK_ROOT: folder },
    clearEnv: true,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
  await writer.close();
  return child;
}

/** The section of an NVMe/TCP storage on a simulator. */
// deno-lint-ignore no-explicit-any
export function nvmeConfig(ready: any): Record<string, unknown> {
  return {
    type: "tnblock",
    "tnb-api-host": ready.host,
    "tnb-api-port": ready.port,
    "tnb-api-user": ready.user,
    "tnb-tls-fingerprint": ready.fingerprint,
    "tnb-dataset": ready.dataset,
    "tnb-transport-mode": "nvme-tcp",
    "tnb-subsystem-nqn": ready.subsystemNqn,
    "tnb-portals": ready.portals.nvme.join(","),
  };
}
