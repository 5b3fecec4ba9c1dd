/**
 * `deno task test`: runs everything that needs neither root nor a VM, names every skipped test with
 * its reason, prints the contract suite as a table, and ends with the line `N passed, N failed`. In
 * CI (`CI=true`) a skip that is not on the list below counts as a failure.
 *
 * A test that cannot run here has the reason in its name: `... (skipped: no perl on this machine)`.
 */

import { type Case, contractTable } from "./contract_table.ts";

/** Skips that CI may have; empty: CI runs everything. */
const SKIPS_ALLOWED_IN_CI: readonly RegExp[] = [];

interface Counts {
  passed: number;
  failed: number;
  skipped: string[];
}

/** Counts a JUnit report. */
export function countReport(xml: string): Counts {
  const counts: Counts = { passed: 0, failed: 0, skipped: [] };
  for (const { name, outcome } of casesOf(xml)) {
    if (outcome === "skipped") counts.skipped.push(name);
    else counts[outcome]++;
  }
  return counts;
}

/** What ran. A `<testcase>` holds `<failure>`, `<error>` or `<skipped>` when it did not pass. */
function casesOf(xml: string): { name: string; outcome: "passed" | "failed" | "skipped" }[] {
  // A sample: <testcase name="scan finds nothing" classname="./tests/a_test.ts" time="0.001" line="3" col="6">
  const found = xml.matchAll(/<testcase name="([^"]*)"[^>]*?(\/>|>([\s\S]*?)<\/testcase>)/g);
  return [...found].map(([, name = "", , body = ""]) => ({
    name: decodeXml(name),
    outcome: /<(failure|error)\b/.test(body)
      ? "failed"
      : /<skipped\b/.test(body)
      ? "skipped"
      : "passed",
  }));
}

function decodeXml(text: string): string {
  return text.replaceAll("&quot;", '"').replaceAll("&apos;", "'").replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">").replaceAll("&#10;", " ").replaceAll("&amp;", "&");
}

async function main(): Promise<number> {
  const root = new URL("../", import.meta.url).pathname;
  // The binary is tested too: it must be that of this source.
  const build = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "scripts/build.ts"],
    cwd: root,
    stdin: "null",
  }).spawn().status;
  if (!build.success) {
    console.log("0 passed, 1 failed");
    return 1;
  }
  const report = await Deno.makeTempFile({ prefix: "tnblock-tests-", suffix: ".xml" });
  try {
    const status = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--frozen", "--parallel", `--junit-path=${report}`, ...Deno.args],
      cwd: root,
      stdin: "null",
    }).spawn().status;
    const xml = await Deno.readTextFile(report);
    const counts = countReport(xml);
    if (!status.success && counts.failed === 0) counts.failed = 1;
    for (const name of counts.skipped) {
      const allowed = SKIPS_ALLOWED_IN_CI.some((pattern) => pattern.test(name));
      console.log(`skipped: ${name}`);
      if (Deno.env.get("CI") === "true" && !allowed) counts.failed++;
    }
    const cases: Case[] = casesOf(xml).map(({ name, outcome }) => ({
      name,
      passed: outcome !== "failed",
    }));
    for (const line of contractTable(cases)) console.log(line);
    console.log(`${counts.passed} passed, ${counts.failed} failed`);
    return counts.failed > 0 || !status.success ? 1 : 0;
  } finally {
    await Deno.remove(report);
  }
}

if (import.meta.main) Deno.exit(await main());
