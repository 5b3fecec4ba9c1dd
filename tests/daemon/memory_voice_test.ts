import { assertEquals } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { Voice } from "../../src/daemon/memory_voice.ts";

const A = "tank/pve/vm-1-disk-0";
const B = "tank/pve/vm-2-disk-0";
const NONE: ReadonlySet<string> = new Set();

function voice(): { readonly voice: Voice; readonly said: string[] } {
  const said: string[] = [];
  return { voice: new Voice(lineLog((line) => said.push(line), () => 0), "san"), said };
}

Deno.test("a volume that nothing exports is told of when it has been so for a minute, and once", () => {
  const { voice: own, said } = voice();
  own.sayUnexported([A], NONE, 0);
  own.sayUnexported([A, B], NONE, 59_000);
  assertEquals(said, []);
  own.sayUnexported([A, B], NONE, 60_000);
  own.sayUnexported([A, B], NONE, 70_000);
  assertEquals(said, [`warning: not listed, because nothing exports them: ${A}`]);
  own.sayUnexported([A, B], NONE, 119_000);
  assertEquals(said.slice(1), [`warning: not listed, because nothing exports them: ${A}, ${B}`]);
});

Deno.test("volumes that come and go in a burst are not told of", () => {
  const { voice: own, said } = voice();
  for (let at = 0; at < 600_000; at += 30_000) {
    own.sayUnexported([at % 60_000 === 0 ? A : B], NONE, at);
  }
  assertEquals(said, []);
});

Deno.test("what this node's journal has open is not told of, however long it takes", () => {
  const { voice: own, said } = voice();
  for (let at = 0; at < 600_000; at += 60_000) own.sayUnexported([A], new Set([A]), at);
  assertEquals(said, []);
  own.sayUnexported([A], NONE, 600_000);
  assertEquals(said.length, 1);
});

Deno.test("a volume that is exported again, and then not, is told of again", () => {
  const { voice: own, said } = voice();
  for (const [paths, at] of [[[A], 0], [[A], 60_000], [[], 70_000], [[A], 80_000]] as const) {
    own.sayUnexported(paths, NONE, at);
  }
  assertEquals(said.length, 1);
  own.sayUnexported([A], NONE, 140_000);
  assertEquals(said.length, 2);
});
