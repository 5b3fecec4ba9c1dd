/** The command itself: what it prints, what it refuses, how it ends. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { runMigrate } from "../../src/cli/migrate.ts";
import type { Asker } from "../../src/common/asking.ts";
import { TnblockError } from "../../src/common/error.ts";
import { nobody } from "../setup/support.ts";
import { PerlPlace, VERSION } from "./support.ts";

type Flags = Parameters<typeof runMigrate>[1];

const NOTHING: Flags = {
  ...{ storage: "san", back: false, trust: undefined },
  ...{ json: false, yes: false, dryRun: false, nodeFacts: false, nodeAttach: false },
};

async function run(perl: PerlPlace, flags: Partial<Flags>, asker?: Asker) {
  const printed = { out: "", err: "" };
  const context = {
    out: (text: string) => void (printed.out += text),
    deliver: () => Promise.resolve(true),
    err: (text: string) => void (printed.err += text),
    input: (async function* () {})(),
    isTerminal: false,
    env: { TNBLOCK_LOGIN_BUDGET: "0" },
    root: perl.place.directory,
    stopped: () => new Promise<void>(() => {}),
  };
  const status = await runMigrate(context, { ...NOTHING, ...flags }, {
    ...{ host: perl.host("pve1"), asker, version: VERSION },
  });
  return { status, ...printed };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => work);
  assert(error instanceof TnblockError, String(error));
  return `${error.code} ${error.hint ?? ""}`;
}

Deno.test("without a terminal nothing is done but shown, and no secret is", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const before = await perl.everything();
  const { status, out, err } = await run(perl, { dryRun: true });
  assertEquals(status, 0);
  assertStringIncludes(out, "mark 3 volumes");
  assertStringIncludes(out, "tn_api_insecure: only the certificate");
  assertStringIncludes(err, "Nothing was changed");
  const json = JSON.parse((await run(perl, { dryRun: true, json: true })).out);
  assertEquals([json.schemaVersion, json.storage, json.attached], [1, "san", null]);
  assert(!`${out}${err}${JSON.stringify(json)}`.includes(perl.place.simulator.ready.apiKey));
  assertEquals(await perl.everything(), before);
});

Deno.test("a certificate that nobody has compared is not trusted by --yes alone", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const before = await perl.everything();
  const seen = perl.place.simulator.ready.fingerprint.replaceAll(":", "").toLowerCase();
  assertEquals(
    await codeOf(run(perl, { yes: true })),
    `tls Compare it in TrueNAS, then give: --trust ${seen}`,
  );
  assertStringIncludes(await codeOf(run(perl, { yes: true, trust: "00".repeat(32) })), "tls");
  assertEquals(await perl.everything(), before);

  const { status, err } = await run(perl, { yes: true, trust: seen });
  assertEquals([status, err.includes("linked 2 disks of running guests")], [0, true]);
  // Already so is success.
  const again = await run(perl, { yes: true });
  assertEquals(again.status, 0);
  assertStringIncludes(again.err, "is of type tnblock already");

  const back = await run(perl, { yes: true, back: true });
  assertEquals(back.status, 0);
  assertStringIncludes(back.err, "the Perl plugin's again");
});

Deno.test("who says no at either question changes nothing", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const before = await perl.everything();
  for (const [isRight, isAgreed] of [[false, true], [true, false]] as const) {
    const asker: Asker = {
      ...nobody,
      confirm: () => Promise.resolve(isRight),
      confirmTyped: () => Promise.resolve(isAgreed),
    };
    assertEquals((await run(perl, {}, asker)).status, 130);
  }
  assertEquals(await perl.everything(), before);
});

Deno.test("flags that contradict each other, and storages that are none, are refused", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  assertStringIncludes(await codeOf(run(perl, { yes: true, dryRun: true })), "invalid");
  assertStringIncludes(await codeOf(run(perl, { storage: "local" })), "not-found");
  assertStringIncludes(await codeOf(run(perl, { storage: "none" })), "not-found");
  assertStringIncludes(await codeOf(run(perl, { back: true })), "not-found");
});

Deno.test("a disk of a running guest that cannot be linked is told, and the rest is done", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const seen = perl.place.simulator.ready.fingerprint;
  perl.onRun = (node, words) =>
    node === "pve2" && words.includes("--node-attach")
      ? { status: 1, stdout: "", stderr: "planted\n" }
      : undefined;
  const { status, err } = await run(perl, { yes: true, trust: seen });
  assertEquals(status, 8);
  assertStringIncludes(err, "pve2: not linked: all: ");
});

Deno.test("another node is answered with facts, and with what it has linked", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const facts = JSON.parse((await run(perl, { nodeFacts: true })).out);
  assertEquals([facts.schemaVersion, facts.node, facts.version, facts.daemon], [
    ...[1, "pve1", VERSION, VERSION],
  ]);
  assertEquals([facts.perl.dialect, facts.services.length, facts.tasks], ["2.x", 5, []]);
  const attached = JSON.parse((await run(perl, { nodeAttach: true })).out);
  assertEquals(attached, { schemaVersion: 1, node: "pve1", linked: [], failed: [] });
});
