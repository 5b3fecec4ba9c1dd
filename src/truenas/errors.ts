/**
 * The failure of a call on the array, and the questions to ask of it. How the array's own error
 * objects become one is in `error_mapping.ts`.
 */
import { type ErrorCode, type ErrorDetails, TnblockError } from "../common/error.ts";

/** Whether a call was carried out: before it left us, perhaps, or answered by the array. */
export type Outcome = "not-sent" | "unknown" | "answered";

/** One finding of the array's validation: the field as it names it, its words, its number. */
export interface Finding {
  readonly field: string | undefined;
  readonly text: string;
  readonly errno: number;
}

/** What an {@link ArrayError} keeps besides code and message. */
export interface ArrayErrorDetails extends ErrorDetails {
  readonly outcome: Outcome;
  readonly method?: string;
  readonly rpcCode?: number;
  readonly reason?: string;
  readonly findings?: readonly Finding[];
}

/** A failed call, or a connection that failed. */
export class ArrayError extends TnblockError {
  /** Only `not-sent` and a refusal that was `answered` may be repeated without looking first. */
  readonly outcome: Outcome;
  readonly method: string | undefined;
  /** The JSON-RPC code, e.g. -32602; undefined when the array did not answer. */
  readonly rpcCode: number | undefined;
  /** The array's words, without its `[ERRNAME] ` prefix. */
  readonly reason: string | undefined;
  readonly findings: readonly Finding[];

  constructor(code: ErrorCode, message: string, details: ArrayErrorDetails) {
    super(code, message, details);
    this.outcome = details.outcome;
    this.method = details.method;
    this.rpcCode = details.rpcCode;
    this.reason = details.reason;
    this.findings = details.findings ?? [];
  }
}

/** What was asked for when the error came. */
export interface ErrorContext {
  readonly method: string;
  /** `Cannot create zvol "tank/x"`; default `Cannot call "<method>"`. */
  readonly doing?: string;
}

/** The beginning of every message about a call. */
export function doingOf(context: ErrorContext): string {
  return context.doing ?? `Cannot call "${context.method}"`;
}

/** The {@link ArrayError} at the bottom of an error, through any context that was put around it. */
export function arrayErrorIn(error: unknown): ArrayError | undefined {
  let inner = error;
  for (let depth = 0; depth < 10 && inner instanceof Error; depth++) {
    if (inner instanceof ArrayError) return inner;
    inner = inner.cause;
  }
  return undefined;
}

/** What is known of the call that failed; `not-sent` for an error that is not from the array at all. */
export function outcomeOf(error: unknown): Outcome {
  return arrayErrorIn(error)?.outcome ?? "not-sent";
}

const hasCode = (error: unknown, code: ErrorCode) => arrayErrorIn(error)?.code === code;

/** ENOENT, and EZFS_NOENT of the libraries behind 26. */
const ABSENT: readonly number[] = [2, 2009];

/** The thing named does not exist (or its parent does not). */
export const isNotFound = (error: unknown): boolean => hasCode(error, "not-found");
/**
 * The array's own number says that the thing named does not exist. Destruction goes by this, not by
 * {@link isNotFound}, which also knows the words of errors without a telling number.
 */
export const isAbsent = (error: unknown): boolean => {
  const found = arrayErrorIn(error);
  return found?.code === "not-found" && ABSENT.includes(found.errno ?? 0);
};
/** A thing of that name, number or path is there already. */
export const isExists = (error: unknown): boolean => hasCode(error, "exists");
/** Held for the moment (EBUSY): trying again may help. */
export const isBusy = (error: unknown): boolean => hasCode(error, "busy");
/** Somebody uses it: a session to the target, another export of the same zvol. */
export const isInUse = (error: unknown): boolean => hasCode(error, "in-use");
/** Clones, holds, children or newer snapshots stand in the way. */
export const hasDependents = (error: unknown): boolean => hasCode(error, "has-dependents");
/** The method does not exist in this release or dialect. */
export const isUnsupported = (error: unknown): boolean => hasCode(error, "unsupported");
/** It is not known whether the call was carried out: look before doing anything again. */
export const isUnknownOutcome = (error: unknown): boolean => outcomeOf(error) === "unknown";

/**
 * The device node of a new zvol is not there yet: it comes up to seconds after the zvol
 * (`middlewared/plugins/pool_/dataset.py` does not wait for udev). Trying again helps.
 */
export function isDeviceMissing(error: unknown): boolean {
  return arrayErrorIn(error)?.findings.some((finding) =>
    /\.(disk|device_path)$/.test(finding.field ?? "") &&
    /does not exist|must be a block device/.test(finding.text)
  ) ?? false;
}

/** The row is saved, but the service could not take it over (ESERVICESTARTFAILURE). */
export const isReloadFailed = (error: unknown): boolean =>
  arrayErrorIn(error)?.errno === ESERVICESTARTFAILURE;

/** TrueNAS's own number (`middlewared/service_exception.py`). */
const ESERVICESTARTFAILURE = 202;
