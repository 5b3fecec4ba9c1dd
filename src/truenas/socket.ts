/**
 * A WebSocket over TLS to one address, and the TLS connection below it, which `socket_https.ts` uses
 * too. No other file of the client touches the network.
 *
 * The TLS connection is made and judged first, by our own hands, and only then given to `ws` for the
 * upgrade. So a certificate can be pinned by its fingerprint, whoever issued it, on every runtime
 * (under bun `import "ws"` is bun's own implementation, which asks no `checkServerIdentity` when
 * verification is off), and nothing at all is sent to a server that is not the right one.
 */
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import WebSocket from "ws";
import { after, type WaitingClock } from "./clock.ts";
import { ArrayError } from "./errors.ts";
import { normaliseFingerprint } from "./fingerprint.ts";
import {
  closeError,
  connectError,
  distrust,
  frameError,
  givenUp,
  statusError,
  unreachable,
} from "./socket_errors.ts";
import type { Endpoint } from "./address.ts";

/** How the server proves who it is. */
export type Trust =
  /** By a certificate that the system's authorities vouch for, with the right host name. */
  | { readonly kind: "verified" }
  /** By a certificate that this authority (PEM text, one or more) vouches for, with the right host name. */
  | { readonly kind: "ca"; readonly pem: string }
  /** By this very certificate: SHA-256 of its DER form, 64 hex digits, colons as one likes. */
  | { readonly kind: "fingerprint"; readonly sha256: string };

/** What is needed to open a socket. */
export interface SocketOptions {
  readonly endpoint: Endpoint;
  /** E.g. `/api/v25.10.0`. */
  readonly path: string;
  readonly trust: Trust;
  /** Milliseconds for TCP, TLS and the upgrade together. */
  readonly deadlineMs: number;
  readonly clock: WaitingClock;
  readonly signal?: AbortSignal;
}

/** What a socket tells. Each is called in the order things happen; `onClosed` once, and last. */
export interface SocketEvents {
  onText(text: string): void;
  /** A frame that is no text. */
  onGarbage(what: string): void;
  onPong(): void;
  onClosed(error: ArrayError): void;
}

/** An open connection. */
export interface Socket {
  send(text: string): void;
  ping(): void;
  /** Says goodbye, and hangs up soon after when the server does not. */
  close(): void;
  /** Hangs up at once. */
  terminate(): void;
  /** Receives what the socket tells; nothing is lost between opening and this call. */
  listen(events: SocketEvents): void;
}

/** An answer may be many MB: a list of all datasets, or an error with stack frames. */
const MAX_PAYLOAD = 64 * 1024 * 1024;
/** Milliseconds for the server's own goodbye. */
const CLOSE_DEADLINE_MS = 2000;

/**
 * Opens a socket.
 *
 * @throws ArrayError `tls`, `unreachable`, `denied`, `config`, or `UnknownPathError`;
 *   always with the outcome `not-sent`.
 */
export async function openSocket(options: SocketOptions): Promise<Socket> {
  const started = options.clock.monotonicMs();
  const left = () => Math.max(1, options.deadlineMs - (options.clock.monotonicMs() - started));
  const tls = await dial(options, left());
  return await upgrade(tls, options, left());
}

/**
 * The SHA-256 fingerprint of whatever certificate the server shows, without trusting it: for the
 * hint of an error, and for a first look by the setup.
 */
export async function lookAtCertificate(
  options: Pick<SocketOptions, "endpoint" | "deadlineMs" | "clock" | "signal">,
): Promise<string | undefined> {
  const trust = { kind: "verified" } as const;
  const tls = await connect({ ...options, path: "", trust }, options.deadlineMs, {
    rejectUnauthorized: false,
  });
  const found = fingerprintOf(tls);
  tls.destroy();
  return found;
}

/**
 * A TLS connection to the right server: whoever sends on it sends to nobody else.
 *
 * @throws ArrayError `tls`, `unreachable`, `config`, `timeout`; always with the outcome `not-sent`.
 */
