/**
 * The answers of the REST API that are no results, as our errors. What the array itself says is
 * brought into the shape of its JSON-RPC errors and judged by `error_mapping.ts`, so that both ways
 * end in the same codes. Pure. The shapes (`middlewared/restful.py`):
 *
 *   422 {"message": "Failed to ...", "errno": 14}                       a CallError
 *   422 {"iscsi_extent_create.name": [{"message": "...", "errno": 22}]}  validation; "null": no field
 *   404 {"message": "..."}                                              `get` without a hit
 *   500 {"message": "...", "traceback": "..."}                          what nobody foresaw
 *   400 {"message": "..."}                                              the request itself
 *   401, 403, 404, 405, 413, 500 as plain text from the HTTP server, 502 and 504 as HTML from nginx
 *
 * The traceback is never looked at.
 */
import type { ErrorCode } from "../common/error.ts";
import { fromRpcError } from "./error_mapping.ts";
import {
  ArrayError,
  type ArrayErrorDetails,
  doingOf,
  type ErrorContext,
  type Outcome,
} from "./errors.ts";
import type { HttpAnswer } from "./socket_https.ts";
import { KEY_MENU } from "./key_menu.ts";

type Body = Readonly<Record<string, unknown>>;

/** An answer that is not the array's own word on the call: only its HTTP status speaks. */
export class StatusError extends ArrayError {
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string, details: ArrayErrorDetails) {
    super(code, message, details);
    this.status = status;
  }
}

/** The error that an answer with another status than 200 is. */
export function fromRestAnswer(answer: HttpAnswer, context: ErrorContext): ArrayError {
  const body = jsonOf(answer);
  if (body !== undefined && answer.status === 422) {
    return typeof body["message"] === "string"
      ? fromCallError(body, context)
      : fromValidation(body, context);
  }
  if (body !== undefined && typeof body["message"] === "string") {
    if (answer.status === 404) return unforeseen(body["message"], "MatchNotFound", context);
    if (answer.status === 500) return unforeseen(body["message"], undefined, context);
    if (answer.status === 400) {
      const words = body["message"].replace(/\s+/g, " ").slice(0, 500);
      const what = `TrueNAS does not take the request: ${words}`;
      return new ArrayError("array-fault", `${doingOf(context)}: ${what}`, {
        outcome: "answered",
        method: context.method,
        reason: what,
      });
    }
  }
  return fromStatus(answer.status, context);
}

/** An answer with status 200 that holds no JSON: nobody knows what became of the call. */
export function notJson(context: ErrorContext): StatusError {
  return statusError(200, "array-fault", "unknown", "the answer is no JSON", context);
}

/** A CallError: its number decides, its text is that of JSON-RPC without the name in brackets. */
function fromCallError(body: Body, context: ErrorContext): ArrayError {
  return fromRpcError({
    code: -32001,
    message: "Method call error",
    // The name in brackets tells the mapping that the array raised it on purpose.
    data: { error: body["errno"], reason: `[EREST] ${body["message"]}`, trace: null },
  }, context);
}

function fromValidation(body: Body, context: ErrorContext): ArrayError {
  const extra = Object.entries(body).flatMap(([field, findings]) =>
    (Array.isArray(findings) ? findings : []).map((finding: Body | null) => [
      field === "null" ? null : field,
      finding?.["message"],
      finding?.["errno"],
    ])
  );
  // As the array words it over the WebSocket, one finding a line.
  const reason = extra.map(([field, text]) => field === null ? text : `${field}: ${text}`)
    .join("\n");
  const data = reason === "" ? { extra } : { extra, reason };
  return fromRpcError({ code: -32602, message: "Invalid params", data }, context);
}

function unforeseen(text: string, kind: string | undefined, context: ErrorContext): ArrayError {
  // Some exceptions have no words but their name.
  const reason = text === "" ? `${kind ?? "an exception"}()` : text;
  return fromRpcError({
    code: -32001,
    message: "Method call error",
    data: { error: 22, reason, trace: kind === undefined ? null : { class: kind } },
  }, context);
}

/** What is said by the status alone. */
function fromStatus(status: number, context: ErrorContext): StatusError {
  const says = (code: ErrorCode, outcome: Outcome, what: string, hint?: string) =>
    statusError(status, code, outcome, `${what} (HTTP ${status})`, context, hint);
  switch (status) {
    case 401:
      return says(
        "auth",
        "answered",
        "the API key is wrong, has expired or was revoked",
        `Make a new key in ${KEY_MENU}, then set tnb-api-key. TrueNAS revokes a key for good when it is used once without TLS, also behind a proxy`,
      );
    case 403:
      return says(
        "denied",
        "answered",
        "the key may not use the REST API",
        "TrueNAS opens REST to full administrators only: use such a user's key, or set tnb-api-transport ws, where a few roles suffice",
      );
    case 404:
    case 405:
      return says("unsupported", "answered", `the REST API has no "${context.method}"`);
    case 413:
      return says("invalid", "answered", "the request is too long for TrueNAS");
    case 502:
    case 503:
      // nginx says so when nobody listens behind it, but also when somebody hung up half-way.
      return says("unreachable", "unknown", "the API is not up");
    case 504:
      return says(
        "timeout",
        "unknown",
        "the web server of TrueNAS waited 60 s for the answer and gave up, the call may go on",
      );
    default:
      return status >= 300 && status < 400
        ? says(
          "config",
          "answered",
          "it points to another address",
          "Give the address of the TrueNAS web UI itself",
        )
        : says("array-fault", "unknown", "the answer is none of the API");
  }
}

function statusError(
  status: number,
  code: ErrorCode,
  outcome: Outcome,
  reason: string,
  context: ErrorContext,
  hint?: string,
): StatusError {
  return new StatusError(status, code, `${doingOf(context)}: ${reason}`, {
    outcome,
    method: context.method,
    reason,
    ...(hint === undefined ? {} : { hint }),
  });
}

function jsonOf(answer: HttpAnswer): Body | undefined {
  if (answer.contentType !== "application/json") return undefined;
  try {
    const value: unknown = JSON.parse(answer.text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? value as Body
      : undefined;
  } catch {
    return undefined;
  }
}
