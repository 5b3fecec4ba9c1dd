/**
 * Runs the tests of the Perl shim. They are written in Perl, for the shim runs inside Proxmox VE's
 * own processes: under taint mode and among stand-ins of its modules. Each subtest is a step here.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { FOLDER, perlTest, runPerl, SHIM } from "./run_perl.ts";

/** One test a file; `json` says whether Perl finds the module JSON beside its own JSON::PP. */
function testFile(file: string, json: "present" | "absent"): void {
  perlTest(`the shim passes ${file} with the module JSON ${json}`, async (t) => {
    const { code, stdout, stderr } = await runPerl(`-MJsonChoice=${json}`, `${FOLDER}${file}`);
    // not ok 3 - status() is inactive after a failure, with one warning
    for (const [, failed, step] of stdout.matchAll(/^(not )?ok \d+ - (.*)$/gm)) {
      await t.step(step ?? file, () => assertEquals(failed, undefined, stderr));
    }
    // 1..42
    assertMatch(stdout, /^1\.\.[1-9]\d*$/m, `${file} did not come to its end: ${stderr}`);
    assertEquals(code, 0, stderr);
  });
}

for (
  const file of [
    "registration.t",
    "names.t",
    "failures.t",
    "surroundings.t",
    "drive.t",
    "transfer.t",
    "features.t",
    "daemon.t",
  ]
) {
  testFile(file, "present");
}
for (const json of ["present", "absent"] as const) {
  testFile("config.t", json);
  testFile("verbs.t", json);
}

perlTest("the shim compiles under taint mode without a warning", async () => {
  const run = await runPerl("-w", "-c", SHIM);
  assertEquals(run, { code: 0, stdout: "", stderr: `${SHIM} syntax OK\n` });
});
