import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { freeName } from "../../src/volumes/free_name.ts";

Deno.test("the first hole is taken", () => {
  const taken = new Set(["vm-1-disk-0", "vm-1-disk-2"]);
  assertEquals(freeName("vm-1-disk-", (name) => taken.has(name)), "vm-1-disk-1");
});

Deno.test("without a free number the error points to cleanup-orphans", () => {
  const error = assertThrows(() => freeName("vm-1-disk-", () => true));
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "no-space");
  assert(error.hint?.includes("cleanup-orphans"));
});

Deno.test("the last number is 999", () => {
  assertEquals(freeName("d", (name) => name !== "d999"), "d999");
});
