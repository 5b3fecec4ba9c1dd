/** TLS, HTTP and the upgrade to WebSocket: the array's front door. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { X509Certificate } from "node:crypto";
import { generate } from "selfsigned";
import { WebSocketServer } from "ws";
import { Connection } from "./connection.ts";
import type { Exchange } from "./connection.ts";
import { RateLimit } from "./rate_limit.ts";
import { dialectOf } from "./release.ts";
import { Rest, REST_PATH } from "./rest.ts";
import type { Sim } from "./sim.ts";

/** Far above any limit of the protocol, so that those answer and not this one. */
const LARGEST_FRAME = 16 * 1024 * 1024;
const KEEP_ALIVE_MS = 65_000;

export interface Door {
  readonly host: string;
  readonly port: number;
  /** SHA-256 of the certificate, hexadecimal with colons. */
  readonly fingerprint: string;
  /** For a door that is to take this one's place. */
  readonly certificate: Certificate;
  /** Forgets all logins, as after 30 days. */
  expireAll(): void;
  /** Cuts every connection. */
  cutAll(): void;
  close(): Promise<void>;
}

/** A certificate with its key, PEM. */
export interface Certificate {
  readonly private: string;
  readonly cert: string;
}

export interface DoorSettings {
  readonly sim: Sim;
  readonly address: string;
  readonly port: number;
  readonly idleMs: number;
  /** Default a new one. */
  readonly certificate?: Certificate | undefined;
  readonly onExchange?: ((exchange: Exchange) => void) | undefined;
}

export async function openDoor(settings: DoorSettings): Promise<Door> {
  const { sim, address, port } = settings;
  // Made in memory at each start: there is no key to keep or to lose.
  const pem = settings.certificate ?? await generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [{
      name: "subjectAltName",
      altNames: [{ type: 2, value: "localhost" }, { type: 7, ip: "127.0.0.1" }],
    }],
  });
  const limit = new RateLimit(sim.loginLimit, sim.now);
  const connections = new Set<Connection>();
  const sockets = new Set<Socket>();
  const rest = new Rest({ sim, idleMs: settings.idleMs, onExchange: settings.onExchange });
  const server = createServer({ key: pem.private, cert: pem.cert }, (request, response) => {
    if (request.url?.startsWith(`${REST_PATH}/`)) rest.serve(request, response);
    else serveHttp(sim, request, response);
  });
  // That of nginx, which is in front.
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  const webSockets = new WebSocketServer({
    noServer: true,
    maxPayload: LARGEST_FRAME,
    perMessageDeflate: false,
  });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("tlsClientError", () => {});
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head) => {
    socket.on("error", () => socket.destroy());
    const name = /^\/api\/([^/?]+)$/.exec(request.url ?? "")?.[1] ?? "";
    const dialect = dialectOf(sim.release, name);
    if (dialect === undefined) {
      socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      return;
    }
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      sim.stats.connections += 1;
      const connection = new Connection({
        sim,
        socket: webSocket,
        address: request.socket.remoteAddress ?? "",
        dialect,
        limit,
        idleMs: settings.idleMs,
        onExchange: settings.onExchange,
      });
      connections.add(connection);
      webSocket.on("close", () => connections.delete(connection));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, address, () => resolve());
  });
  return {
    host: address,
    port: (server.address() as AddressInfo).port,
    fingerprint: new X509Certificate(pem.cert).fingerprint256,
    certificate: { private: pem.private, cert: pem.cert },
    expireAll: () => {
      for (const connection of connections) connection.session.expire();
    },
    cutAll: () => {
      for (const connection of connections) connection.cut();
      rest.cutAll();
    },
    close: async () => {
      for (const connection of connections) connection.cut();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      webSockets.close();
      await closed;
    },
  };
}

function serveHttp(sim: Sim, request: IncomingMessage, response: ServerResponse): void {
  const path = (request.url ?? "").split("?")[0];
  const reply = (status: number, body: unknown) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (path === "/api/versions") reply(200, sim.release.dialects);
  else if (path === "/api/boot_id" && sim.release.major >= 2510) reply(200, sim.world.bootId);
  else reply(404, { message: "Not Found" });
}
