import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { settleColors } from "../../src/cli/colors.ts";
import { type CommandContext, EXIT, runProgram } from "../../src/cli/framework.ts";
import { textAfter } from "../../src/cli/help.ts";
import { EXAMPLES } from "../../src/cli/help_examples.ts";
import { EXIT_MEANINGS, HELP_TOPICS, VARIABLES } from "../../src/cli/help_topics.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { reportError } from "../../src/cli/report_error.ts";
import { lastingCommand } from "../support/child.ts";

async function run(...args: string[]) {
  const printed = { out: "", err: "" };
  const context: CommandContext = {
    out: (text) => void (printed.out += text),
    deliver: () => Promise.resolve(true),
    err: (text) => void (printed.err += text),
    input: (async function* () {})(),
    isTerminal: false,
    env: {},
    root: "/nowhere",
    stopped: () => Promise.resolve(),
  };
  const program = buildProgram(context);
  const status = await runProgram(program, args, context)
    .catch((error) => reportError(error, context));
  return { status, ...printed, program };
}

Deno.test("every command's help has examples, and each begins with the command", async () => {
  const { program } = await run("help");
  const commands = program.createHelp().visibleCommands(program);
  assert(commands.length > 10);
  for (const command of commands) {
    const [, examples] = textAfter(command).split(/^Examples?:\n/m);
    assert(examples !== undefined, `${command.name()} has none`);
  }
  for (const [name, lines] of Object.entries(EXAMPLES)) {
    assert(commands.some((command) => command.name() === name), `no command ${name}`);
    for (const [line] of lines) assert(/tnblock/.test(line), line);
  }
});

Deno.test("help of a command is that of --help, wherever it stands, and ends with 0", async () => {
  for (const command of ["list", "doctor", "install"]) {
    const { out, err, status } = await run("help", command);
    assertEquals([status, err], [0, ""]);
    assertEquals((await run(command, "--help")).out, out);
    assertEquals((await run("--help", command)).status, 0);
  }
  assertEquals((await run("help")).out, (await run("--help")).out);
});

Deno.test("each topic is printed, and named by the program's help", async () => {
  const { out } = await run("help");
  for (const topic of Object.keys(HELP_TOPICS)) {
    assertStringIncludes(out, `tnblock help ${topic}`);
    const { out: text, status } = await run("help", topic);
    assert(status === 0 && text.length > 200, topic);
  }
});

Deno.test("every exit status has its meaning", async () => {
  assertEquals(Object.keys(EXIT_MEANINGS), Object.keys(EXIT));
  const { out } = await run("help", "exit-codes");
  for (const status of Object.values(EXIT)) assert(new RegExp(`^ +${status}  `, "m").test(out));
});

Deno.test("each variable of ours that the source reads is told", async () => {
  const source = new URL("../../src/", import.meta.url);
  const found = new Set<string>();
  const visit = async (folder: URL) => {
    for await (const entry of Deno.readDir(folder)) {
      if (entry.isDirectory) await visit(new URL(`${entry.name}/`, folder));
      else if (entry.name.endsWith(".ts")) {
        const text = await Deno.readTextFile(new URL(entry.name, folder));
        for (const [name] of text.matchAll(/\bTNBLOCK_[A-Z_]+/g)) found.add(name);
      }
    }
  };
  await visit(source);
  const ours = [...found].filter((name) => !name.startsWith("TNBLOCK_BUILD_")).sort();
  const told = VARIABLES.map(([name]) => name).filter((name) => name.startsWith("TNBLOCK_"));
  assertEquals(ours, told.sort());
});

for (
  const [args, text] of [
    [["lst"], "Did you mean list?"],
    [["list", "--fersh"], "Did you mean --fresh?"],
    [["help", "exit-code"], "Did you mean: tnblock help exit-codes"],
    [["list", "-o", "yaml"], "Allowed choices are text, json, name"],
  ] as const
) {
  Deno.test(`"tnblock ${args.join(" ")}" ends with 2 and "${text}"`, async () => {
    const { status, out, err } = await run(...args);
    assertEquals([status, out], [2, ""]);
    assertStringIncludes(err, text);
  });
}

for (
  const [env, color, expected] of [
    [{}, true, [undefined, undefined]],
    [{}, false, ["1", undefined]],
    [{ NO_COLOR: "1", CLICOLOR_FORCE: "1", FORCE_COLOR: "1" }, true, ["1", undefined]],
    [{ NO_COLOR: "" }, true, ["", undefined]],
    [{ TERM: "dumb" }, true, ["1", undefined]],
    [{ CLICOLOR_FORCE: "1" }, true, [undefined, "1"]],
    [{ CLICOLOR_FORCE: "0" }, true, [undefined, undefined]],
    [{ CLICOLOR_FORCE: "1" }, false, ["1", undefined]],
  ] as const
) {
  Deno.test(`colours with ${JSON.stringify(env)}${color ? "" : " and --no-color"}`, () => {
    const changed: Record<string, string | undefined> = { ...env };
    settleColors(changed, color);
    assertEquals([changed["NO_COLOR"], changed["FORCE_COLOR"]], [...expected]);
  });
}

Deno.test("a closed pipe is a quiet success", async () => {
  const path = (name: string) => new URL(`../../${name}`, import.meta.url).pathname;
  const child = lastingCommand("bash", {
    args: [
      ...["--norc", "-c", 'exec 3> >(true); wait $!; "$@" >&3; echo $?', "bash"],
      ...[path("node_modules/.bin/bun"), "--no-env-file", "run", path("src/main.ts")],
      ...["completions", "zsh"],
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const { stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  assertEquals([decoder.decode(stdout), decoder.decode(stderr)], ["0\n", ""]);
});
