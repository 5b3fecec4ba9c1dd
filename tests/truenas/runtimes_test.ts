/** The client does the same under Deno, under bun, and in a binary that bun has compiled. */
import { execFile } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { assertEquals } from "@std/assert";
import {
  answerLogin,
  type Script,
  type ScriptedArray,
  startScriptedArray,
  testCertificate,
} from "../support/scripted_array.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const BUN = `${ROOT}node_modules/.bin/bun`;
const PROBE = `${ROOT}tests/support/client_probe.ts`;

/** Standard output of a program that must succeed. */
function output(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) =>
    execFile(program, args, { timeout: 60_000, cwd: ROOT }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program}: ${error.message}\n${stderr}`));
    })
  );
}

/** Arrays of every kind, what is tried on them, and what must come of it. */
async function scenery(): Promise<{
  probes: unknown[];
  expected: Record<string, unknown>;
  stop(): Promise<void>;
}> {
  const arrays: ScriptedArray[] = [];
  const start = async (script: Script) => {
    const array = await startScriptedArray(script);
    arrays.push(array);
    return array;
  };
  const onRequest: NonNullable<Script["onRequest"]> = (request, connection) => {
    if (answerLogin(request, connection)) return;
    switch (request.method) {
      case "garbage":
        return connection.text("{");
      case "oversized":
        return connection.raw(new Uint8Array([0x81, 0x7f, 0, 0, 0, 0, 0x04, 0x10, 0, 0]));
      case "cut":
        return connection.cut();
      case "goodbye":
        return connection.close(1001, "restart");
      case "long":
        return connection.result(request.id, "x".repeat(3_000_000).length);
      case "late":
        return void setTimeout(() => connection.result(request.id, "late"), 20);
      default:
        return connection.result(request.id, request.method);
    }
  };
  const own = await start({ onRequest });
  const issuedCertificate = await testCertificate("issued");
  const issued = await start({ onRequest, certificate: issuedCertificate });
  const otherCertificate = await testCertificate("other-host");
  const other = await start({ onRequest, certificate: otherCertificate });
  const old = await start({
    paths: ["/api/current"],
    onRequest: (request, connection) => answerLogin(request, connection, "25.04.2.6"),
  });
  const notFound = await start({ status: 404 });
  const forbidden = await start({ status: 403 });
  const notAllowed = await start({ onConnect: (connection) => connection.close(1008, "no") });
  const silent = await start({ pongs: false, onRequest });
  const plain = createServer((socket) => {
    socket.on("error", () => {}).resume();
    socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  });
  const mute = createServer((socket) => void socket.on("error", () => {}).resume());
  for (const server of [plain, mute]) {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  }
  const gone = await startScriptedArray();
  await gone.stop();

  const portOf = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
  const pin = (array: ScriptedArray) => ({ kind: "fingerprint", sha256: array.fingerprint });
  const at = (array: ScriptedArray) => ({ addresses: [array.address], trust: pin(array) });
  const lost = (code: string, reason = "") => [[code, "unknown", reason, ""]];
  const table: readonly (readonly [string, object, unknown])[] = [
    ["pinned", { ...at(own), calls: ["late", "a", "b"] }, ["late", "a", "b"]],
    ["pinned, issued by an authority", at(issued), []],
    ["pinned, for another host name", at(other), []],
    [
      "pinned, another certificate",
      { addresses: [own.address], trust: pin(issued) },
      [
        "tls",
        "not-sent",
        "its certificate is not the one that is pinned",
        own.fingerprint,
      ],
    ],
    [
      "verified, self-signed",
      { addresses: [own.address] },
      ["tls", "not-sent", "its certificate is not trusted", own.fingerprint],
    ],
    [
      "authority",
      { addresses: [issued.address], trust: { kind: "ca", pem: issuedCertificate.ca } },
      [],
    ],
    [
      "authority, by name",
      {
        addresses: [`localhost:${issued.port}`],
        trust: { kind: "ca", pem: issuedCertificate.ca },
      },
      [],
    ],
    [
      "authority, other host name",
      { addresses: [other.address], trust: { kind: "ca", pem: otherCertificate.ca } },
      ["tls", "not-sent", "its certificate is for another host name", other.fingerprint],
    ],
    ["25.04", at(old), []],
    ["404", at(notFound), ["unsupported", "not-sent", "HTTP status 404", ""]],
    ["403", at(forbidden), ["denied", "not-sent", "HTTP status 403", ""]],
    ["1008", at(notAllowed), ["denied", "unknown", "no", ""]],
    [
      "refused",
      { addresses: [gone.address] },
      ["unreachable", "not-sent", "connection refused", ""],
    ],
    [
      "no such name",
      { addresses: ["nas.invalid"] },
      ["unreachable", "not-sent", "the host name is not known", ""],
    ],
    [
      "no TLS",
      { addresses: [`127.0.0.1:${portOf(plain)}`] },
      ["tls", "not-sent", "the server does not speak TLS on this port", ""],
    ],
    [
      "mute",
      { addresses: [`127.0.0.1:${portOf(mute)}`], connectDeadlineMs: 100 },
      ["unreachable", "not-sent", "no answer within 100 ms", ""],
    ],
    ["in clear", { addresses: ["ws://127.0.0.1"] }, ["config", "not-sent", "", ""]],
    ["garbage", { ...at(own), calls: ["garbage"] }, lost("array-fault")],
    ["oversized", { ...at(own), calls: ["oversized"] }, lost("array-fault")],
    ["cut", { ...at(own), calls: ["cut"] }, lost("unreachable")],
    ["goodbye", { ...at(own), calls: ["goodbye"] }, lost("unreachable", "restart")],
    ["silent", { ...at(silent), pingEveryMs: 60, untilClosed: true }, lost("unreachable")[0]],
    ["second address", {
      addresses: [gone.address, own.address],
      trust: pin(own),
      calls: ["a"],
    }, ["a"]],
  ];
  return {
    probes: table.map(([name, probe]) => ({ name, ...probe })),
    expected: Object.fromEntries(table.map(([name, , outcome]) => [name, outcome])),
    stop: async () => {
      for (const array of arrays) await array.idle();
      for (const array of arrays) await array.stop();
      for (const server of [plain, mute]) {
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };
}

async function check(run: (probes: string) => Promise<string>): Promise<void> {
  const { probes, expected, stop } = await scenery();
  try {
    assertEquals(JSON.parse(await run(JSON.stringify(probes))), expected);
  } finally {
    await stop();
  }
}

Deno.test("the client does all it must under Deno", async () => {
  await check((probes) => output(Deno.execPath(), ["run", "-A", "--no-check", PROBE, probes]));
});

Deno.test("the client does the same under bun", async () => {
  await check((probes) => output(BUN, ["run", PROBE, probes]));
});

Deno.test("the client does the same in a compiled binary", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const binary = `${folder}/probe`;
    await output(BUN, ["build", "--compile", `--outfile=${binary}`, PROBE]);
    await check((probes) => output(binary, [probes]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
