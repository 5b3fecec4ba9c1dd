/** Answers as they are given by flags or a file, and printed for the next time: texts by question, no secret. */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import type { HostFiles } from "../host/host.ts";

/** The questions in their order; the flag of each is its name with two dashes. */
export const ANSWER_IDS = [
  "api-port",
  "api-host",
  "trust",
  "api-user",
  "api-key-file",
  "dataset",
  "transport",
  "portals",
  "target",
  "allow-hosts",
  "proof",
  "secrets-file",
  "extent-blocksize",
  "zvol-blocksize",
  "thin",
  "nodes",
  "content",
  "storage",
] as const;

/** One of {@link ANSWER_IDS}. */
export type AnswerId = typeof ANSWER_IDS[number];

/** What has been given. */
export type Answers = Partial<Record<AnswerId, string>>;

const value = v.pipe(
  v.union([v.string(), v.number(), v.boolean(), v.array(v.string())]),
  v.transform((given) =>
    Array.isArray(given)
      ? given.join(",")
      : typeof given === "boolean"
      ? given ? "yes" : "no"
      : String(given)
  ),
  v.nonEmpty("it is empty"),
);

const schema = v.strictObject(
  Object.fromEntries(ANSWER_IDS.map((id) => [id, v.optional(value)])) as Record<
    AnswerId,
    v.OptionalSchema<typeof value, undefined>
  >,
);

/**
 * Reads a file of answers: a JSON object with the names of the flags.
 *
 * @throws TnblockError `config` that names the entry.
 */
export function parseAnswers(text: string, path: string): Answers {
  const refuse = (why: string) =>
    new TnblockError("config", `Cannot use the answers in ${path}: ${why}`, {
      hint: "Make one with: tnblock setup --print-answers",
      field: "--answers",
    });
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw refuse("it is no JSON");
  }
  if (Array.isArray(parsed)) throw refuse("it is not a JSON object");
  const result = v.safeParse(schema, parsed);
  if (!result.success) {
    const issue = result.issues[0];
    const entry = v.getDotPath(issue);
    if (entry === null) throw refuse("it is not a JSON object");
    if (!(ANSWER_IDS as readonly string[]).includes(entry)) {
      throw refuse(`there is no answer "${entry}"`);
    }
    throw refuse(`"${entry}" is not a text, number, yes or no, or list of texts`);
  }
  return Object.fromEntries(
    Object.entries(result.output).filter(([, given]) => given !== undefined),
  ) as Answers;
}

/** Reads the file itself. */
export async function readAnswers(files: HostFiles, path: string): Promise<Answers> {
  const text = await files.readText(path);
  if (text === undefined) {
    throw new TnblockError("not-found", `Cannot read the answers: there is no ${path}`, {
      field: "--answers",
    });
  }
  return parseAnswers(text, path);
}

/** What was answered, for `--answers`. */
export function answersText(answers: Answers): string {
  const ordered = ANSWER_IDS.flatMap((id) => answers[id] === undefined ? [] : [[id, answers[id]]]);
  return `${JSON.stringify(Object.fromEntries(ordered), null, 2)}\n`;
}

/** Yes or no, as people and files write it. */
export function parseYes(text: string, flag: string): boolean {
  const word = text.trim().toLowerCase();
  if (["yes", "y", "1", "true", "on"].includes(word)) return true;
  if (["no", "n", "0", "false", "off"].includes(word)) return false;
  throw new TnblockError("invalid", `Cannot use "${text}" for ${flag}: it is neither yes nor no`, {
    field: flag,
  });
}
