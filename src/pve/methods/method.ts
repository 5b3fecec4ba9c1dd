/** What a method of the hook is, and how its arguments are read. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import type { Storage } from "../../volumes/storage.ts";

/** What taking back works with. */
export interface TakingBack {
  /** Verbs that are run with it open entries of their own in the journal. */
  readonly storage: Storage;
  /** Verbs that are run with it are part of the operation that is taken back: its own entry stands for them. */
  readonly within: Storage;
}

/** A result that is worth nothing unless the caller hears of it, with what takes it back. */
export class Revocable {
  constructor(
    readonly result: unknown,
    readonly takeBack: (means: TakingBack) => Promise<void>,
  ) {}
}

/** Does one method's work; gives the result, or a {@link Revocable} one. */
export type Method = (
  storage: Storage,
  args: Readonly<Record<string, unknown>>,
) => Promise<unknown>;

/** A guest's number. */
export const vmid = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^[0-9]{1,9}$/), v.transform(Number))]),
  v.integer(),
  v.minValue(1),
  v.maxValue(999_999_999),
);

/** A size; may be fractional. */
export const amount = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^[0-9]+(\.[0-9]+)?$/), v.transform(Number))]),
  v.finite(),
);

/** Perl has no booleans: 0, 1, "", "0", "1" and JSON's own all occur. */
export const flag = v.pipe(
  v.nullish(v.union([v.boolean(), v.number(), v.string()]), false),
  v.transform((value) => value !== false && value !== 0 && value !== "" && value !== "0"),
);

/** A volume's name, not parsed yet. */
export const volname = v.pipe(v.string(), v.minLength(1), v.maxLength(300));

/** A snapshot's name: what PVE gives out, and what TrueNAS's own tasks make; no blank at the end. */
export const snapshotName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_](?:[A-Za-z0-9_:. -]{0,98}[A-Za-z0-9_:.-])?$/),
);

/** The same where none may be meant: undef of Perl and the empty text are none. */
export const someSnapshot = v.pipe(
  v.nullish(v.union([v.literal(""), snapshotName])),
  v.transform((name) => name === "" || name === null ? undefined : name),
);

/** Reads a method's arguments; unknown ones are ignored. */
export function parseArgs<S extends v.GenericSchema<unknown, unknown>>(
  schema: S,
  args: unknown,
): v.InferOutput<S> {
  const result = v.safeParse(schema, args);
  if (result.success) return result.output;
  const field = v.getDotPath(result.issues[0]) ?? "args";
  throw new TnblockError(
    "invalid",
    `Cannot read the request: args.${field} is missing or malformed`,
    { field: `args.${field}` },
  );
}
