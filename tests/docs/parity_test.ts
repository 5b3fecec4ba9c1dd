import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

/** An entry of the changelog: what it is, what became of it, and what shows that. */
interface Row {
  readonly entry: string;
  readonly became: string;
  readonly shown: string;
}

/** The table rows of docs/parity.md, headings left out. */
async function rows(): Promise<Row[]> {
  const text = await Deno.readTextFile(new URL("docs/parity.md", ROOT));
  const lines = text.split("\n").filter((line) => /^\| (?!entry \|)/.test(line));
  return lines.map((line) => {
    const [entry = "", became = "", shown = "", ...more] = line.slice(2, -2).split(" | ");
    assertEquals(more, [], line);
    return { entry, became, shown };
  });
}

/** Whether a test of that name stands in the file: as a whole, or behind the name's changing part. */
function hasTest(source: string, name: string): boolean {
  const escaped = name.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(["'\`]|[:}] ?)${escaped}["'\`]`).test(source);
}

Deno.test("every entry of the 1.x changelog has a test, and every test that is named exists", async () => {
  const missing: string[] = [];
  for (const { entry, shown } of await rows()) {
    const named = [...shown.matchAll(/`(tests\/[^`]+)` "([^"]+)"/g)];
    const mentioned = shown.match(/tests\//g) ?? [];
    if (named.length === 0 || named.length < mentioned.length) missing.push(`no test: ${entry}`);
    for (const [, file = "", name = ""] of named) {
      const source = await Deno.readTextFile(new URL(file, ROOT)).catch(() => undefined);
      if (source === undefined) missing.push(`no file: ${file}`);
      else if (!hasTest(source, name)) missing.push(`not in ${file}: ${name}`);
    }
  }
  assertEquals(missing, []);
});

Deno.test("every source file that docs/parity.md names exists", async () => {
  const missing: string[] = [];
  for (const { became } of await rows()) {
    for (const [, file = ""] of became.matchAll(/`((?:src|scripts|docs)\/[^`]+)`/g)) {
      const found = await Deno.stat(new URL(file, ROOT)).catch(() => undefined);
      if (found === undefined) missing.push(file);
    }
  }
  assertEquals(missing, []);
});

Deno.test("docs/parity.md has rows for every version of the 1.x line", async () => {
  const text = await Deno.readTextFile(new URL("docs/parity.md", ROOT));
  for (
    const version of [
      "1.1.3",
      "1.1.2",
      "1.1.1",
      "1.1.0",
      ...[8, 7, 6, 5, 4, 3, 2, 1, 0].map((n) => `1.0.${n}`),
    ]
  ) {
    assert(text.includes(`\n## ${version}\n\n| entry |`), version);
  }
});
