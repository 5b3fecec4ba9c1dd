import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { parseAddress } from "../../src/truenas/address.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import {
  lookAtCertificate,
  openSocket,
  type Socket,
  type SocketOptions,
  type Trust,
} from "../../src/truenas/socket.ts";
import { type Script, startScriptedArray, testCertificate } from "../support/scripted_array.ts";

const ZEROS = "0".repeat(64);

function options(address: string, trust: Trust, deadlineMs = 5000): SocketOptions {
  return {
    endpoint: parseAddress(address, 443),
    path: "/api/current",
    trust,
    deadlineMs,
    clock: systemClock,
  };
}

/** Opens a socket, closes it, and waits until the server has nothing open. */
async function opens(script: Script, trust: (own: string) => Trust, host = "127.0.0.1") {
  const array = await startScriptedArray(script);
  try {
    const socket = await openSocket(options(`${host}:${array.port}`, trust(array.fingerprint)));
    const closed = closing(socket);
    socket.close();
    await closed;
    await array.idle();
  } finally {
    await array.stop();
  }
}

/** The error that opening a socket ends with; the server must have nothing open afterwards. */
async function fails(
  script: Script,
  trust: (own: string) => Trust,
  host = "127.0.0.1",
): Promise<{ error: ArrayError; upgrades: number }> {
  const array = await startScriptedArray(script);
  try {
    const error = await assertRejects(() =>
      openSocket(options(`${host}:${array.port}`, trust(array.fingerprint)))
    );
    assertInstanceOf(error, ArrayError);
    assertEquals(error.outcome, "not-sent");
    await array.idle();
    return { error, upgrades: array.upgrades.length };
  } finally {
    await array.stop();
  }
}

function closing(socket: Socket): Promise<ArrayError> {
  return new Promise((resolve) =>
    socket.listen({ onText() {}, onGarbage() {}, onPong() {}, onClosed: resolve })
  );
}

const pinned = (sha256: string): Trust => ({ kind: "fingerprint", sha256 });
const verified = (): Trust => ({ kind: "verified" });

Deno.test("a pinned certificate is accepted, with and without colons, in either case", async () => {
  await opens({}, pinned);
  await opens({}, (own) => pinned(own.replaceAll(":", "").toLowerCase()));
});

Deno.test("a pinned certificate may be issued by anybody and for any host name", async () => {
  await opens({ certificate: await testCertificate("issued") }, pinned);
  await opens({ certificate: await testCertificate("other-host") }, pinned);
});

Deno.test("a certificate other than the pinned one is refused before anything is sent", async () => {
  const certificate = await testCertificate();
  const { error, upgrades } = await fails({ certificate }, () => pinned(ZEROS));
  assertEquals(error.code, "tls");
  assertStringIncludes(error.hint ?? "", certificate.fingerprint);
  assertEquals(upgrades, 0);
});

Deno.test("a fingerprint that is none is a configuration error", async () => {
  const { error } = await fails({}, () => pinned("12:34"));
  assertEquals(error.code, "config");
});

Deno.test("a self-signed certificate is refused by default, and its fingerprint told", async () => {
  const certificate = await testCertificate();
  const { error, upgrades } = await fails({ certificate }, verified);
  assertEquals(error.code, "tls");
  assertMatch(error.message, /is not trusted$/);
  assertStringIncludes(error.hint ?? "", certificate.fingerprint);
  assertEquals(upgrades, 0);
});

Deno.test("an authority's own certificate makes those that it issued trusted", async () => {
  const certificate = await testCertificate("issued");
  await opens({ certificate }, () => ({ kind: "ca", pem: certificate.ca }));
});

Deno.test("a certificate for another host name is refused, with the reason", async () => {
  const certificate = await testCertificate("other-host");
  const { error } = await fails({ certificate }, () => ({ kind: "ca", pem: certificate.ca }));
  assertEquals(error.code, "tls");
  assertStringIncludes(error.message, "another host name");
});

Deno.test("the fingerprint of any server can be looked at", async () => {
  const array = await startScriptedArray();
  const found = await lookAtCertificate(options(array.address, verified()));
  assertEquals(found, array.fingerprint.replaceAll(":", ""));
  await array.idle();
  await array.stop();
});

Deno.test("a port where nobody listens is unreachable", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const error = await assertRejects(() => openSocket(options(`127.0.0.1:${port}`, verified())));
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.reason], ["unreachable", "connection refused"]);
});

