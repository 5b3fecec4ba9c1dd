/** The REST client does the same under Deno and under bun. */
import { execFile } from "node:child_process";
import { assertEquals } from "@std/assert";
import { ANSWERS, at, PING, WRITE } from "../support/rest_cases.ts";
import { type RestScript, type RestServer, startRestServer } from "../support/rest_server.ts";
import { testCertificate } from "../support/scripted_array.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Standard output of a program that must succeed. */
function output(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) =>
    execFile(program, args, { timeout: 60_000, cwd: ROOT }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program}: ${error.message}\n${stderr}`));
    })
  );
}

Deno.test("REST does under bun what it does under Deno", async () => {
  const servers: RestServer[] = [];
  const start = async (script: RestScript) => {
    const server = await startRestServer(script);
    servers.push(server);
    return server;
  };
  const echo = await start({
    onRequest: ({ line, body, connection }, reply) => {
      if (line.endsWith("version")) return false;
      reply.json([{ line, body, connection }]);
      return true;
    },
  });
  const other = await testCertificate("issued");
  const query = ["core.get_jobs", [[], {}]] as const;
  const probes: unknown[] = [
    { name: "echo", ...at(echo), calls: [query, PING, query] },
    {
      name: "wrong certificate",
      ...at(echo),
      trust: { kind: "fingerprint", sha256: other.fingerprint },
    },
    { name: "not trusted", ...at(echo), trust: { kind: "verified" } },
  ];
  const body = '{"query-filters":[],"query-options":{}}';
  const expected: Record<string, unknown> = {
    // A GET with a body, and one connection for all.
    echo: [
      [{ line: "GET /api/v2.0/core/get_jobs", body, connection: 1 }],
      [{ line: "POST /api/v2.0/service/started", body: '"iscsitarget"', connection: 1 }],
      [{ line: "GET /api/v2.0/core/get_jobs", body, connection: 1 }],
    ],
    "wrong certificate": ["tls", "not-sent"],
    "not trusted": ["tls", "not-sent"],
  };
  for (const [what, script, code, outcome] of ANSWERS) {
    const server = await start(script);
    probes.push({
      name: what,
      calls: [WRITE, ["system.version", []]],
      addresses: [server.address],
      trust: { kind: "fingerprint", sha256: server.fingerprint },
    });
    expected[what] = [[code, outcome], "25.10.6"];
  }
  try {
    const found = JSON.parse(
      await output(`${ROOT}node_modules/.bin/bun`, [
        "run",
        `${ROOT}tests/support/rest_probe.ts`,
        JSON.stringify(probes),
      ]),
    );
    assertEquals(found, expected);
    for (const server of servers) await server.idle();
  } finally {
    for (const server of servers) await server[Symbol.asyncDispose]();
  }
});
