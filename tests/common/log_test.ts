import { assertEquals } from "@std/assert";
import { aboutLog, lineLog } from "../../src/common/log.ts";

/** All four levels of a log, as lines. */
function lines(level: number, format: Parameters<typeof lineLog>[2] = {}): string[] {
  const written: string[] = [];
  const log = lineLog((line) => written.push(line), () => level, format);
  log.error("one");
  log.warning("two");
  log.info("three");
  log.debug("four");
  return written;
}

Deno.test("a line says what it is; debug is for who asked for it", () => {
  assertEquals(lines(0), ["error: one", "warning: two", "info: three"]);
  assertEquals(lines(1).at(-1), "debug: four");
});

Deno.test("for the journal a line begins with its priority, and then tells the request", () => {
  assertEquals(lines(1, { priorities: true, about: "7f3a alloc_image san" }), [
    "<3>[7f3a alloc_image san] one",
    "<4>[7f3a alloc_image san] two",
    "<6>[7f3a alloc_image san] three",
    "<7>[7f3a alloc_image san] four",
  ]);
});

Deno.test("a text is one line, and cannot claim a priority of its own", () => {
  const written: string[] = [];
  const log = aboutLog(
    lineLog((line) => written.push(line), () => 0, { priorities: true }),
    "a\n<0>b",
  );
  log.warning("one\r\n<0>two");
  assertEquals(written, ["<4>[a <0>b] one <0>two"]);
});
