/** The one place that prints a failure and turns its code into an exit status. */
import { asTnblockError, type ErrorCode } from "../common/error.ts";
import { type CommandContext, EXIT } from "./framework.ts";

const STATUS: Readonly<Record<ErrorCode, number>> = {
  "not-found": EXIT.notFound,
  "exists": EXIT.failed,
  "in-use": EXIT.inUse,
  "volume-replaced": EXIT.inUse,
  "not-ours": EXIT.inUse,
  "no-space": EXIT.failed,
  "invalid": EXIT.usage,
  "config": EXIT.usage,
  "auth": EXIT.denied,
  "denied": EXIT.denied,
  "rate-limited": EXIT.denied,
  "unreachable": EXIT.unreachable,
  "tls": EXIT.unreachable,
  "timeout": EXIT.timeout,
  "busy": EXIT.inUse,
  "has-dependents": EXIT.inUse,
  "unsupported": EXIT.failed,
  "array-fault": EXIT.failed,
  "host-fault": EXIT.failed,
  "internal": EXIT.failed,
};

/** Prints one failure on standard error; returns the exit status. */
export function reportError(thrown: unknown, context: Pick<CommandContext, "err" | "env">): number {
  const error = asTnblockError(thrown);
  context.err(`error: ${error.message} [${error.code}]\n`);
  if (error.hint !== undefined) context.err(`  fix: ${error.hint}\n`);
  error.steps?.forEach((step, index) => context.err(`  ${index + 1}. ${step}\n`));
  if (error.code === "internal") {
    context.err(
      "  This is a defect of tnblock; please report it with the output of tnblock version\n",
    );
    if (error.cause instanceof Error && context.env["TNBLOCK_TRACE"] === "1") {
      context.err(`${error.cause.stack ?? ""}\n`);
    }
  }
  return STATUS[error.code];
}
