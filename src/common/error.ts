/**
 * The one error type of tnblock. Every failure that a user may see is a `TnblockError` with a stable
 * code; it keeps its structure (code, array errno and field, cause) from where it arose to where it
 * is printed.
 */

/** The stable codes. A code says of what kind a failure is; it never changes its meaning. */
export const ERROR_CODES = [
  /** The thing named does not exist. */
  "not-found",
  /** A thing of that name exists already and may not be used. */
  "exists",
  /** Refused because somebody uses it. */
  "in-use",
  /** The name is taken by another volume than the one that was meant. */
  "volume-replaced",
  /** It exists, but carries no mark of ours. */
  "not-ours",
  /** Not enough room on the array. */
  "no-space",
  /** The request is malformed. */
  "invalid",
  /** The storage's configuration is wrong or incomplete. */
  "config",
  /** The array did not accept who we are. */
  "auth",
  /** We are known, but may not do this. */
  "denied",
  /** Too many logins. */
  "rate-limited",
  /** No connection to the array or the portal. */
  "unreachable",
  /** The certificate is not trusted. */
  "tls",
  /** A deadline passed. */
  "timeout",
  /** Somebody else is at work on it; trying again may help. */
  "busy",
  /** Clones or snapshots hang on it. */
  "has-dependents",
  /** Not possible with this release, transport or volume. */
  "unsupported",
  /** The array did something it should not. */
  "array-fault",
  /** The node did something it should not. */
  "host-fault",
  /** A defect of tnblock. */
  "internal",
] as const;

/** One of {@link ERROR_CODES}. */
export type ErrorCode = typeof ERROR_CODES[number];

/** What an error may carry besides its code and message. */
export interface ErrorDetails {
  /** What to run or change; a separate line for the user. */
  readonly hint?: string;
  /** The numbered steps that put it right. */
  readonly steps?: readonly string[];
  /** The array's or kernel's own number for the failure (Linux errno, or TrueNAS's 201 and above). */
  readonly errno?: number;
  /** The field of a request that the failure is about, as the array names it. */
  readonly field?: string;
  /** The failure underneath. */
  readonly cause?: unknown;
}

/**
 * A failure with a stable code.
 *
 * The message is one line: `Cannot <do what> "<thing>": <what is>`.
 */
export class TnblockError extends Error {
  override readonly name = "TnblockError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly steps: readonly string[] | undefined;
  readonly errno: number | undefined;
  readonly field: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.steps = details.steps;
    this.errno = details.errno;
    this.field = details.field;
  }
}

/** The same failure with another message: what the caller was doing is put in front. */
export function withContext(error: unknown, doing: string): TnblockError {
  const inner = asTnblockError(error);
  const details: { -readonly [K in keyof ErrorDetails]: ErrorDetails[K] } = { cause: inner };
  if (inner.hint !== undefined) details.hint = inner.hint;
  if (inner.steps !== undefined) details.steps = inner.steps;
  if (inner.errno !== undefined) details.errno = inner.errno;
  if (inner.field !== undefined) details.field = inner.field;
  return new TnblockError(inner.code, `${doing}: ${inner.message}`, details);
}

/** Any thrown value as a `TnblockError`; what is not one already is a defect (`internal`). */
export function asTnblockError(error: unknown): TnblockError {
  if (error instanceof TnblockError) return error;
  // What the node said, wherever nobody put it into words; common knows no other room's types.
  if (error instanceof Error && error.name === "HostError") {
    return new TnblockError("host-fault", `Cannot go on: ${error.message}`, { cause: error });
  }
  const text = error instanceof Error ? error.message : String(error);
  return new TnblockError("internal", `Unexpected failure: ${text}`, { cause: error });
}
