import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { escape, manPages } from "../../scripts/build_man.ts";
import { scratchBase } from "../support/scratch.ts";

Deno.test("there is a page for the program and for each command that help shows", () => {
  const pages = manPages();
  for (const name of ["tnblock.1", "tnblock-list.1", "tnblock-install.1", "tnblock-setup.1"]) {
    assert(pages.has(name), name);
  }
  assertEquals([...pages.keys()].filter((name) => name.includes("complete.")), []);
  const list = pages.get("tnblock-list.1") ?? "";
  for (const text of ['.TH "TNBLOCK\\-LIST" 1', "\\fB\\-\\-no\\-header\\fR", ".SH EXAMPLES"]) {
    assertStringIncludes(list, text);
  }
  assertStringIncludes(pages.get("tnblock.1") ?? "", "tnblock\\-list(1)");
});

Deno.test("every page has what a reader looks for, and examples", () => {
  for (const [name, text] of manPages()) {
    for (
      const title of ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", '"EXIT STATUS"', "EXAMPLES"]
    ) {
      assertStringIncludes(text, `\n.SH ${title}\n`, name);
    }
    // deno-lint-ignore no-control-regex
    assert(/^[\x00-\x7f]*$/.test(text), `${name} is not plain ASCII`);
  }
});

Deno.test("no text becomes a request of troff", () => {
  assertEquals(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
  assertEquals(escape("a\n'b\\c"), "a\n\\(aqb\\ec");
});

const hasGroff = await new Deno.Command("groff", { args: ["--version"], stdout: "null" }).output()
  .then(({ success }) => success, () => false);

Deno.test({
  name: "groff has nothing to warn of",
  ignore: !hasGroff,
  fn: async () => {
    const folder = await Deno.makeTempDir({ dir: scratchBase() });
    try {
      const pages = manPages();
      for (const [name, text] of pages) await Deno.writeTextFile(`${folder}/${name}`, text);
      const { success, stderr } = await new Deno.Command("groff", {
        args: [
          "-man",
          "-Tascii",
          "-ww",
          "-z",
          ...[...pages.keys()].map((name) => `${folder}/${name}`),
        ],
        stdout: "null",
        stderr: "piped",
      }).output();
      assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
