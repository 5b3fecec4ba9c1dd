import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { pickLun, pickNsid } from "../../src/transport/numbers.ts";

const first = () => 0;
const last = (limit: number) => limit - 1;
const range = (from: number, to: number) =>
  new Set(Array.from({ length: to - from }, (_, index) => from + index));

Deno.test("LUNs stay below 256 while one of those is free", () => {
  const taken = range(0, 256);
  taken.delete(97);
  assertEquals(pickLun(taken, first), 97);
});

Deno.test("with all LUNs below 256 taken the next ones are used", () => {
  assertEquals(pickLun(range(0, 256), first), 256);
  assertEquals(pickLun(range(0, 256), last), 16382);
});

Deno.test("a target without a free LUN is an error that points to cleanup-orphans", () => {
  const error = assertThrows(() => pickLun(range(0, 16383), first));
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "no-space");
  assert(error.hint?.includes("cleanup-orphans"));
});

Deno.test("every free number can be picked and no taken one is", () => {
  const taken = new Set([0, 5, 255]);
  const picked = new Set(Array.from({ length: 253 }, (_, index) => pickLun(taken, () => index)));
  assertEquals(picked.size, 253);
  assert([...taken].every((lun) => !picked.has(lun)));
});

Deno.test("NSIDs are picked from 1 to 1023", () => {
  assertEquals(pickNsid(new Set(), first), 1);
  assertEquals(pickNsid(new Set(), last), 1023);
});

Deno.test("a subsystem with 1,000 namespaces takes no more", () => {
  assertThrows(() => pickNsid(range(1, 1001), first), "1000 is the limit");
});
