/**
 * A REST API that does only what a test tells it: an HTTPS server for the nasty cases. The
 * well-behaved one is the simulator.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { type TestCertificate, testCertificate } from "./scripted_array.ts";

/** A request as it came. */
export interface RestRequest {
  /** `GET /api/v2.0/system/version` */
  readonly line: string;
  readonly authorization: string | undefined;
  readonly body: string;
  /** The number of its connection, from 1. */
  readonly connection: number;
}

/** How one request is answered. */
export interface RestReply {
  json(value: unknown, status?: number): void;
  text(status: number, type: string, text: string, headers?: Record<string, string>): void;
  /** Writes bytes below HTTP. */
  raw(text: string): void;
  /** Hangs up without a word. */
  cut(): void;
}

/** How the server behaves; `system/version` is answered with 25.10.6 unless `onRequest` answers it. */
export interface RestScript {
  readonly certificate?: TestCertificate;
  /** Without TLS. */
  readonly plain?: boolean;
  /** True when it has taken care of the request. */
  readonly onRequest?: (request: RestRequest, reply: RestReply) => boolean | void;
}

/** A running one. */
export interface RestServer extends AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  readonly fingerprint: string;
  readonly requests: readonly RestRequest[];
  /** TCP connections so far. */
  readonly connections: number;
  /** Hangs up on all connections. */
  cutAll(): void;
  /** Sends bytes on every connection, asked or not. */
  say(text: string): void;
  /** Resolves when no connection is open any more. */
  idle(): Promise<void>;
}

/** Starts one on a free port. */
export async function startRestServer(script: RestScript = {}): Promise<RestServer> {
  const certificate = script.certificate ?? await testCertificate();
  const requests: RestRequest[] = [];
  const sockets = new Set<Socket>();
  const tlsSockets = new Map<unknown, number>();
  const whenIdle = new Set<() => void>();
  let connections = 0;
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const socket = request.socket;
    if (!tlsSockets.has(socket)) tlsSockets.set(socket, tlsSockets.size + 1);
    let body = "";
    for await (const chunk of request) body += chunk;
    const seen: RestRequest = {
      line: `${request.method} ${request.url}`,
      authorization: request.headers.authorization,
      body,
      connection: tlsSockets.get(socket) ?? 0,
    };
    requests.push(seen);
    const reply: RestReply = {
      json: (value, status = 200) =>
        reply.text(status, "application/json; charset=utf-8", JSON.stringify(value)),
      text: (status, type, text, headers = {}) => {
        response.writeHead(status, { "content-type": type, ...headers });
        response.end(text);
      },
      raw: (text) => void socket.write(text),
      cut: () => socket.destroy(),
    };
    if (script.onRequest?.(seen, reply) === true) return;
    if (seen.line.endsWith("/system/version")) reply.json("25.10.6");
    else reply.json([]);
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse) =>
    void handle(request, response).catch(() => {});
  const server = script.plain
    ? createServer(onRequest)
    : createTlsServer({ key: certificate.key, cert: certificate.cert }, onRequest);
  server.on("connection", (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => {
      sockets.delete(socket);
      if (sockets.size === 0) { for (const resolve of whenIdle) resolve(); }
    });
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    fingerprint: certificate.fingerprint,
    requests,
    get connections() {
      return connections;
    },
    cutAll: () => sockets.forEach((socket) => socket.destroy()),
    say: (text) => {
      for (const socket of tlsSockets.keys()) (socket as Socket).write(text);
    },
    idle: () =>
      new Promise((resolve) => {
        if (sockets.size === 0) resolve();
        else whenIdle.add(resolve);
      }),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
