/**
 * The REST API v2.0 of 25.04 and 25.10: each request authenticates by itself and becomes one call of
 * the same methods as over the WebSocket. In release 26 nothing answers there but "Not Found".
 */

import { Buffer } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Exchange } from "./connection.ts";
import { Dispatcher, NoAnswer } from "./dispatch.ts";
import { CallError, describe, errorObject, RpcError, ValidationErrors } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { wireText } from "./json.ts";
import { RateLimit } from "./rate_limit.ts";
import { BadRequest, restArguments } from "./rest_arguments.ts";
import type { Place } from "./rest_routes.ts";
import { findRoute } from "./rest_routes.ts";
import { Session } from "./session.ts";
import type { Sim } from "./sim.ts";
import type { User } from "./world.ts";

export const REST_PATH = "/api/v2.0";

/** aiohttp's own limit on bodies. */
const LARGEST_BODY = 1024 * 1024;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

export interface RestSettings {
  readonly sim: Sim;
  /** The proxy answers 504 when the server was silent for this long, in ms. */
  readonly idleMs: number;
  readonly onExchange?: ((exchange: Exchange) => void) | undefined;
}

/** The REST side of the front door. */
export class Rest {
  /** Connections that have carried a request. */
  private readonly sockets = new Set<Socket>();

  constructor(private readonly settings: RestSettings) {}

  /** Cuts every connection. */
  cutAll(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Answers a request below {@link REST_PATH}. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    const { sim, idleMs } = this.settings;
    const { socket } = request;
    if (!this.sockets.has(socket)) {
      this.sockets.add(socket);
      sim.stats.connections += 1;
      socket.on("close", () => this.sockets.delete(socket));
    }
    const reply = ({ status, type, text }: Answer) => {
      clearTimeout(proxy);
      if (response.writableEnded || socket.destroyed) return;
      sim.stats.bytesOut += Buffer.byteLength(text);
      response.writeHead(status, {
        "content-type": type,
        "content-length": Buffer.byteLength(text),
      });
      response.end(text);
    };
    const proxy = setTimeout(() => reply(gatewayTimeout()), idleMs);
    response.once("close", () => clearTimeout(proxy));
    this.answer(request).then(reply, (error) => {
      if (!(error instanceof NoAnswer)) reply(plain(500, "500 Internal Server Error"));
      else if (error.cut) socket.destroy();
    });
  }

  private async answer(request: IncomingMessage): Promise<Answer> {
    const { sim } = this.settings;
    const body = await readBody(request);
    if (body === undefined) return plain(413, "413: Request Entity Too Large");
    sim.stats.bytesIn += Buffer.byteLength(body);
    const url = request.url ?? "";
    const [path = "", search = ""] = url.slice(REST_PATH.length + 1).split("?", 2);
    const verb = request.method ?? "";
    const place = sim.release.major >= 2600 ? undefined : findRoute(sim.release, verb, path);
    if (place === undefined) return plain(404, "404: Not Found");
    if (place === "other") return plain(405, "405: Method Not Allowed");
    const user = this.authenticate(request.headers.authorization);
    if (typeof user === "number") return refusal(user);
    const session = new Session(request.socket.remoteAddress ?? "", sim.release);
    sim.stats.logins += 1;
    session.login(user, "API_KEY", sim.now());
    let params: Json[];
    try {
      params = restArguments(place, verb, new URLSearchParams(search), body);
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error;
      const errno = error.errno === undefined ? {} : { errno: error.errno };
      return json(400, { message: error.message, ...errno });
    }
    // Only a full administrator's list of what he may do names REST at all.
    if (!session.fullAdmin) return plain(403, "");
    return await this.call(place, params, session);
  }

  /** The user of the key, or the HTTP status that refuses it. */
  private authenticate(header: string | undefined): User | number {
    if (header?.startsWith("Bearer ") !== true) return 401;
    const key = header.slice("Bearer ".length);
    const id = Number(/^(\d+)(-|$)/.exec(key)?.[1] ?? NaN);
    if (Number.isNaN(id)) return 401;
    const users = [...this.settings.sim.world.users.values()];
    // The look-up of the number is not guarded: an unknown one is an exception of the server.
    if (!users.some((user) => user.apiKeyId === id)) return 500;
    return users.find((user) => user.apiKey === key) ?? 401;
  }

  private async call(place: Place, params: Json[], session: Session): Promise<Answer> {
    const { sim, onExchange } = this.settings;
    const { method } = place.route.model;
    const { dialect } = sim.release;
    const tell = (outcome: { result: Json } | { error: JsonObject }) =>
      onExchange?.({ dialect, method, params, job: true, ...outcome });
    try {
      // Whoever is authenticated is not counted.
      const dispatcher = new Dispatcher(sim, session, dialect, new RateLimit(0, sim.now));
      const result = await dispatcher.run({ method, params, id: null });
      const text = wireText(result);
      tell({ result: JSON.parse(text) });
      return { status: 200, type: "application/json; charset=utf-8", text };
    } catch (error) {
      if (error instanceof NoAnswer) throw error;
      tell({ error: errorObject(error, true) });
      return errorAnswer(error);
    }
  }
}

function errorAnswer(error: unknown): Answer {
  if (error instanceof CallError) {
    return json(422, { message: error.message, errno: error.errno });
  }
  if (error instanceof ValidationErrors) {
    const found: Record<string, JsonObject[]> = {};
    for (const [attribute, message, errno] of error.triples) {
      (found[attribute ?? "null"] ??= []).push({ message, errno });
    }
    return json(422, found);
  }
  // A route without its method.
  if (error instanceof RpcError) return plain(404, "404: Not Found");
  const { kind } = describe(error);
  const message = error instanceof Error ? error.message : String(error);
  if (kind === "MatchNotFound") return json(404, { message });
  return json(500, {
    message,
    traceback: `Traceback (most recent call last):\n${kind}: ${message}`,
  });
}

function refusal(status: number): Answer {
  return status === 401
    ? plain(401, "Invalid API key")
    : plain(500, "500 Internal Server Error\n\nServer got itself in trouble");
}

function json(status: number, value: Json): Answer {
  return { status, type: "application/json; charset=utf-8", text: wireText(value) };
}

function plain(status: number, text: string): Answer {
  return { status, type: "text/plain; charset=utf-8", text };
}

function gatewayTimeout(): Answer {
  const title = "504 Gateway Time-out";
  const text = `<html>\r\n<head><title>${title}</title></head>\r\n` +
    `<body>\r\n<center><h1>${title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n`;
  return { status: 504, type: "text/html", text };
}

/** The whole body, or undefined when it is too long. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length <= LARGEST_BODY) chunks.push(chunk);
  }
  return length > LARGEST_BODY ? undefined : Buffer.concat(chunks).toString("utf8");
}
