/** The hook protocol: one JSON object a line, in and out (design section 4). */
import * as v from "valibot";
import { asTnblockError, TnblockError } from "../common/error.ts";

/** The protocol that this program speaks; it accepts the one before it too. */
export const PROTOCOL = 1;

/** Longest request in bytes. */
export const REQUEST_LIMIT = 1024 * 1024;

/** Milliseconds for a request that names no deadline, and the most that one may ask for. */
const DEFAULT_DEADLINE_MS = 45_000;
const LONGEST_DEADLINE_MS = 600_000;

/** Perl does not tell a number from its text, and its undef arrives as null. */
const number = v.union([
  v.number(),
  v.pipe(v.string(), v.regex(/^[0-9]{1,12}$/), v.transform(Number)),
]);

const envelope = v.object({
  protocol: v.pipe(number, v.integer()),
  id: v.union([v.string(), v.number()]),
  method: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  storage: v.nullish(v.string(), ""),
  config: v.nullish(v.record(v.string(), v.unknown()), {}),
  args: v.nullish(v.record(v.string(), v.unknown()), {}),
  deadlineMs: v.nullish(v.pipe(number, v.minValue(1)), DEFAULT_DEADLINE_MS),
  node: v.nullish(v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$/))),
  pveApi: v.nullish(number),
});

/** A request of the shim. */
export type HookRequest = v.InferOutput<typeof envelope>;

/** Whatever of the id can be read, so that even a broken request gets an answer that is its own. */
export function requestId(value: unknown): string | number | null {
  if (typeof value !== "object" || value === null || !("id" in value)) return null;
  return typeof value.id === "string" || typeof value.id === "number" ? value.id : null;
}

/** Parses a line; `id` is what could be read of it when the rest is unusable. */
export function parseRequest(
  line: string,
): { id: string | number | null; request?: HookRequest; error?: TnblockError } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return {
      id: null,
      error: new TnblockError("invalid", "Cannot read the request: it is not JSON"),
    };
  }
  const id = requestId(value);
  const parsed = v.safeParse(envelope, value);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    const field = v.getDotPath(issue) ?? "the request";
    return {
      id,
      error: new TnblockError(
        "invalid",
        `Cannot read the request: ${field} is missing or malformed`,
        { field },
      ),
    };
  }
  const { protocol } = parsed.output;
  if (protocol !== PROTOCOL && protocol !== PROTOCOL - 1) {
    return {
      id,
      error: new TnblockError(
        "unsupported",
        `Cannot answer the request: it speaks protocol ${protocol}, this tnblock ${PROTOCOL}`,
        { field: "protocol", hint: "Install shim and binary of the same version on this node" },
      ),
    };
  }
  const deadlineMs = Math.min(parsed.output.deadlineMs, LONGEST_DEADLINE_MS);
  return { id, request: { ...parsed.output, deadlineMs } };
}

/** A result that is JSON already. */
export class RawJson {
  constructor(readonly text: string) {}
}

/** The line of a success. */
export function successLine(id: string | number | null, result: unknown): string {
  if (result instanceof RawJson) {
    return `{"id":${JSON.stringify(id)},"ok":true,"result":${result.text}}\n`;
  }
  return JSON.stringify({ id, ok: true, result: result ?? null }) + "\n";
}

/** The line of a failure: code, message, and what helps; nothing of the cause, which may hold anything. */
export function failureLine(id: string | number | null, thrown: unknown): string {
  const error = asTnblockError(thrown);
  return JSON.stringify({
    id,
    ok: false,
    error: {
      code: error.code,
      message: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.steps === undefined ? {} : { steps: error.steps }),
      ...(error.errno === undefined ? {} : { errno: error.errno }),
      ...(error.field === undefined ? {} : { field: error.field }),
    },
  }) + "\n";
}
