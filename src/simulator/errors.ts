/**
 * The errors of the simulated API in the shapes of the real one: `-32602` with a list of triples,
 * `-32001` with an errno, and the plain JSON-RPC ones without `data`.
 */

import type { Json, JsonObject } from "./json.ts";
import { pythonRepr } from "./json.ts";

/** Names of the numbers that occur; 201 and above are TrueNAS's own. */
const ERRNO_NAMES: Record<number, string> = {
  1: "EPERM",
  2: "ENOENT",
  5: "EIO",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  22: "EINVAL",
  28: "ENOSPC",
  39: "ENOTEMPTY",
  74: "EBADMSG",
  110: "ETIMEDOUT",
  201: "ENOMETHOD",
  202: "ESERVICESTARTFAILURE",
  204: "EREMOTENODEERROR",
  205: "EDATASETISLOCKED",
  207: "ENOTAUTHENTICATED",
  209: "EREBOOTREQUIRED",
  210: "EHAUNAVAILABLE",
  2007: "EZFS_BUSY",
};

export function errnoName(errno: number): string {
  return ERRNO_NAMES[errno] ?? `E${errno}`;
}

/** `[attribute, message, errno]` of a refused argument. */
export type Triple = readonly [attribute: string | null, message: string, errno: number];

/** A plain JSON-RPC error: a code and a text, no data. */
export class RpcError extends Error {
  constructor(readonly code: number, message: string) {
    super(message);
  }
}

/** What the server raises on purpose: `-32001` with an errno. */
export class CallError extends Error {
  constructor(message: string, readonly errno = 14, readonly extra: Json = null) {
    super(message);
  }
}

/** Refused arguments: `-32602`. `kind` is the class name that the trace shows. */
export class ValidationErrors extends Error {
  readonly triples: Triple[];
  readonly kind: "ValidationErrors" | "ValidationError" | "InstanceNotFound";

  constructor(
    triples: readonly Triple[] = [],
    kind: ValidationErrors["kind"] = "ValidationErrors",
  ) {
    super("Invalid params");
    this.triples = [...triples];
    this.kind = kind;
  }

  add(attribute: string | null, message: string, errno = 22): void {
    this.triples.push([attribute, message, errno]);
  }

  /** Throws itself when something was added. */
  check(): void {
    if (this.triples.length > 0) throw this;
  }
}

/** One refused argument, raised at once. */
export function invalid(attribute: string, message: string, errno = 22): ValidationErrors {
  return new ValidationErrors([[attribute, message, errno]]);
}

/** The single form that some methods raise; its text has no line end. */
export function singleInvalid(attribute: string, message: string, errno = 22): ValidationErrors {
  return new ValidationErrors([[attribute, message, errno]], "ValidationError");
}

/** `x does not exist`, with the ENOENT only in the triple. */
export function notFound(message: string): ValidationErrors {
  return new ValidationErrors([[null, message, 2]], "InstanceNotFound");
}

/** An exception that nobody foresaw: EINVAL with the bare text of the Python exception. */
export class PythonError extends Error {
  constructor(readonly kind: string, message: string, readonly reason = message) {
    super(message);
  }
}

/** `get: true` without a hit. Its text is empty, its reason is not. */
export function matchNotFound(): PythonError {
  return new PythonError("MatchNotFound", "", "MatchNotFound()");
}

/** The text of an exception as jobs and `core.bulk` tell it. */
export function errorText(error: unknown): string {
  if (error instanceof CallError) return `[${errnoName(error.errno)}] ${error.message}`;
  if (error instanceof ValidationErrors) return validationText(error);
  return error instanceof Error ? error.message : String(error);
}

function validationText(error: ValidationErrors): string {
  const lines = error.triples.map(([attribute, message, errno]) =>
    `[${errnoName(errno)}] ${attribute === null ? "None" : attribute}: ${message}`
  );
  const text = lines.join("\n");
  return error.kind === "ValidationErrors" ? text + "\n" : text;
}

/** Class name, errno and texts of an exception, for `exc_info` of a job and for `data`. */
export function describe(error: unknown): {
  kind: string;
  errno: number;
  reason: string;
  repr: string;
  extra: Json;
} {
  if (error instanceof CallError) {
    const tail = error.errno === 14 ? "" : `, ${error.errno}`;
    return {
      kind: "CallError",
      errno: error.errno,
      reason: errorText(error),
      repr: `CallError(${pythonRepr(error.message)}${tail})`,
      extra: error.extra,
    };
  }
  if (error instanceof ValidationErrors) {
    return {
      kind: error.kind,
      errno: 22,
      reason: validationText(error),
      repr: validationRepr(error),
      extra: error.triples.map((triple) => [...triple]),
    };
  }
  const kind = error instanceof PythonError ? error.kind : "RuntimeError";
  const text = error instanceof Error ? error.message : String(error);
  return {
    kind,
    errno: 22,
    reason: error instanceof PythonError ? error.reason : text,
    repr: `${kind}(${text === "" ? "" : pythonRepr(text)})`,
    extra: null,
  };
}

function validationRepr(error: ValidationErrors): string {
  const one = ([attribute, message, errno]: Triple) =>
    `${pythonRepr(attribute)}, ${pythonRepr(message)}, ${errno}`;
  const first = error.triples[0];
  if (error.kind === "InstanceNotFound") return `InstanceNotFound(${pythonRepr(first?.[1])})`;
  if (error.kind === "ValidationError" && first) return `ValidationError(${one(first)})`;
  return `ValidationErrors([${error.triples.map((t) => `ValidationError(${one(t)})`).join(", ")}])`;
}

/**
 * The `error` member of an answer.
 *
 * @param withFrames 25.x adds the stack frames, later releases do not.
 */
export function errorObject(error: unknown, withFrames: boolean): JsonObject {
  if (error instanceof RpcError) return { code: error.code, message: error.message };
  const { kind, errno, reason, repr, extra } = describe(error);
  const trace: JsonObject = {
    class: kind,
    ...(withFrames ? { frames: [] } : {}),
    formatted: `Traceback (most recent call last):\n${kind}: ${reason}`,
    repr,
  };
  const invalidParams = error instanceof ValidationErrors;
  return {
    code: invalidParams ? -32602 : -32001,
    message: invalidParams ? "Invalid params" : "Method call error",
    data: { error: errno, errname: errnoName(errno), reason, trace, extra },
  };
}
