import { assert, assertEquals } from "@std/assert";
import { type DoctorCommand, runDoctor } from "../../src/cli/doctor.ts";
import { renderLook } from "../../src/cli/doctor_view.ts";
import { VERSION as OWN_VERSION } from "../../src/cli/version.ts";
import { type Asker, Cancelled } from "../../src/common/asking.ts";
import type { CheckResult } from "../../src/doctor/check.ts";
import { SHIM as OWN_SHIM } from "../../src/pve/shim/shim.ts";
import { Healthy } from "../doctor/healthy.ts";
import { fromFileUrl } from "../doctor/paths.ts";
import { KEY, Pty } from "../support/pty.ts";

const PROGRAM = "/usr/local/bin/tnblock";

/** A healthy node with this program and its shim. */
async function ownNode(): Promise<Healthy> {
  const healthy = await Healthy.start("nvme-tcp");
  await healthy.write("/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm", OWN_SHIM);
  healthy.daemonState.daemon!.version = OWN_VERSION;
  return healthy;
}

const COMMAND: DoctorCommand = {
  ids: [],
  json: false,
  list: false,
  report: false,
  cluster: false,
  nodeFacts: false,
  strict: false,
  quiet: false,
  version: OWN_VERSION,
  limitLogins: false,
  columns: 80,
  asker: undefined,
};

async function run(healthy: Healthy, command: Partial<DoctorCommand> = {}) {
  let text = "";
  const status = await runDoctor(healthy.host, { ...COMMAND, ...command }, (part) => text += part);
  return { status, text };
}

Deno.test("where all is well every check is named, and the status is 0", async () => {
  await using healthy = await ownNode();
  const { status, text } = await run(healthy);
  assertEquals(status, 0, text);
  assert(/^\[ok\] {2}pool {2,}the pool is healthy$/m.test(text), text);
  assert(text.endsWith("All that was looked at is as it should be.\n"), text);
  assertEquals(text.split("\n").filter((line) => line.length > 80), []);
});

Deno.test("an error has its five steps, and the status is 10; a warning counts when told so", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const { status, text } = await run(healthy, { quiet: true, columns: undefined });
  assertEquals(status, 10);
  const [head, ...steps] = text.trimEnd().split("\n");
  assert(/^\[x\] {3}binary +\/usr\/local\/bin\/tnblock is not there$/.test(head ?? ""), text);
  assertEquals(steps.map((step) => step.trim().slice(0, 2)), ["1.", "2.", "3.", "4.", "5."]);
  assert(steps[4]?.includes("Check again: tnblock doctor binary"), text);

  await healthy.write(PROGRAM, "#!/bin/sh\n", 0o755);
  await healthy.unit("tnblock.service", "active", "disabled");
  assertEquals((await run(healthy)).status, 0);
  assertEquals((await run(healthy, { strict: true })).status, 8);
});

Deno.test("JSON has its version, the findings with their guides, and every check", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const document = JSON.parse((await run(healthy, { json: true })).text);
  assertEquals(document.schemaVersion, 1);
  assertEquals([document.node, document.status, document.storages], ["pve1", "errors", ["san"]]);
  const [{ check, severity, node, storage, guide }] = document.findings;
  assertEquals([check, severity, node, storage, guide.length], [
    "binary",
    "error",
    "pve1",
    null,
    5,
  ]);
  const one = document.checks.find(({ id }: { id: string }) => id === "pool");
  assertEquals([one.outcome, one.storage, one.note], ["ok", "san", null]);
});

Deno.test("the list of checks looks at nothing", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const { status, text } = await run(healthy, { list: true });
  assertEquals(status, 0);
  assert(/^hosts-allowed {2,}the array lets/m.test(text), text);
  const { checks } = JSON.parse((await run(healthy, { list: true, json: true })).text);
  assert(checks.length > 40 && checks.every((one: object) => "id" in one && "title" in one));
});

