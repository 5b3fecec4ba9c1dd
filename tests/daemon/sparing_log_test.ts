import { assertEquals } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { SaidLately, sparingLog } from "../../src/daemon/sparing_log.ts";

const HOUR = 3_600_000;

Deno.test("the same line is said again after an hour, another one or another storage's at once", () => {
  const lines: string[] = [];
  const log = lineLog((line) => lines.push(line), () => 1);
  const said = new SaidLately();
  let now = 0;
  const san = sparingLog(log, "san", said, () => now);
  const other = sparingLog(log, "other", said, () => now);
  san.warning("a");
  san.warning("a");
  san.info("a");
  san.warning("b");
  other.warning("a");
  now = HOUR - 1;
  san.warning("a");
  assertEquals(lines.splice(0), ["warning: a", "info: a", "warning: b", "warning: a"]);
  now = HOUR;
  san.warning("a");
  san.debug("c");
  san.debug("c");
  assertEquals(lines, ["warning: a", "debug: c", "debug: c"]);
});

Deno.test("only so many lines are remembered, the latest", () => {
  const said = new SaidLately();
  for (let count = 0; count < 1_001; count++) said.mayBeSaid(String(count), count);
  assertEquals([said.mayBeSaid("0", 2_000), said.mayBeSaid("1000", 2_000)], [true, false]);
});
