/**
 * Writes the man pages from the tree of commands: `deno task man` makes dist/man/tnblock.1 and one page for each
 * command. Not committed: they are part of a release.
 */
import { buildProgram } from "../src/cli/program.ts";
import { type Command, EXIT } from "../src/cli/framework.ts";
import { textAfter } from "../src/cli/help.ts";
import { EXIT_MEANINGS, FILES, VARIABLES } from "../src/cli/help_topics.ts";
import { VERSION } from "../src/cli/version.ts";

// deno-lint-ignore no-explicit-any
type AnyCommand = Command<any, any, any>;

/** Text for troff: nothing in it is a request, an escape or a hyphen that may be broken at. */
export function escape(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll('"', "\\(dq")
    .replaceAll("'", "\\(aq").replaceAll("`", "\\(ga").replaceAll("^", "\\(ha")
    .replaceAll("~", "\\(ti").replaceAll("…", "...").replace(/^(?=\.)/gm, "\\&");
}

/** All pages, by file name. */
export function manPages(): Map<string, string> {
  const program = tree();
  const commands = program.createHelp().visibleCommands(program);
  const pages = new Map([["tnblock.1", mainPage(program, commands)]]);
  for (const command of commands) {
    pages.set(`tnblock-${command.name()}.1`, commandPage(program, command));
  }
  return pages;
}

function tree(): AnyCommand {
  return buildProgram({
    out: () => {},
    deliver: () => Promise.resolve(true),
    err: () => {},
    input: (async function* () {})(),
    isTerminal: false,
    env: {},
    root: "/",
    stopped: () => Promise.resolve(),
  });
}

function mainPage(program: AnyCommand, commands: readonly AnyCommand[]): string {
  return page("tnblock", program.description(), [
    section("SYNOPSIS", ".B tnblock\n[\\fIoptions\\fR] \\fIcommand\\fR ...\n"),
    section("DESCRIPTION", paragraph(program.description())),
    section(
      "COMMANDS",
      commands.map((one) => item(`tnblock-${one.name()}(1)`, one.description())).join(""),
    ),
    optionSection("OPTIONS", program, program),
    exitSection(),
    section("ENVIRONMENT", VARIABLES.map(([name, about]) => item(name, about)).join("")),
    section("FILES", FILES.map(([path, about]) => item(path, about)).join("")),
    section("EXAMPLES", literal("tnblock demo\ntnblock install --dry-run\ntnblock setup")),
    section("SEE ALSO", seeAlso(commands.map((one) => one.name()))),
  ]);
}

function commandPage(program: AnyCommand, command: AnyCommand): string {
  const name = command.name();
  const words = command.registeredArguments.map((argument) => {
    const shown = `\\fI${escape(argument.name())}\\fR${argument.variadic ? " ..." : ""}`;
    return argument.required ? shown : `[${shown}]`;
  });
  const { remarks, examples } = takeApart(textAfter(command));
  return page(`tnblock-${name}`, command.description(), [
    section(
      "SYNOPSIS",
      `.B tnblock ${escape(name)}\n[\\fIoptions\\fR]${words.map((word) => ` ${word}`).join("")}\n`,
    ),
    section(
      "DESCRIPTION",
      paragraph(sentence(command.description())) + remarks.map(paragraph).join(""),
    ),
    command.registeredArguments.length === 0 ? "" : section(
      "ARGUMENTS",
      command.registeredArguments.map((argument) =>
        item(
          argument.name(),
          argument.description + choices(argument.argChoices, undefined),
        )
      ).join(""),
    ),
    optionSection("OPTIONS", command, command),
    optionSection("GLOBAL OPTIONS", program, program),
    exitSection(),
    examples === "" ? "" : section("EXAMPLES", literal(examples)),
    section("SEE ALSO", ".BR tnblock (1)\n"),
  ]);
}

function page(name: string, about: string, sections: readonly string[]): string {
  const title = escape(name.toUpperCase());
  const head = `.\\" Written from the tree of commands by scripts/build_man.ts.\n` +
    `.TH "${title}" 1 "" "tnblock ${escape(VERSION)}" "tnblock"\n`;
  return head + section("NAME", `${escape(name)} \\- ${escape(about)}\n`) + sections.join("");
}

function section(title: string, body: string): string {
  return `.SH ${title.includes(" ") ? `"${title}"` : title}\n${body}`;
}

function paragraph(text: string): string {
  return `.PP\n${escape(text)}\n`;
}

function item(term: string, about: string): string {
  return `.TP\n\\fB${escape(term)}\\fR\n${escape(sentence(about))}\n`;
}

function literal(text: string): string {
  return `.PP\n.EX\n${escape(text)}\n.EE\n`;
}

function optionSection(title: string, command: AnyCommand, of: AnyCommand): string {
  const options = command.createHelp().visibleOptions(of);
  return section(
    title,
    options.map((option) =>
      item(option.flags, option.description + choices(option.argChoices, option.defaultValue))
    ).join(""),
  );
}

function choices(values: readonly string[] | undefined, preset: unknown): string {
  const of = values === undefined ? "" : `; one of ${values.join(", ")}`;
  return of + (typeof preset === "string" ? `; ${preset} unless given` : "");
}

function exitSection(): string {
  const rows = Object.entries(EXIT_MEANINGS).map(([name, about]) =>
    item(String(EXIT[name as keyof typeof EXIT]), about)
  );
  return section("EXIT STATUS", rows.join(""));
}

function seeAlso(names: readonly string[]): string {
  return names.map((name, index) =>
    `.BR ${escape(`tnblock-${name}`)} (1)${index === names.length - 1 ? "" : ","}\n`
  ).join("");
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** What a command adds to its help: remarks by paragraph, and the lines below `Examples:`. */
function takeApart(text: string): { readonly remarks: string[]; readonly examples: string } {
  const [before = "", ...after] = text.split(/^Examples?:\n/m);
  return {
    remarks: before.split(/\n{2,}/).map((part) => part.trim().replaceAll("\n", " "))
      .filter((part) => part !== ""),
    examples: after.join("").replace(/^ {2}/gm, "").trim(),
  };
}

if (import.meta.main) {
  const folder = new URL("../dist/man/", import.meta.url);
  await Deno.mkdir(folder, { recursive: true });
  for (const [name, text] of manPages()) await Deno.writeTextFile(new URL(name, folder), text);
}