/** What a check came to. */
function result(
  id: string,
  storage: string | null,
  change: Partial<CheckResult> = {},
): CheckResult {
  const rest = { title: `${id} is well`, node: "pve1", note: null, milliseconds: 1 };
  return { id, storage, ...rest, outcome: "ok", findings: [], ...change };
}

Deno.test("what is well is told once for all storages, and not of other nodes", () => {
  const skipped = { outcome: "skipped", note: "the array cannot be asked" } as const;
  const results = [
    result("daemon", null),
    result("pool", "san"),
    result("pool", "backup"),
    result("space", "san"),
    result("space", "backup", skipped),
    result("daemon", null, { node: "pve2" }),
  ];
  const look = { node: "pve1", time: "", storages: ["san", "backup"], results };
  assertEquals(
    renderLook(look, { version: "1", columns: 80, quiet: false }),
    `tnblock 1: looked at node pve1, storage san, backup

[ok]  daemon  daemon is well
[ok]  pool    pool is well
[ok]  space   san: space is well
[-]   space   backup: not looked: the array cannot be asked

5 ok, 1 not looked at.
All that was looked at is as it should be.
`,
  );
});

Deno.test("no control character of a name reaches the terminal", async () => {
  await using healthy = await ownNode();
  healthy.daemonState.journal.unread.push("/var/lib/\u001b[31mred\u0007");
  const { text } = await run(healthy);
  // deno-lint-ignore no-control-regex
  assertEquals(/[\x00-\x09\x0b-\x1f\x7f]/.test(text), false);
  assert(text.includes("?[31mred?"), text);
});

Deno.test("who leaves the walk ends it with 130", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const leaving = { choose: () => Promise.reject(new Cancelled()) } as unknown as Asker;
  assertEquals((await run(healthy, { asker: leaving })).status, 130);
});

Deno.test("in a terminal a finding's steps are walked, with a look after each", async () => {
  await using healthy = await ownNode();
  const program = await healthy.read(PROGRAM);
  await healthy.remove(PROGRAM);
  const main = fromFileUrl("../../src/main.ts");
  const args = ["--no-env-file", "run", main, "--root", healthy.directory, "doctor"];
  await using pty = new Pty(fromFileUrl("../../node_modules/.bin/bun"), args, {
    env: { TNBLOCK_LOGIN_BUDGET: "0" },
  });
  await pty.shows("Which one do you want to see to?");
  await pty.answers("none now", KEY.enter);
  await pty.shows("Step 1 of 5: See what is there: ls -l /usr/local/bin/tnblock");
  await pty.answers("back to the list", KEY.enter);
  await pty.shows("still so");
  await pty.shows("Step 2 of 5");
  await healthy.write(PROGRAM, program, 0o755);
  await pty.answers("back to the list", KEY.enter);
  await pty.shows("this one is put right");
  assertEquals(await pty.ends(), 0);
});

Deno.test("in a terminal one may leave findings for later, or with Ctrl-C", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const main = fromFileUrl("../../src/main.ts");
  const args = ["--no-env-file", "run", main, "--root", healthy.directory, "doctor", "binary"];
  const bun = fromFileUrl("../../node_modules/.bin/bun");
  for (const [keys, status] of [[KEY.down + KEY.enter, 10], [KEY.ctrlC, 130]] as const) {
    await using pty = new Pty(bun, args, { env: { TNBLOCK_LOGIN_BUDGET: "0" } });
    await pty.answers("none now", keys);
    assertEquals(await pty.ends(), status);
  }
});

Deno.test("without a terminal nothing is asked", async () => {
  await using healthy = await ownNode();
  await healthy.remove(PROGRAM);
  const { code, stdout } = await new Deno.Command(fromFileUrl("../../node_modules/.bin/bun"), {
    args: [
      ...["--no-env-file", "run", fromFileUrl("../../src/main.ts"), "--root", healthy.directory],
      ...["doctor", "binary", "--output-format", "json"],
    ],
    stdin: "null",
  }).output();
  assertEquals(code, 10);
  assertEquals(JSON.parse(new TextDecoder().decode(stdout)).findings.length, 1);
});
