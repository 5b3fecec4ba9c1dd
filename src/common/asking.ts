/**
 * Asking the user. What to ask is decided by the tools (setup, cleanup-orphans, doctor), how it looks by
 * `cli/asker.ts`; a tool never knows whether a terminal, a file of answers or a test answers it.
 */

/** One choice of a list. */
export interface Choice<T> {
  readonly value: T;
  readonly label: string;
  /** Shown behind the label, dimmed. */
  readonly hint?: string;
}

/** What every question has. */
export interface Question {
  /** What gives the answer without a terminal, e.g. `--api-host`. */
  readonly flag: string;
  /** A short sentence without a final stop. */
  readonly message: string;
}

/** A question that is answered with a line. */
export interface TextQuestion extends Question {
  /** Taken when the line is empty. */
  readonly initial?: string;
  /** What is wrong with an answer; undefined when it is right. Asked again then. */
  readonly refuse?: (answer: string) => string | undefined;
}

/** A question that is answered from a list of at least one. */
export interface ChoiceQuestion<T> extends Question {
  readonly choices: readonly Choice<T>[];
  /** Index of the choice that is proposed; the first unless given. */
  readonly initial?: number;
}

/** Somebody who answers. Every method rejects with {@link Cancelled} when he leaves (Ctrl-C, end of input). */
export interface Asker {
  text(question: TextQuestion): Promise<string>;
  /** As {@link text}; nothing of the answer is shown. */
  secret(question: TextQuestion): Promise<string>;
  choose<T>(question: ChoiceQuestion<T>): Promise<T>;
  /** At least one of the choices. */
  chooseSome<T>(question: Omit<ChoiceQuestion<T>, "initial">): Promise<readonly T[]>;
  /** Yes or no; Enter alone means `initial`, which is no unless given. */
  confirm(question: Question & { readonly initial?: boolean }): Promise<boolean>;
  /**
   * Yes only when the word is typed exactly: for what destroys data.
   *
   * @param word e.g. the name of what is destroyed.
   */
  confirmTyped(question: Question & { readonly word: string }): Promise<boolean>;
  /** Tells something between two questions; several lines are fine. */
  tell(text: string): void;
  /** Shows that something is being done, and then what came of it. */
  working<T>(doing: string, work: () => Promise<T>): Promise<T>;
}

/** The user has left: nothing more is asked, what was begun is undone, and the program ends with 130. */
export class Cancelled extends Error {
  override readonly name = "Cancelled";
  constructor() {
    super("cancelled");
  }
}
