import { assertEquals } from "@std/assert";
import { screenOf } from "../../scripts/screen.ts";

for (
  const [what, written, shown] of [
    ["text as it is", "one\r\ntwo\r\n", "one\ntwo\n"],
    ["no colours", "\x1b[31mred\x1b[0m", "red\n"],
    ["what was written over", "first\rsec", "secst\n"],
    ["what was written over further up", "a\r\nb\x1b[1A\x1b[999D\x1b[Jc", "c\n"],
    ["a cleared end of line", "abcdef\x1b[4G\x1b[K!", "abc!\n"],
    ["a hidden cursor, not", "\x1b[?25la\x1b[?25h", "a\n"],
    ["what is too long, broken", "abcdefghijkl", "abcdefghij\nkl\n"],
    ["signs of more than one byte", "│ …", "│ …\n"],
  ] as const
) {
  Deno.test(`a screen shows ${what}`, () => assertEquals(screenOf(written, 10), shown));
}
