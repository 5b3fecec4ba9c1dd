/**
 * One WebSocket connection: frames in, answers and events out, within the limits of the real server
 * (size of a request, calls at once, silence).
 */

import { Buffer } from "node:buffer";
import type { WebSocket } from "ws";
import type { Json, JsonObject } from "./json.ts";
import { wireText } from "./json.ts";
import { Dispatcher, NoAnswer } from "./dispatch.ts";
import { errorObject, RpcError } from "./errors.ts";
import { BadMessage, parseMessage } from "./message.ts";
import type { Message } from "./message.ts";
import { Slots } from "./queue.ts";
import type { RateLimit } from "./rate_limit.ts";
import type { Dialect } from "./release.ts";
import { Session } from "./session.ts";
import type { Event, Sim } from "./sim.ts";

const BEFORE_LOGIN = 8192;
const AFTER_LOGIN = 65_536;
const RUNNING = 10;
const IN_ALL = 20;

/** A request with its answer, as a test may look at them. */
export interface Exchange {
  /** The models in force. */
  readonly dialect: Dialect;
  readonly method: string;
  readonly params: Json[];
  /** As it stood on the wire; absent when no answer was sent. */
  readonly result?: Json;
  readonly error?: JsonObject;
  /** Whether the method answers with a job's number here. */
  readonly job: boolean;
}

export interface ConnectionSettings {
  readonly sim: Sim;
  readonly socket: WebSocket;
  readonly address: string;
  readonly dialect: Dialect;
  readonly limit: RateLimit;
  readonly idleMs: number;
  readonly onExchange?: ((exchange: Exchange) => void) | undefined;
}

export class Connection {
  readonly session: Session;
  private readonly dispatcher: Dispatcher;
  private readonly slots = new Slots(RUNNING);
  private active = 0;
  private idle: ReturnType<typeof setTimeout> | undefined;
  private readonly unlisten: () => void;

  constructor(private readonly settings: ConnectionSettings) {
    const { sim, socket, address, dialect, limit } = settings;
    this.session = new Session(address, sim.release);
    this.dispatcher = new Dispatcher(sim, this.session, dialect, limit);
    this.unlisten = sim.onEvent((event) => this.tell(event));
    socket.on("message", (data, binary) => this.receive(data, binary));
    socket.on("ping", () => this.heard());
    socket.on("error", () => socket.terminate());
    socket.on("close", () => this.gone());
    this.heard();
  }

  /** Ends it without a close frame, as a proxy or a broken line does. */
  cut(): void {
    this.settings.socket.terminate();
  }

  private gone(): void {
    this.session.closed = true;
    this.unlisten();
    clearTimeout(this.idle);
  }

  /** The server sent something: the proxy's patience starts anew. */
  private heard(): void {
    clearTimeout(this.idle);
    if (this.session.closed) return;
    this.idle = setTimeout(() => this.cut(), this.settings.idleMs);
  }

  private send(value: unknown): string {
    const text = wireText(value);
    const { socket, sim } = this.settings;
    if (socket.readyState === socket.OPEN) {
      sim.stats.bytesOut += Buffer.byteLength(text);
      socket.send(text);
      this.heard();
    }
    return text;
  }

  private receive(data: unknown, binary: boolean): void {
    const { socket, sim } = this.settings;
    if (binary) {
      socket.close(1003, "Invalid websocket message type: <WSMsgType.BINARY: 2>");
      return;
    }
    const text = String(data);
    sim.stats.bytesIn += Buffer.byteLength(text);
    const most = this.session.user === undefined ? BEFORE_LOGIN : AFTER_LOGIN;
    if (text.length > most) {
      if (this.session.user === undefined) {
        socket.close(1007, "Anonymous connection max message length is 8 kB");
      } else socket.close(1009, "Max message length is 64 kB");
      return;
    }
    try {
      this.accept(parseMessage(text));
    } catch (error) {
      const id = error instanceof BadMessage ? error.id : null;
      this.send({ jsonrpc: "2.0", error: errorObject(error, this.frames), id });
    }
  }

  private get frames(): boolean {
    return this.settings.sim.release.major < 2600;
  }

  private accept(message: Message): void {
    if (this.active >= IN_ALL) {
      const text = `Maximum number of concurrent calls (${IN_ALL}) has exceeded`;
      this.answer(message, { error: errorObject(new RpcError(-32000, text), this.frames) });
      return;
    }
    this.active += 1;
    // A call that waits for one of the slots counts as well.
    this.slots.run(() => this.perform(message)).finally(() => this.active -= 1);
  }

  private async perform(message: Message): Promise<void> {
    const request = { method: message.method, params: message.params, id: message.id ?? null };
    try {
      this.answer(message, { result: await this.dispatcher.run(request) });
    } catch (error) {
      if (error instanceof NoAnswer) {
        if (error.cut) this.cut();
      } else this.answer(message, { error: errorObject(error, this.frames) });
    }
  }

  private answer(message: Message, outcome: { result: Json } | { error: JsonObject }): void {
    const text = message.id === undefined
      ? wireText(outcome)
      : this.send({ jsonrpc: "2.0", ...outcome, id: message.id });
    const { onExchange, dialect } = this.settings;
    if (onExchange === undefined) return;
    const wire = JSON.parse(text);
    onExchange({
      dialect,
      method: message.method,
      params: message.params,
      ...("result" in wire ? { result: wire.result } : { error: wire.error }),
      job: this.session.options.legacy_jobs || this.settings.sim.release.major === 2504,
    });
  }

  private tell(event: Event): void {
    const { owner, ...params } = event;
    const { session } = this;
    if (session.user === undefined) return;
    const names = [...session.subscriptions.values()];
    if (!names.includes("*") && !names.includes(event.collection)) return;
    if (owner !== undefined && owner !== session.user.name && !session.fullAdmin) return;
    this.send({ jsonrpc: "2.0", method: "collection_update", params });
  }
}
