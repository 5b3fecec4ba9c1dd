import { assertEquals } from "@std/assert";
import { fstatSync } from "node:fs";
import { isJournal } from "../../src/host/linux_journal.ts";

Deno.test("standard error is the journal when it is what JOURNAL_STREAM names", () => {
  const { dev, ino } = fstatSync(2, { bigint: true });
  const cases: [string | undefined, boolean][] = [
    [`${dev}:${ino}`, true],
    [`${dev}:${ino + 1n}`, false],
    ["", false],
    [undefined, false],
  ];
  for (const [text, expected] of cases) assertEquals([text, isJournal(text)], [text, expected]);
});
