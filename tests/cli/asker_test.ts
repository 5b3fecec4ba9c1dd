import { assert, assertEquals, assertRejects } from "@std/assert";
import { PassThrough } from "node:stream";
import { asker } from "../../src/cli/asker.ts";
import { TnblockError } from "../../src/common/error.ts";
import { KEY, Pty } from "../support/pty.ts";

const PROGRAM = new URL("asker_program.ts", import.meta.url).pathname;
const RUNTIMES: Readonly<Record<string, readonly [string, readonly string[]]>> = {
  deno: [Deno.execPath(), ["run", "-A", "--no-lock", "--no-check", PROGRAM]],
  bun: [
    new URL("../../node_modules/.bin/bun", import.meta.url).pathname,
    ["--no-env-file", "run", PROGRAM],
  ],
};

for (const [runtime, [program, args]] of Object.entries(RUNTIMES)) {
  Deno.test(`questions are answered in a terminal, and a secret is not shown (${runtime})`, async () => {
    await using terminal = new Pty(program, args);
    await terminal.answers("Address", `bad${KEY.enter}`);
    await terminal.answers("there is no such host", `\x7f\x7f\x7f10.0.0.1${KEY.enter}`);
    await terminal.answers("API key", `1-geheim${KEY.enter}`);
    await terminal.answers("Transport", KEY.down + KEY.enter);
    await terminal.answers("Portals", KEY.space + KEY.down + KEY.space + KEY.enter);
    await terminal.answers("Go on?", "y");
    await terminal.answers("Destroy?", `tank/pve${KEY.enter}`);
    const shown = await terminal.shows('"isTyped":true}');
    assertEquals(JSON.parse(shown.slice(shown.lastIndexOf("{"))), {
      ...{ host: "10.0.0.1", key: "1-geheim", transport: "nvme-tcp", portals: ["a", "b"] },
      ...{ isAgreed: true, isTyped: true },
    });
    assertEquals(await terminal.ends(), 0);
    const before = terminal.shown.slice(0, terminal.shown.lastIndexOf("{"));
    assert(!before.includes("geheim"), before);
  });

  Deno.test(`Enter takes what is proposed, and never destroys (${runtime})`, async () => {
    await using terminal = new Pty(program, args);
    await terminal.answers("Address", KEY.enter);
    await terminal.answers("API key", `1-geheim${KEY.enter}`);
    await terminal.answers("Transport", KEY.enter);
    await terminal.answers("Portals", KEY.space + KEY.enter);
    await terminal.answers("Go on?", KEY.enter);
    await terminal.answers("Destroy?", KEY.enter);
    const shown = await terminal.shows("}");
    assertEquals(JSON.parse(shown.slice(shown.lastIndexOf("{"))), {
      ...{ host: "truenas.lan", key: "1-geheim", transport: "iscsi", portals: ["a"] },
      ...{ isAgreed: false, isTyped: false },
    });
  });

  Deno.test(`Ctrl-C at a question is no answer (${runtime})`, async () => {
    await using terminal = new Pty(program, args);
    await terminal.answers("Address", KEY.ctrlC);
    await terminal.shows("left with Cancelled");
    assertEquals(await terminal.ends(), 130);
  });
}

Deno.test("what an array calls its things cannot move the cursor", async () => {
  const [program, args] = RUNTIMES["bun"] ?? [];
  assert(program !== undefined && args !== undefined);
  await using terminal = new Pty(program, args);
  await terminal.answers("Address", KEY.enter);
  await terminal.answers("API key", `1-geheim${KEY.enter}`);
  await terminal.answers("Transport", KEY.enter);
  await terminal.shows("portal a?[2J");
});

Deno.test("without a terminal each question fails with the flag that answers it", async () => {
  const mute = asker({ input: new PassThrough(), output: new PassThrough() });
  const question = { flag: "--api-host", message: "Address", choices: [], word: "w" };
  for (
    const kind of ["text", "secret", "choose", "chooseSome", "confirm", "confirmTyped"] as const
  ) {
    const error = await assertRejects(() => mute[kind](question));
    assert(error instanceof TnblockError, String(error));
    assertEquals([error.code, error.field], ["invalid", "--api-host"]);
  }
});
