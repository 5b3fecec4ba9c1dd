/** Asks in a terminal; the only file that knows the library that draws the questions. */
import * as clack from "@clack/prompts";
import type { Readable, Writable } from "node:stream";
import {
  type Asker,
  Cancelled,
  type Choice,
  type ChoiceQuestion,
  type Question,
  type TextQuestion,
} from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { printable } from "./table.ts";

/** Where it asks and reads. */
export interface Terminal {
  readonly input: Readable & { readonly isTTY?: boolean };
  readonly output: Writable & { readonly isTTY?: boolean };
}

/** Choices that are shown at once. */
const MOST_ROWS = 12;

/**
 * An asker on a terminal; without one every question fails with the flag that answers it. The library would
 * end the program with status 0 then.
 */
export function asker(terminal: Terminal): Asker {
  const { input, output } = terminal;
  return input.isTTY === true && output.isTTY === true
    ? new TerminalAsker(terminal)
    : new Mute((text) => output.write(text));
}

class TerminalAsker implements Asker {
  constructor(private readonly terminal: Terminal) {}

  async text({ message, initial, refuse }: TextQuestion): Promise<string> {
    const answer = await this.#ask((streams) =>
      clack.text({
        ...streams,
        message: printable(message),
        ...(initial === undefined ? {} : { placeholder: initial, defaultValue: initial }),
        validate: refusing(refuse, initial),
      })
    );
    return answer.trim();
  }

  async secret({ message, refuse }: TextQuestion): Promise<string> {
    const answer = await this.#ask((streams) =>
      clack.password({
        ...streams,
        message: printable(message),
        // Not even its length.
        mask: "",
        validate: refusing(refuse, undefined),
      })
    );
    return answer.trim();
  }

  async choose<T>({ message, choices, initial = 0 }: ChoiceQuestion<T>): Promise<T> {
    const index = await this.#ask((streams) =>
      clack.select<number>({
        ...streams,
        message: printable(message),
        options: choices.map(optionOf),
        initialValue: initial,
        maxItems: MOST_ROWS,
      })
    );
    return chosen(choices, index);
  }

  async chooseSome<T>(
    { message, choices }: Omit<ChoiceQuestion<T>, "initial">,
  ): Promise<readonly T[]> {
    const indices = await this.#ask((streams) =>
      clack.multiselect<number>({
        ...streams,
        message: printable(message),
        options: choices.map(optionOf),
        required: true,
        maxItems: MOST_ROWS,
      })
    );
    return indices.map((index) => chosen(choices, index));
  }

  confirm(
    { message, initial = false }: Question & { readonly initial?: boolean },
  ): Promise<boolean> {
    return this.#ask((streams) =>
      clack.confirm({ ...streams, message: printable(message), initialValue: initial })
    );
  }

  async confirmTyped({ message, word }: Question & { readonly word: string }): Promise<boolean> {
    const typed = await this.#ask((streams) =>
      clack.text({
        ...streams,
        message: printable(message),
        placeholder: `type ${word} to go on, Enter alone to leave it`,
      })
    );
    return typed === word;
  }

  tell(text: string): void {
    clack.log.message(text.split("\n").map(printable), { output: this.terminal.output });
  }

  async working<T>(doing: string, work: () => Promise<T>): Promise<T> {
    // No moving picture: the library's ends the program with status 0 at Ctrl-C, whatever is half done.
    clack.log.step(printable(doing), { output: this.terminal.output });
    return await work();
  }

  async #ask<T>(
    prompt: (streams: Terminal) => Promise<T | typeof clack.CANCEL_SYMBOL>,
  ): Promise<T> {
    const answer = await prompt(this.terminal);
    if (clack.isCancel(answer)) throw new Cancelled();
    return answer as T;
  }
}

function optionOf<T>({ label, hint }: Choice<T>, index: number) {
  return {
    value: index,
    label: printable(label),
    ...(hint === undefined ? {} : { hint: printable(hint) }),
  };
}

function chosen<T>(choices: readonly Choice<T>[], index: number): T {
  const choice = choices[index];
  if (choice === undefined) throw new TnblockError("internal", "Cannot tell what was chosen");
  return choice.value;
}

/** Empty is refused where nothing stands for it. */
function refusing(refuse: TextQuestion["refuse"], initial: string | undefined) {
  return (typed: string | undefined): string | undefined => {
    const answer = (typed ?? "").trim();
    if (answer !== "") return refuse?.(answer);
    return initial === undefined ? "Give an answer, or leave with Ctrl-C" : refuse?.(initial);
  };
}

class Mute implements Asker {
  constructor(private readonly write: (text: string) => void) {}

  text(question: TextQuestion): Promise<string> {
    return unasked(question);
  }

  secret(question: TextQuestion): Promise<string> {
    return unasked(question);
  }

  choose<T>(question: ChoiceQuestion<T>): Promise<T> {
    return unasked(question);
  }

  chooseSome<T>(question: Omit<ChoiceQuestion<T>, "initial">): Promise<readonly T[]> {
    return unasked(question);
  }

  confirm(question: Question): Promise<boolean> {
    return unasked(question);
  }

  confirmTyped(question: Question): Promise<boolean> {
    return unasked(question);
  }

  tell(text: string): void {
    this.write(`${text.split("\n").map(printable).join("\n")}\n`);
  }

  async working<T>(doing: string, work: () => Promise<T>): Promise<T> {
    this.tell(doing);
    return await work();
  }
}

function unasked({ flag, message }: Question): Promise<never> {
  return Promise.reject(
    new TnblockError("invalid", `Cannot ask "${message}": this is no terminal`, {
      field: flag,
      hint: `Give ${flag}`,
    }),
  );
}