export async function dial(options: SocketOptions, deadlineMs: number): Promise<TLSSocket> {
  const { trust, endpoint } = options;
  if (trust.kind === "fingerprint") {
    const wanted = normaliseFingerprint(trust.sha256);
    if (wanted === undefined) {
      throw new ArrayError(
        "config",
        `Cannot connect to "${endpoint.text}": the fingerprint is not 64 hexadecimal digits`,
        { outcome: "not-sent" },
      );
    }
    const tls = await connect(options, deadlineMs, { rejectUnauthorized: false });
    const found = fingerprintOf(tls);
    if (found !== wanted) {
      tls.destroy();
      throw distrust(endpoint, "its certificate is not the one that is pinned", found);
    }
    return tls;
  }
  try {
    return await connect(options, deadlineMs, {
      rejectUnauthorized: true,
      ...(trust.kind === "ca" ? { ca: trust.pem } : {}),
    });
  } catch (error) {
    if (!(error instanceof ArrayError) || error.code !== "tls") throw error;
    const found = await lookAtCertificate({ ...options, deadlineMs }).catch(() => undefined);
    throw distrust(endpoint, error.reason ?? "its certificate is not trusted", found);
  }
}

function fingerprintOf(tls: TLSSocket): string | undefined {
  const certificate = tls.getPeerCertificate();
  if (certificate?.raw instanceof Uint8Array) {
    return createHash("sha256").update(certificate.raw).digest("hex").toUpperCase();
  }
  return normaliseFingerprint(certificate?.fingerprint256 ?? "");
}

/** Connects TCP and TLS; the handshake is complete when it resolves. */
function connect(
  options: SocketOptions,
  deadlineMs: number,
  tlsOptions: ConnectionOptions,
): Promise<TLSSocket> {
  const { endpoint, signal } = options;
  return new Promise((resolve, reject) => {
    const tls = connectTls({
      host: endpoint.host,
      port: endpoint.port,
      // nginx offers HTTP/2 too, over which there is no such upgrade.
      ALPNProtocols: ["http/1.1"],
      // A numeric address may not be sent as a server name (RFC 6066).
      ...(isIP(endpoint.host) === 0 ? { servername: endpoint.host } : {}),
      ...tlsOptions,
    });
    const settle = (act: () => void) => {
      stop();
      signal?.removeEventListener("abort", onAbort);
      tls.off("error", onError);
      tls.off("close", onClose);
      // Whatever still comes must not end the process.
      tls.on("error", () => {});
      act();
    };
    const fail = (error: ArrayError) =>
      settle(() => {
        tls.destroy();
        reject(error);
      });
    const onError = (error: unknown) => fail(connectError(endpoint, error));
    const onClose = () =>
      fail(unreachable(endpoint, "the connection was closed during the TLS handshake"));
    const onAbort = () => fail(givenUp(endpoint, signal));
    const stop = after(
      options.clock,
      deadlineMs,
      () => fail(unreachable(endpoint, `no answer within ${options.deadlineMs} ms`)),
    );
    if (signal?.aborted) return onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    tls.on("error", onError);
    tls.on("close", onClose);
    tls.once("secureConnect", () => settle(() => resolve(tls)));
  });
}

