/**
 * A TrueNAS that does only what a test tells it: a WebSocket server over TLS for the nasty cases
 * (answers out of order, half frames, garbage, silence, close codes). The well-behaved one is the
 * simulator.
 */
import { X509Certificate } from "node:crypto";
import { createServer, type Server as HttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { generate } from "selfsigned";
import { type WebSocket, WebSocketServer } from "ws";

/** A certificate with its key, PEM. */
export interface TestCertificate {
  readonly key: string;
  readonly cert: string;
  /** The certificate to trust as an authority. */
  readonly ca: string;
  /** SHA-256, upper case with colons. */
  readonly fingerprint: string;
}

const LOOPBACK = [
  { type: 2 as const, value: "localhost" },
  { type: 7 as const, ip: "127.0.0.1" },
  { type: 7 as const, ip: "::1" },
];
const OTHER_HOST = [{ type: 2 as const, value: "other.example" }];
const made = new Map<string, Promise<TestCertificate>>();

async function make(kind: "self-signed" | "other-host" | "issued"): Promise<TestCertificate> {
  const options = { keyType: "ec" as const, algorithm: "sha256" };
  const altNames = kind === "other-host" ? OTHER_HOST : LOOPBACK;
  const issuer = kind === "issued"
    ? await generate([{ name: "commonName", value: "Test authority" }], {
      ...options,
      extensions: [
        { name: "basicConstraints", cA: true, critical: true },
        { name: "keyUsage", keyCertSign: true, digitalSignature: true, critical: true },
      ],
    })
    : undefined;
  const own = await generate([{ name: "commonName", value: "scripted.example" }], {
    ...options,
    extensions: [
      { name: "basicConstraints", cA: issuer === undefined, critical: true },
      {
        name: "keyUsage",
        digitalSignature: true,
        keyEncipherment: true,
        keyCertSign: issuer === undefined,
      },
      { name: "extKeyUsage", serverAuth: true },
      { name: "subjectAltName", altNames },
    ],
    ...(issuer === undefined ? {} : { ca: { key: issuer.private, cert: issuer.cert } }),
  });
  return {
    key: own.private,
    cert: own.cert,
    ca: issuer?.cert ?? own.cert,
    fingerprint: new X509Certificate(own.cert).fingerprint256,
  };
}

/** A certificate, made once for the whole process; no key is ever stored. */
export function testCertificate(
  kind: "self-signed" | "other-host" | "issued" = "self-signed",
): Promise<TestCertificate> {
  const known = made.get(kind) ?? make(kind);
  made.set(kind, known);
  return known;
}

/** A request as it came. */
export interface ScriptedRequest {
  readonly id: number;
  readonly method: string;
  readonly params: readonly unknown[];
}

/** One client's connection. */
export class ScriptedConnection {
  readonly requests: ScriptedRequest[] = [];
  readonly path: string;
  readonly #ws: WebSocket;
  readonly #raw: Socket;

  constructor(ws: WebSocket, raw: Socket, path: string) {
    this.#ws = ws;
    this.#raw = raw;
    this.path = path;
  }

  /** Sends any text as one frame. */
  text(text: string): void {
    this.#ws.send(text);
  }

  binary(bytes: Uint8Array): void {
    this.#ws.send(bytes);
  }

  result(id: number, result: unknown): void {
    this.text(JSON.stringify({ jsonrpc: "2.0", id, result }));
  }

  error(id: number | null, error: unknown): void {
    this.text(JSON.stringify({ jsonrpc: "2.0", id, error }));
  }

  notify(params: unknown): void {
    this.text(JSON.stringify({ jsonrpc: "2.0", method: "collection_update", params }));
  }

  /** Ends with a close frame. */
  close(code: number, reason = ""): void {
    this.#ws.close(code, reason);
  }

  /** Writes bytes below the WebSocket. */
  raw(bytes: Uint8Array): void {
    this.#raw.write(bytes);
  }

  /** Hangs up without a word. */
  cut(): void {
    this.#raw.destroy();
  }
}

/** How the array behaves. */
export interface Script {
  readonly certificate?: TestCertificate;
  /** Paths that are upgraded; default: all. Others get 404. */
  readonly paths?: readonly string[];
  /** Answers every upgrade with this status instead. */
  readonly status?: number;
  /** Whether pings are answered; default true. */
  readonly pongs?: boolean;
  /** Called when a client has been upgraded. */
  readonly onConnect?: (connection: ScriptedConnection) => void;
  /** Called for every request. */
  readonly onRequest?: (request: ScriptedRequest, connection: ScriptedConnection) => void;
  /** Address to listen on; default 127.0.0.1. */
  readonly host?: string;
}

/** A running one. */
export interface ScriptedArray {
  readonly port: number;
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  readonly fingerprint: string;
  readonly connections: readonly ScriptedConnection[];
  /** Paths of all upgrade requests, refused ones too. */
  readonly upgrades: readonly string[];
  /** TCP connections that are open now. */
  readonly open: number;
  /** Resolves when no connection is open any more. */
  idle(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one on a free port. */
export async function startScriptedArray(script: Script = {}): Promise<ScriptedArray> {
  const certificate = script.certificate ?? await testCertificate();
  const server: HttpsServer = createServer({ key: certificate.key, cert: certificate.cert });
  const webSockets = new WebSocketServer({
    noServer: true,
    autoPong: script.pongs ?? true,
    maxPayload: 256 * 1024,
  });
  const connections: ScriptedConnection[] = [];
  const upgrades: string[] = [];
  const sockets = new Set<Socket>();
  const whenIdle = new Set<() => void>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => {
      sockets.delete(socket);
      if (sockets.size === 0) { for (const resolve of whenIdle) resolve(); }
    });
  });
  server.on("tlsClientError", () => {});
  server.on("upgrade", (request, socket: Socket, head: Uint8Array) => {
    const path = request.url ?? "";
    upgrades.push(path);
    const status = script.status ??
      (script.paths === undefined || script.paths.includes(path) ? 101 : 404);
    socket.on("error", () => {});
    if (status !== 101) {
      socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    // deno-lint-ignore no-explicit-any
    webSockets.handleUpgrade(request, socket as any, head as any, (ws) => {
      const connection = new ScriptedConnection(ws, socket, path);
      connections.push(connection);
      ws.on("error", () => ws.terminate());
      ws.on("message", (data) => {
        const message = JSON.parse(String(data));
        connection.requests.push(message);
        script.onRequest?.(message, connection);
      });
      script.onConnect?.(connection);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, script.host ?? "127.0.0.1", resolve));
  const port = (server.address() as AddressInfo).port;
  return {
    port,
    address: `127.0.0.1:${port}`,
    fingerprint: certificate.fingerprint,
    connections,
    upgrades,
    get open() {
      return sockets.size;
    },
    idle: () =>
      new Promise((resolve) => {
        if (sockets.size === 0) resolve();
        else whenIdle.add(resolve);
      }),
    stop: async () => {
      for (const ws of webSockets.clients) ws.terminate();
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Answers what every session asks at first; true when it did. */
export function answerLogin(
  request: ScriptedRequest,
  connection: ScriptedConnection,
  version = "25.10.6",
): boolean {
  switch (request.method) {
    case "auth.login_ex":
      connection.result(request.id, { response_type: "SUCCESS", user_info: null });
      return true;
    case "core.set_options":
      connection.result(request.id, { legacy_jobs: false });
      return true;
    case "system.version":
      connection.result(request.id, version);
      return true;
    default:
      return false;
  }
}
