/** Every item of the list of traps has a test that exists, or an issue that will bring one. */

import { assertEquals } from "@std/assert";
import { readdirSync, readFileSync } from "node:fs";
import { TRAPS } from "../../src/simulator/traps.ts";

const FOLDER = new URL("./", import.meta.url);

Deno.test("every trap is shown by a test that exists or names its issue", () => {
  const texts = readdirSync(FOLDER).filter((name) => name.endsWith("_test.ts")).map((name) =>
    readFileSync(new URL(name, FOLDER), "utf8")
  );
  const exists = (test: string) => texts.some((text) => text.includes(`Deno.test("${test}"`));
  assertEquals(TRAPS.map(({ number }) => number), Array.from({ length: 30 }, (_, i) => i + 1));
  const bare = TRAPS.filter(({ test, issue }) => (test === undefined) === (issue === undefined));
  assertEquals(bare, []);
  const missing = TRAPS.filter(({ test }) => test !== undefined && !exists(test));
  assertEquals(missing.map(({ test }) => test), []);
  const shown = TRAPS.filter(({ test }) => test !== undefined).length;
  const line = `traps shown by tests: ${shown} of ${TRAPS.length}\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(line));
});
