/**
 * HTTPS to one address, for the REST API: a connection carries one request at a time and is used
 * again. As in `socket.ts` the TLS connection is made and judged first; only then `node:http` writes
 * to it, so no key reaches a server that is not the right one, on every runtime. Redirects are not
 * followed: they come back as the status that they are.
 */
import { Buffer } from "node:buffer";
import { type IncomingMessage, request as httpRequest } from "node:http";
import type { TLSSocket } from "node:tls";
import type { Endpoint } from "./address.ts";
import { after, type WaitingClock } from "./clock.ts";
import { ArrayError } from "./errors.ts";
import { dial, type Trust } from "./socket.ts";

/** What all exchanges with one address have in common. */
export interface HttpsOptions {
  readonly endpoint: Endpoint;
  readonly trust: Trust;
  /** Milliseconds for TCP and TLS of one connection. */
  readonly connectDeadlineMs: number;
  readonly clock: WaitingClock;
}

/** A request. */
export interface HttpRequest {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Absolute and percent-encoded. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text; a GET may have one too. */
  readonly body?: string;
}

/** An answer, whole. */
export interface HttpAnswer {
  readonly status: number;
  /** `application/json`, without parameters and in lower case; empty when the server says none. */
  readonly contentType: string;
  readonly text: string;
  /** The server's clock, as HTTP writes it (whole seconds); undefined when it does not tell. */
  readonly date?: string | undefined;
}

/** How one exchange is bound. */
export interface ExchangeBounds {
  /** Milliseconds until the whole answer must be there. */
  readonly deadlineMs: number;
  /** Asked right before the request is written, the last moment to take it back; false: it is not sent. */
  readonly maySend: () => boolean;
}

/** A JSON answer may be many MB: a list of all datasets. */
const MAX_ANSWER = 64 * 1024 * 1024;
/** Whatever is no JSON, or no success, says what it has to say in less. */
const MAX_OTHER_ANSWER = 1024 * 1024;
/** nginx hangs up on a connection that was idle for 65 s (`keepalive_timeout`): ours are let go long before. */
const MAX_IDLE_MS = 20_000;

/** Exchanges with one address. */
export class Https {
  readonly #options: HttpsOptions;
  readonly #idle = new Map<TLSSocket, () => void>();
  readonly #busy = new Set<TLSSocket>();
  readonly #closing = new AbortController();
  #retired = false;

  constructor(options: HttpsOptions) {
    this.#options = options;
  }

  /**
   * Sends a request and gives the answer, whatever its status.
   *
   * @throws ArrayError `unreachable`, `tls`, `config` with the outcome `not-sent` when there is no
   *   connection; `unreachable`, `timeout`, `array-fault` with `unknown` once the request was written.
   */
  async exchange(request: HttpRequest, bounds: ExchangeBounds): Promise<HttpAnswer> {
    const { clock, endpoint } = this.#options;
    const end = clock.monotonicMs() + bounds.deadlineMs;
    const left = () => Math.max(1, end - clock.monotonicMs());
    const tls = this.#takeIdle() ?? await this.#connect(left());
    if (this.#closing.signal.aborted || !bounds.maySend()) {
      this.#release(tls, true);
      throw failure("timeout", endpoint, "the caller gave up", "not-sent");
    }
    this.#busy.add(tls);
    let reusable = false;
    try {
      const { answer, keep } = await this.#send(tls, request, left());
      reusable = keep;
      return answer;
    } finally {
      this.#busy.delete(tls);
      this.#release(tls, reusable);
    }
  }

  /** Takes no connection up again; exchanges that are under way go on. */
  retire(): void {
    this.#retired = true;
    for (const [tls, forget] of this.#idle) {
      forget();
      tls.destroy();
    }
  }

  /** Ends everything at once: what was sent has the outcome `unknown`. */
  close(): void {
    this.retire();
    this.#closing.abort();
    for (const tls of this.#busy) tls.destroy();
  }

  async #connect(leftMs: number): Promise<TLSSocket> {
    const { endpoint, trust, clock, connectDeadlineMs } = this.#options;
    const deadlineMs = Math.min(connectDeadlineMs, leftMs);
    return await dial(
      { endpoint, path: "", trust, deadlineMs, clock, signal: this.#closing.signal },
      deadlineMs,
    );
  }

  #takeIdle(): TLSSocket | undefined {
    for (const [tls, forget] of this.#idle) {
      forget();
      if (!tls.destroyed && tls.writable) return tls;
      tls.destroy();
    }
    return undefined;
  }

