/** Asking what is not answered yet, question by question; a wrong answer in a terminal is told and asked again. */
import { type Asker, Cancelled } from "../common/asking.ts";
import { asTnblockError, type ErrorCode, TnblockError } from "../common/error.ts";
import type { AnswerId, Answers } from "./answers.ts";
import type { PartialDraft } from "./draft.ts";
import type { ClusterFacts } from "./node_facts.ts";
import type { AnySection } from "./used_names.ts";
import { orLeave, type SetupWorld } from "./world.ts";

/** What questions see and fill. */
export interface Talk {
  readonly world: SetupWorld;
  readonly asker: Asker;
  /** Whether there is somebody to ask. */
  readonly isTerminal: boolean;
  readonly draft: PartialDraft;
  readonly cluster: ClusterFacts;
  readonly sections: readonly AnySection[];
  readonly clusterId: string | undefined;
}

/** One question. */
export interface SetupQuestion {
  readonly id: AnswerId;
  /** Whether it is to be answered at all, after what was answered before; always unless told. */
  readonly applies?: (talk: Talk) => boolean;
  /** Asks a person; the answer as a file would hold it. Reading what it needs comes first. */
  readonly ask: (talk: Talk, flag: string) => Promise<string>;
  /** What counts when nobody can be asked; undefined: it must be given. */
  readonly otherwise?: (talk: Talk) => string | undefined;
  /** Checks the answer and settles it; throws when it will not do. */
  readonly settle: (talk: Talk, answer: string) => Promise<void>;
  /** Whether nobody is asked: the flag, or {@link otherwise}, or nothing at all. */
  readonly isSilent?: boolean;
  /** What is being done while the answer is checked, where that takes its time. */
  readonly checking?: string;
  /** How often it may be answered wrongly. */
  readonly tries?: number;
  /** Whether the answer is a secret when it is typed, or is nothing to be printed. */
  readonly isSecret?: boolean;
}

/** More wrong answers than this are no mistakes. */
const TRIES = 10;

/** What another answer may put right; all else ends the talk. */
const MENDABLE: readonly ErrorCode[] = [
  ...["invalid", "config", "not-found", "exists", "in-use", "not-ours", "unsupported"] as const,
  ...["auth", "denied", "unreachable", "tls", "no-space"] as const,
];

/**
 * Settles everything.
 *
 * @returns the answers, those that were typed and those that nobody was asked for.
 * @throws Cancelled when the user leaves; TnblockError for what cannot be used, with the flag that answers it.
 */
export async function converse(
  questions: readonly SetupQuestion[],
  given: Answers,
  talk: Talk,
): Promise<Answers> {
  const answers: Answers = {};
  for (const question of questions) {
    if (question.applies?.(talk) === false) {
      if (given[question.id] !== undefined) refuseUseless(question.id);
      continue;
    }
    const answer = await settleOne(question, given[question.id], talk);
    if (answer !== undefined) answers[question.id] = answer;
  }
  return answers;
}

async function settleOne(
  question: SetupQuestion,
  given: string | undefined,
  talk: Talk,
): Promise<string | undefined> {
  const { asker, isTerminal, world } = talk;
  const flag = `--${question.id}`;
  if (given !== undefined) {
    await orLeave(world, question.settle(talk, given));
    return given;
  }
  if (!isTerminal || question.isSilent === true) {
    const fallback = question.otherwise?.(talk);
    if (fallback !== undefined) {
      await orLeave(world, question.settle(talk, fallback));
      return fallback;
    }
    if (question.isSilent === true) return undefined;
    // Fails, and names the flag.
    return await question.ask(talk, flag);
  }
  for (let left = question.tries ?? TRIES;; left--) {
    const answer = await question.ask(talk, flag);
    try {
      const settle = () => orLeave(world, question.settle(talk, answer));
      await (question.checking === undefined ? settle() : asker.working(question.checking, settle));
      return question.isSecret === true ? undefined : answer;
    } catch (error) {
      if (error instanceof Cancelled) throw error;
      const { code, message, hint } = asTnblockError(error);
      if (!MENDABLE.includes(code) || left <= 1) throw error;
      asker.tell(hint === undefined ? message : `${message}\n${hint}`);
    }
  }
}

function refuseUseless(id: AnswerId): never {
  throw new TnblockError(
    "invalid",
    `Cannot use --${id}: with the other answers it means nothing`,
    { field: `--${id}`, hint: "Leave it out" },
  );
}