/** Upgrades a TLS connection to a WebSocket. */
function upgrade(tls: TLSSocket, options: SocketOptions, deadlineMs: number): Promise<Socket> {
  const { endpoint, signal } = options;
  return new Promise((resolve, reject) => {
    const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
    const ws = new WebSocket(`wss://${host}:${endpoint.port}${options.path}`, {
      createConnection: () => tls,
      maxPayload: MAX_PAYLOAD,
      // Nothing is gained on a local network, and each connection would hold a compressor.
      perMessageDeflate: false,
      followRedirects: false,
    });
    const socket = new OpenSocket(ws, tls, endpoint, options.clock);
    const settle = (act: () => void) => {
      stop();
      signal?.removeEventListener("abort", onAbort);
      act();
    };
    let settled = false;
    const fail = (error: ArrayError) => {
      if (settled) return;
      settled = true;
      settle(() => {
        socket.terminate();
        reject(error);
      });
    };
    const onAbort = () => fail(givenUp(endpoint, signal));
    const stop = after(
      options.clock,
      deadlineMs,
      () => fail(unreachable(endpoint, `no answer within ${options.deadlineMs} ms`)),
    );
    if (signal?.aborted) return onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    ws.on(
      "unexpected-response",
      (_request: unknown, response: { statusCode?: number }) =>
        fail(statusError(endpoint, options.path, response.statusCode)),
    );
    socket.onEarlyError = (error) => {
      // Some runtimes give a refused upgrade as an error that names the status.
      const status = /\b(?:response|status|code)\D{0,10}(\d{3})\b/i.exec(error.message)?.[1];
      fail(
        status === undefined
          ? unreachable(endpoint, "the connection was closed during the WebSocket upgrade")
          : statusError(endpoint, options.path, Number(status)),
      );
    };
    ws.once("open", () => {
      if (settled) return;
      settled = true;
      settle(() => resolve(socket));
    });
  });
}

class OpenSocket implements Socket {
  readonly #ws: WebSocket;
  readonly #tls: TLSSocket;
  readonly #clock: WaitingClock;
  #events: SocketEvents | undefined;
  #early: ((events: SocketEvents) => void)[] = [];
  #error: ArrayError | undefined;
  #closed = false;
  #stopClosing = () => {};
  onEarlyError: (error: Error) => void = () => {};

  constructor(ws: WebSocket, tls: TLSSocket, endpoint: Endpoint, clock: WaitingClock) {
    this.#ws = ws;
    this.#tls = tls;
    this.#clock = clock;
    ws.on("message", (data: unknown, isBinary: boolean) => {
      this.#tell((events) =>
        isBinary ? events.onGarbage("a binary frame") : events.onText(String(data))
      );
    });
    ws.on("pong", () => this.#tell((events) => events.onPong()));
    ws.on("error", (error: Error) => {
      this.#error ??= frameError(endpoint, error);
      this.onEarlyError(error);
      // On deno "close" comes only after this.
      this.terminate();
    });
    ws.on("close", (code: number, reason: unknown) => {
      this.#end(this.#error ?? closeError(endpoint, code, String(reason ?? "")));
    });
    // The WebSocket above hears of it too, with a close code if there was one; not for ever, though.
    tls.once("close", () => {
      if (this.#closed) return;
      this.#stopClosing();
      this.#stopClosing = after(clock, CLOSE_DEADLINE_MS, () => {
        this.#end(this.#error ?? closeError(endpoint, 1006, ""));
      });
    });
  }

  listen(events: SocketEvents): void {
    this.#events = events;
    const early = this.#early;
    this.#early = [];
    for (const tell of early) tell(events);
  }

  send(text: string): void {
    if (this.#ws.readyState === WebSocket.OPEN) this.#ws.send(text);
  }

  ping(): void {
    if (this.#ws.readyState === WebSocket.OPEN) this.#ws.ping();
  }

  close(): void {
    if (this.#closed) return;
    this.#stopClosing = after(this.#clock, CLOSE_DEADLINE_MS, () => this.terminate());
    this.#ws.close(1000);
  }

  terminate(): void {
    this.#ws.terminate();
    this.#tls.destroy();
  }

  #end(error: ArrayError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopClosing();
    this.#tls.destroy();
    this.onEarlyError(error);
    this.#tell((events) => events.onClosed(error));
  }

  #tell(tell: (events: SocketEvents) => void): void {
    if (this.#events === undefined) this.#early.push(tell);
    else tell(this.#events);
  }
}
