/** What the tests of the REST client share: options, a session with a scripted server, broken answers. */
import { assert } from "@std/assert";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { openRestSession } from "../../src/truenas/rest_session.ts";
import type { Session, SessionOptions } from "../../src/truenas/session.ts";
import { type RestScript, type RestServer, startRestServer } from "./rest_server.ts";

/** The key of every session. */
export const KEY = "1-0123456789abcdef";

/** Options for a server whose certificate is pinned. */
export function at(server: RestServer, more: Partial<SessionOptions> = {}): SessionOptions {
  return {
    addresses: [server.address],
    apiKey: KEY,
    trust: { kind: "fingerprint", sha256: server.fingerprint },
    clock: systemClock,
    ...more,
  };
}

/** A session with a scripted server. */
export async function withServer(
  script: RestScript,
  work: (session: Session, server: RestServer) => Promise<void>,
): Promise<void> {
  await using server = await startRestServer(script);
  const session = await openRestSession(at(server));
  try {
    await work(session, server);
  } finally {
    session.close();
    await server.idle();
  }
}

/** What a call fails with. */
export async function failure(promise: Promise<unknown>): Promise<ArrayError> {
  const error = await promise.then(() => undefined, (error: unknown) => error);
  assert(error instanceof ArrayError, `it did not fail as it must: ${error}`);
  return error;
}

/** A read that is a POST. */
export const PING = ["service.started", ["iscsitarget"]] as const;
/** Anything that the table knows, as a write. */
export const WRITE = ["pool.dataset.create", [{ name: "tank/a" }]] as const;

/** A server that treats writes so. */
export const onWrite = (act: NonNullable<RestScript["onRequest"]>): RestScript => ({
  onRequest: (request, reply) => {
    if (!request.line.startsWith("POST")) return false;
    act(request, reply);
    return true;
  },
});

/** 1 MiB of text. */
export const MEGABYTE = "x".repeat(1 << 20);
/** The beginning of a raw answer. */
export const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/** Answers to a write that are none: what, how, and the code and outcome that must come of it. */
export const ANSWERS: readonly (readonly [string, RestScript, string, string])[] = [
  ["a cut", onWrite((_, reply) => reply.cut()), "unreachable", "unknown"],
  [
    "a cut in the middle of an answer",
    onWrite((_, reply) => (reply.raw(`${HEAD}Content-Length: 100\r\n\r\n[1,`), reply.cut())),
    "unreachable",
    "unknown",
  ],
  [
    "a cut in the middle of a chunked answer",
    onWrite((
      _,
      reply,
    ) => (reply.raw(`${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n`), reply.cut())),
    "unreachable",
    "unknown",
  ],
  [
    "no HTTP",
    onWrite((_, reply) => (reply.raw("nonsense\r\n\r\n"), reply.cut())),
    "unreachable",
    "unknown",
  ],
  [
    "half a JSON",
    onWrite((_, reply) => reply.text(200, "application/json", '{"id": ')),
    "array-fault",
    "unknown",
  ],
  [
    "a web page",
    onWrite((_, reply) => reply.text(200, "text/html", "<html>")),
    "array-fault",
    "unknown",
  ],
  [
    "10 MB of a web page",
    onWrite((_, reply) => reply.text(200, "text/html", MEGABYTE.repeat(10))),
    "array-fault",
    "unknown",
  ],
  [
    "an answer that says it is longer than any may be",
    onWrite((_, reply) => reply.raw(`${HEAD}Content-Length: 99999999999\r\n\r\n[1`)),
    "array-fault",
    "unknown",
  ],
  [
    "a redirect",
    onWrite((_, reply) =>
      reply.text(307, "text/html", "", { location: "/api/v2.0/system/version" })
    ),
    "config",
    "answered",
  ],
  ["404", onWrite((_, reply) => reply.text(404, "text/plain", "404")), "unsupported", "answered"],
  ["502", onWrite((_, reply) => reply.text(502, "text/html", "")), "unreachable", "unknown"],
  ["504", onWrite((_, reply) => reply.text(504, "text/html", "")), "timeout", "unknown"],
  [
    "500 as text",
    onWrite((_, reply) => reply.text(500, "text/plain", "")),
    "array-fault",
    "unknown",
  ],
  ["an empty 422", onWrite((_, reply) => reply.json({}, 422)), "array-fault", "answered"],
  [
    "nonsense in a 422",
    onWrite((_, reply) => reply.json({ a: 1, b: [null, 2] }, 422)),
    "array-fault",
    "answered",
  ],
];
