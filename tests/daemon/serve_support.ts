/** A socket served beside a place, and callers of it that behave as badly as one likes. */
import { connect, type Socket } from "node:net";
import { lineLog } from "../../src/common/log.ts";
import { ArrayLinks } from "../../src/daemon/array_link.ts";
import { DAEMON_SOCKET, serve, type Serving, type ServingOptions } from "../../src/daemon/serve.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { Place, Reply } from "../support/place.ts";

/** A service under test: the daemon's socket and its sessions, without memories. */
export interface TestService extends AsyncDisposable {
  readonly serving: Serving;
  readonly log: string[];
  readonly calls: string[];
  ask(method: string, args?: Record<string, unknown>): Promise<Reply>;
  // deno-lint-ignore no-explicit-any
  must(method: string, args?: Record<string, unknown>): Promise<any>;
  /** Connects and sends a request; what comes is the caller's. */
  call(method: string, args?: Record<string, unknown>): Caller;
  /** Resolves when nothing is under way any more. */
  idle(): Promise<void>;
}

/** One connection. */
export class Caller {
  readonly socket: Socket;
  /** All that came. */
  text = "";
  /** Resolves with all that came when the other side has closed. */
  readonly closed: Promise<string>;

  constructor(path: string, text: string) {
    this.socket = connect({ path });
    this.socket.on("data", (chunk) => this.text += String(chunk));
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => this.socket.on("close", () => resolve(this.text)));
    if (text !== "") this.socket.write(text);
  }

  /** Resolves when the request was taken. */
  async taken(): Promise<void> {
    while (this.text === "") await new Promise((resolve) => this.socket.once("data", resolve));
  }
}

/** A request line. */
export function requestLine(place: Place, method: string, args: Record<string, unknown>): string {
  const request = place.request(method, args, { deadlineMs: 30_000 });
  return `${JSON.stringify({ ...request, id: "7f3a" })}\n`;
}

/** Serves the socket of a place. */
export async function serviceOn(
  place: Place,
  options: ServingOptions = {},
): Promise<TestService> {
  const host = linuxHost({ root: place.directory, nodeName: "pve1" });
  const log: string[] = [];
  const calls: string[] = [];
  const base = { host, log: lineLog((line) => log.push(line), () => 2), limitLogins: false };
  const links = new ArrayLinks(base);
  const serving = await serve({
    ...base,
    setDebugLevel: () => {},
    sessions: links,
    onArrayCall: ({ method }) => calls.push(method),
  }, options);
  const ask = async (method: string, args: Record<string, unknown> = {}): Promise<Reply> =>
    JSON.parse(
      await host.askLocal(DAEMON_SOCKET, requestLine(place, method, args), {
        deadlineMs: 40_000,
        maxLine: 1 << 26,
      }),
    );
  return {
    serving,
    log,
    calls,
    ask,
    must: async (method, args) => {
      const reply = await ask(method, args);
      if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
      return reply.result;
    },
    call: (method, args = {}) =>
      new Caller(`${place.directory}${DAEMON_SOCKET}`, requestLine(place, method, args)),
    idle: () => serving.idle(),
    [Symbol.asyncDispose]: async () => {
      await serving.drain(20_000);
      links.close();
      await serving.close();
    },
  };
}