  #release(tls: TLSSocket, reusable: boolean): void {
    if (!reusable || this.#retired || tls.destroyed) {
      tls.destroy();
      return;
    }
    const drop = () => {
      forget();
      tls.destroy();
    };
    const stop = after(this.#options.clock, MAX_IDLE_MS, drop);
    // Nothing may come now; what does is an end, or an answer to nothing.
    const events = ["close", "end", "data", "error"] as const;
    const forget = () => {
      stop();
      for (const event of events) tls.off(event, drop);
      this.#idle.delete(tls);
    };
    for (const event of events) tls.on(event, drop);
    this.#idle.set(tls, forget);
  }

  #send(
    tls: TLSSocket,
    request: HttpRequest,
    deadlineMs: number,
  ): Promise<{ answer: HttpAnswer; keep: boolean }> {
    const { endpoint, clock } = this.#options;
    return new Promise((resolve, reject) => {
      const stop = after(
        clock,
        deadlineMs,
        () => fail("timeout", `no answer within ${Math.round(deadlineMs)} ms`),
      );
      const fail = (
        code: "unreachable" | "timeout" | "array-fault",
        why: string,
        cause?: unknown,
      ) => {
        stop();
        tls.off("close", onClose);
        tls.destroy();
        reject(failure(code, endpoint, why, "unknown", cause));
      };
      const onClose = () => fail("unreachable", "the connection was closed before the answer");
      // Not every runtime tells the request of it.
      tls.once("close", onClose);
      const body = request.body === undefined ? undefined : Buffer.from(request.body);
      const sent = httpRequest({
        createConnection: () => tls,
        host: endpoint.host,
        port: endpoint.port,
        method: request.method,
        path: request.path,
        headers: {
          host: endpoint.text,
          connection: "keep-alive",
          accept: "application/json",
          ...request.headers,
          ...(body === undefined ? {} : {
            "content-type": "application/json",
            "content-length": String(body.length),
          }),
        },
      });
      sent.on("error", (error) => fail("unreachable", "the connection broke", error));
      sent.on("response", (response) => {
        read(response).then(
          (answer) => {
            stop();
            tls.off("close", onClose);
            resolve({ answer, keep: response.headers.connection?.toLowerCase() !== "close" });
          },
          (error) => {
            const tooLong = error instanceof TooLongError;
            if (tooLong) fail("array-fault", `an answer is longer than ${error.limit >> 20} MiB`);
            else fail("unreachable", "the connection broke in the middle of an answer", error);
          },
        );
      });
      sent.end(body);
    });
  }
}

class TooLongError extends Error {
  constructor(readonly limit: number) {
    super("too long");
  }
}

/** Reads an answer to its end; what is too long is given up at once, also when its length was told. */
function read(response: IncomingMessage): Promise<HttpAnswer> {
  const status = response.statusCode ?? 0;
  const contentType =
    (response.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ??
      "";
  const limit = status === 200 && contentType === "application/json"
    ? MAX_ANSWER
    : MAX_OTHER_ANSWER;
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let length = 0;
    if (Number(response.headers["content-length"] ?? 0) > limit) {
      return reject(new TooLongError(limit));
    }
    response.on("data", (chunk: Uint8Array) => {
      length += chunk.length;
      if (length > limit) reject(new TooLongError(limit));
      else chunks.push(chunk);
    });
    response.on("error", reject);
    response.on("aborted", () => reject(new Error("aborted")));
    response.on("close", () => reject(new Error("closed")));
    response.on("end", () => {
      if (!response.complete) return reject(new Error("incomplete"));
      const text = Buffer.concat(chunks).toString("utf8");
      resolve({ status, contentType, text, date: response.headers.date });
    });
  });
}

function failure(
  code: "unreachable" | "timeout" | "array-fault",
  endpoint: Endpoint,
  why: string,
  outcome: "not-sent" | "unknown",
  cause?: unknown,
): ArrayError {
  return new ArrayError(code, `Cannot go on with "${endpoint.text}": ${why}`, {
    outcome,
    reason: why,
    ...(cause === undefined ? {} : { cause }),
  });
}
