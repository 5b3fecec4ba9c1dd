import { assertEquals } from "@std/assert";
import { optionDocs } from "../../scripts/write_option_docs.ts";

Deno.test("docs/options.md is what the schema says", async () => {
  assertEquals(
    await Deno.readTextFile(new URL("../../docs/options.md", import.meta.url)),
    optionDocs(),
  );
});
