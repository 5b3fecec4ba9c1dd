/** A daemon whose storages stand in the node's storage.cfg, as on a real node. */
import { silentLog } from "../../src/common/log.ts";
import { type Daemon, type DaemonOptions, startDaemon } from "../../src/daemon/daemon.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { parseState, type State, STATUS_METHOD } from "../../src/daemon/state.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { Place, Reply } from "../support/place.ts";

/** Writes the node's storage.cfg: each storage as the place configures it, with these changes. */
export async function writeStorageCfg(
  place: Place,
  storages: Readonly<Record<string, Record<string, unknown>>> = { san: {} },
): Promise<void> {
  const text = Object.entries(storages).map(([id, change]) => {
    const { type, content: _, ...config } = place.config(change);
    const lines = Object.entries(config).map(([key, value]) => `\t${key} ${value}\n`);
    return `${type}: ${id}\n${lines.join("")}\tcontent images\n`;
  });
  await Deno.mkdir(`${place.directory}/etc/pve`, { recursive: true });
  await Deno.writeTextFile(`${place.directory}/etc/pve/storage.cfg`, text.join("\n"));
}

/** Starts a daemon on the node below a folder. */
export async function daemonIn(
  directory: string,
  options: Partial<DaemonOptions> = {},
): Promise<{ readonly host: Host; readonly daemon: Daemon } & AsyncDisposable> {
  const host = linuxHost({ root: directory });
  const daemon = await startDaemon({
    host,
    log: silentLog,
    setDebugLevel: () => {},
    limitLogins: false,
    ...options,
  });
  return { host, daemon, [Symbol.asyncDispose]: () => daemon.stop() };
}

/** Starts a daemon on the first node. */
export async function statusDaemon(
  place: Place,
  options: Partial<DaemonOptions> = {},
): Promise<StatusDaemon> {
  const { host, daemon } = await daemonIn(place.directory, options);
  return new StatusDaemon(place, host, daemon);
}

/** A running daemon, asked over its socket. */
export class StatusDaemon implements AsyncDisposable {
  constructor(readonly place: Place, readonly host: Host, readonly daemon: Daemon) {}

  /** The answer line. */
  line(method: string, args: Record<string, unknown> = {}): Promise<string> {
    const request = this.place.request(method, args);
    return this.host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      deadlineMs: 45_000,
      maxLine: 1 << 26,
    });
  }

  async ask(method: string, args: Record<string, unknown> = {}): Promise<Reply> {
    return JSON.parse(await this.line(method, args));
  }

  async state(): Promise<State> {
    const { ok, result, error } = await this.ask(STATUS_METHOD);
    if (!ok) throw new Error(`${error?.message} [${error?.code}]`);
    return parseState(result);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon.stop();
  }
}
