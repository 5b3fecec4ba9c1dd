import { assertEquals } from "@std/assert";
import { SetupPlace } from "../setup/support.ts";
import { KEY, Pty } from "../support/pty.ts";
import { scratchBase } from "../support/scratch.ts";

const BUN = new URL("../../node_modules/.bin/bun", import.meta.url).pathname;
const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

Deno.test("a question has colours in a terminal, and none where somebody says so", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const folder = await Deno.makeTempDir({ dir: scratchBase() });
  try {
    for (
      const [flags, env, isColoured] of [
        [[], {}, true],
        [["--no-color"], {}, false],
        [[], { NO_COLOR: "1", CLICOLOR_FORCE: "1" }, false],
        [[], { TERM: "dumb" }, false],
      ] as const
    ) {
      // The inner script(1) keeps the bytes, which the terminal of the test leaves out.
      const line = [BUN, "--no-env-file", "run", MAIN, ...flags, "--root", there.directory, "setup"]
        .map((word) => `'${word}'`).join(" ");
      await using terminal = new Pty("script", ["-qefc", line, `${folder}/bytes`], {
        env: { SHELL: "/bin/sh", ...env },
      });
      await terminal.answers("Address or name", KEY.ctrlC);
      await terminal.ends();
      const bytes = await Deno.readTextFile(`${folder}/bytes`);
      // deno-lint-ignore no-control-regex
      assertEquals(/\x1b\[[0-9;]*m/.test(bytes), isColoured, JSON.stringify([flags, env]));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
