import { assertEquals } from "@std/assert";
import { violations } from "../../scripts/check_layers.ts";

Deno.test("an import along the arrows passes", () => {
  assertEquals(violations("volumes/list.ts", 'import { a } from "../transport/transport.ts";'), []);
});

Deno.test("an import against the arrows is named", () => {
  assertEquals(
    violations("transport/nvme/x.ts", 'import type { A } from "../../volumes/list.ts";').length,
    1,
  );
});

Deno.test("the simulator may not know the client", () => {
  assertEquals(violations("simulator/x.ts", 'import { A } from "../truenas/rpc.ts";').length, 1);
});

Deno.test("only the host may run programs and touch files", () => {
  assertEquals(violations("volumes/x.ts", 'import { spawn } from "node:child_process";').length, 1);
  assertEquals(violations("host/linux.ts", 'import { spawn } from "node:child_process";'), []);
});

Deno.test("a dynamic import and a re-export count as imports", () => {
  assertEquals(violations("common/x.ts", 'const x = await import("../host/linux.ts");').length, 1);
  assertEquals(violations("common/x.ts", 'export { a } from "../host/linux.ts";').length, 1);
});

Deno.test("an API of one runtime is named, a comment about it is not", () => {
  assertEquals(violations("host/x.ts", "Deno.exit(1);").length, 1);
  assertEquals(violations("host/x.ts", "// not Deno.exit\n"), []);
});
