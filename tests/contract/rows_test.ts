import { assertEquals } from "@std/assert";
import { METHODS } from "../../src/pve/methods/methods.ts";
import { PURE_METHODS } from "../../src/pve/methods/pure.ts";
import { BEHAVIOURS } from "./behaviours/all.ts";

Deno.test("every method of the hook has a row in the contract's table, and no row has another's name", () => {
  const methods = new Set(BEHAVIOURS.map(({ method }) => method));
  const known = [...Object.keys(METHODS), ...Object.keys(PURE_METHODS)];
  assertEquals(known.filter((method) => !methods.has(method)), []);
  const rows = BEHAVIOURS.map(({ row }) => row);
  assertEquals(rows.length, new Set(rows).size);
});
