/** `tnblock help`: the help of a command, or a topic; and what every command's help has. */
import { TnblockError } from "../common/error.ts";
import { type Command, type CommandContext, EXIT } from "./framework.ts";
import { examplesOf } from "./help_examples.ts";
import { HELP_TOPICS } from "./help_topics.ts";

// deno-lint-ignore no-explicit-any
type AnyCommand = Command<any, any, any>;

/** Adds the examples to the help of all commands, and the topics to the program's. */
export function addHelp(program: AnyCommand): void {
  program.addHelpText("after", `More:\n${topicLines().trimEnd()}`);
  for (const command of program.commands) {
    const text = examplesOf(command.name());
    if (text !== "") command.addHelpText("after", text);
  }
}

/**
 * Prints help.
 *
 * @param subject a command or a topic; the whole program's without it.
 * @throws TnblockError `invalid` when there is none of that name, with the one that is meant.
 */
export function runHelp(
  program: AnyCommand,
  subject: string | undefined,
  { out }: Pick<CommandContext, "out">,
): number {
  if (subject === undefined) {
    out(textOf(program));
    return EXIT.done;
  }
  const command = program.commands.find((one) => one.name() === subject);
  const topic = Object.hasOwn(HELP_TOPICS, subject) ? HELP_TOPICS[subject] : undefined;
  if (command === undefined && topic === undefined) {
    const names = [
      ...program.createHelp().visibleCommands(program).map((one) => one.name()),
      ...Object.keys(HELP_TOPICS),
    ];
    const near = nearest(subject, names);
    throw new TnblockError("invalid", `Cannot find help on "${subject.slice(0, 60)}"`, {
      hint: near === undefined ? "Look at: tnblock help" : `Did you mean: tnblock help ${near}`,
    });
  }
  out(topic?.text ?? (command === undefined ? "" : textOf(command)));
  return EXIT.done;
}

/** All that `--help` prints, with the texts that commands add to it. */
export function textOf(command: AnyCommand): string {
  return command.helpInformation() + textAfter(command);
}

/** What commands add to the end of their help: remarks and examples. */
export function textAfter(command: AnyCommand): string {
  let text = "";
  // Commander keeps these texts as listeners to its own events; only Node's types lack here.
  const events = command as unknown as { emit(event: string, context: unknown): boolean };
  events.emit("afterHelp", {
    ...{ error: false, command },
    write: (part: string) => void (text += part),
  });
  return text;
}

function topicLines(): string {
  return Object.entries(HELP_TOPICS)
    .map(([name, { about }]) => `  ${`tnblock help ${name}`.padEnd(26)}${about}\n`).join("");
}

/** Letters that may differ. */
const MOST_WRONG = 3;

function nearest(word: string, names: readonly string[]): string | undefined {
  const [first] = names.map((name) => ({ name, wrong: distance(word, name) }))
    .filter(({ name, wrong }) => wrong <= MOST_WRONG && wrong < name.length / 2)
    .sort((a, b) => a.wrong - b.wrong);
  return first?.name;
}

/** How many letters must be put in, left out or changed. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(changed, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
