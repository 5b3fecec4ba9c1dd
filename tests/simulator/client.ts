/** A bare JSON-RPC client for the simulator's own tests; it shares nothing with the product's. */

import WebSocket from "ws";

// deno-lint-ignore no-explicit-any
export type Any = any;

const PATIENCE_MS = 10_000;

/** Rejects when something does not happen within the patience of a test. */
export function inTime<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing came in time`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export interface Close {
  readonly close_code: number;
  readonly close_reason: string;
}

export class Client {
  readonly notifications: Any[] = [];
  private lastId = 0;
  private readonly waiting = new Map<number, (message: Any) => void>();
  private nextRaw: ((message: Any) => void) | undefined;
  private readonly watchers = new Set<() => void>();
  readonly closed: Promise<Close>;

  private constructor(private readonly socket: WebSocket) {
    socket.on("message", (data) => this.receive(JSON.parse(String(data))));
    socket.on("error", () => {});
    this.closed = new Promise((resolve) =>
      socket.on("close", (code, reason) => {
        const close = { close_code: code, close_reason: String(reason) };
        this.nextRaw?.(close);
        for (const answer of this.waiting.values()) answer({ closed: close });
        this.waiting.clear();
        resolve(close);
      })
    );
  }

  static async open(port: number, path = "/api/current"): Promise<Client> {
    const socket = new WebSocket(`wss://127.0.0.1:${port}${path}`, { rejectUnauthorized: false });
    const client = new Client(socket);
    await inTime(
      new Promise<void>((resolve, reject) => {
        socket.on("open", resolve);
        socket.on("error", reject);
      }),
      "open",
    );
    return client;
  }

  private receive(message: Any): void {
    if (message.method !== undefined) {
      this.notifications.push(message);
      for (const watcher of this.watchers) watcher();
      return;
    }
    const answer = this.waiting.get(message.id);
    if (answer !== undefined && this.nextRaw === undefined) {
      this.waiting.delete(message.id);
      answer(message);
    } else this.nextRaw?.(message);
  }

  /** The whole answer: `result` or `error`, or `closed`. */
  send(method: string, params: unknown[] = []): Promise<Any> {
    this.lastId += 1;
    const id = this.lastId;
    const answer = new Promise<Any>((resolve) => this.waiting.set(id, resolve));
    this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return inTime(answer, method);
  }

  /** The result; throws the error's text otherwise. */
  async call(method: string, ...params: unknown[]): Promise<Any> {
    const answer = await this.send(method, params);
    if ("result" in answer) return answer.result;
    throw new Error(`${method}: ${answer.error?.data?.reason ?? JSON.stringify(answer)}`);
  }

  /** Sends a frame as it is; resolves with whatever comes next, a close included. */
  raw(data: string | Uint8Array): Promise<Any> {
    const answer = new Promise<Any>((resolve) => this.nextRaw = resolve);
    this.socket.send(data);
    return inTime(answer, "raw frame").finally(() => this.nextRaw = undefined);
  }

  /** Waits for a notification that fits. */
  event(fits: (params: Any) => boolean): Promise<Any> {
    const found = new Promise<Any>((resolve) => {
      const look = () => {
        const hit = this.notifications.find((message) => fits(message.params));
        if (hit === undefined) return;
        this.watchers.delete(look);
        resolve(hit.params);
      };
      this.watchers.add(look);
      look();
    });
    return inTime(found, "event");
  }

  login(user: string, key: string): Promise<Any> {
    return this.call("auth.login_ex", {
      mechanism: "API_KEY_PLAIN",
      username: user,
      api_key: key,
      login_options: { user_info: false },
    });
  }

  close(): void {
    this.socket.terminate();
  }
}