Deno.test("a host name that does not exist is unreachable", async () => {
  const error = await assertRejects(() => openSocket(options("nas.invalid", verified())));
  assertInstanceOf(error, ArrayError);
  assertEquals(error.code, "unreachable");
});

Deno.test("a server that speaks no TLS on the port is told so", async () => {
  const server = createServer((socket) => {
    socket.on("error", () => {}).resume();
    socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const error = await assertRejects(() => openSocket(options(`127.0.0.1:${port}`, verified())));
  await new Promise((resolve) => server.close(resolve));
  assertInstanceOf(error, ArrayError);
  assertEquals(error.code, "tls");
  assertStringIncludes(error.message, "does not speak TLS");
});

Deno.test("a server that accepts and then says nothing is given up at the deadline", async () => {
  const held: { destroy(): void }[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {}).resume();
    held.push(socket);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const error = await assertRejects(() => openSocket(options(`127.0.0.1:${port}`, verified(), 50)));
  for (const socket of held) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.reason], ["unreachable", "no answer within 50 ms"]);
});

Deno.test("a caller that gives up ends the attempt", async () => {
  const array = await startScriptedArray();
  const controller = new AbortController();
  const opening = openSocket({
    ...options(array.address, pinned(array.fingerprint)),
    signal: controller.signal,
  });
  controller.abort();
  const error = await assertRejects(() => opening);
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.outcome], ["timeout", "not-sent"]);
  await array.idle();
  await array.stop();
});

Deno.test("HTTP statuses at the upgrade are told apart", async () => {
  const codes: (readonly [number, string])[] = [];
  for (const status of [404, 403, 502, 308, 200]) {
    const { error } = await fails({ status }, pinned);
    assertStringIncludes(error.message, status === 404 ? "/api/current" : `HTTP ${status}`);
    codes.push([status, error.code]);
  }
  assertEquals(codes, [
    [404, "unsupported"],
    [403, "denied"],
    [502, "unreachable"],
    [308, "config"],
    [200, "unsupported"],
  ]);
});

Deno.test("close code 1008 right after the upgrade says that the address is not allowed", async () => {
  const array = await startScriptedArray({ onConnect: (connection) => connection.close(1008) });
  const error = await openSocket(options(array.address, pinned(array.fingerprint))).then(closing);
  assertEquals(error.code, "denied");
  assertStringIncludes(error.hint ?? "", "Allowed IP Addresses");
  await array.idle();
  await array.stop();
});

Deno.test("a cut connection is told as unreachable", async () => {
  const array = await startScriptedArray({ onConnect: (connection) => connection.cut() });
  const error = await openSocket(options(array.address, pinned(array.fingerprint))).then(
    closing,
    (error) => error,
  );
  assertEquals(error.code, "unreachable");
  await array.idle();
  await array.stop();
});

Deno.test("an IPv6 address is connected to", async () => {
  const probe = createServer();
  const hasIpv6 = await new Promise<boolean>((resolve) => {
    probe.on("error", () => resolve(false));
    probe.listen(0, "::1", () => resolve(true));
  });
  probe.close();
  if (!hasIpv6) return;
  await opens({ host: "::1" }, pinned, "[::1]");
  const certificate = await testCertificate("issued");
  await opens({ host: "::1", certificate }, () => ({ kind: "ca", pem: certificate.ca }), "[::1]");
});

Deno.test("addresses are read in all their forms", () => {
  const forms = [
    "nas.example",
    "nas.example:8443",
    "https://nas.example/",
    "wss://nas.example:8443/api/current",
    "10.0.0.5",
    "fd00::5",
    "[fd00::5]:8443",
  ];
  assertEquals(forms.map((form) => parseAddress(form, 443).text), [
    "nas.example:443",
    "nas.example:8443",
    "nas.example:443",
    "nas.example:8443",
    "10.0.0.5:443",
    "[fd00::5]:443",
    "[fd00::5]:8443",
  ]);
});

Deno.test("addresses in clear, and what is no address, are configuration errors", async () => {
  for (const text of ["http://nas.example", "ws://nas.example", "", "a b", "nas:70000", "-nas"]) {
    const error = await assertRejects(() => Promise.try(() => parseAddress(text, 443)));
    assertInstanceOf(error, ArrayError);
    assertEquals(error.code, "config", text);
    assert(!error.message.endsWith("."));
  }
});
