/**
 * The array's errors as ours: a JSON-RPC error object becomes an `ArrayError` with a stable code.
 * Numbers decide wherever the array gives one that is telling; its English texts only where it hides
 * everything behind EFAULT or EINVAL (`middlewared/plugins/zfs_`, `iscsi_`, `nvmet`).
 *
 * A refusal without more than EINVAL is `array-fault`: what was refused is our own request, of which the
 * user knows nothing. It is his input (`invalid`) or his setting (`config`) only where the field that the
 * array names carries a value of his.
 *
 * `trace.frames` of 25.x holds local variables, secrets among them: it is never looked at.
 */
import type { ErrorCode } from "../common/error.ts";
import { ArrayError, doingOf, type ErrorContext, type Finding } from "./errors.ts";
import { rightsHint } from "./needed_roles.ts";

const EPERM = 1;
const ENOENT = 2;
const EACCES = 13;
const EFAULT = 14;
const EBUSY = 16;
const EEXIST = 17;
const EINVAL = 22;
const ENOSPC = 28;
const ENOTEMPTY = 39;
const EDQUOT = 122;
/** TrueNAS's own numbers (`middlewared/service_exception.py`). */
const ENOMETHOD = 201;
const ESERVICESTARTFAILURE = 202;
const ENOTAUTHENTICATED = 207;
/** libzfs's own numbers (`libzfs.h`, `zfs_error_t`), as 26 passes them on. */
const EZFS_BUSY = 2007;
const EZFS_EXISTS = 2008;
const EZFS_NOENT = 2009;

const CODE_BY_ERRNO: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [EPERM, "denied"],
  [ENOENT, "not-found"],
  [EACCES, "denied"],
  [EBUSY, "busy"],
  [EEXIST, "exists"],
  [ENOSPC, "no-space"],
  [ENOTEMPTY, "has-dependents"],
  [EDQUOT, "no-space"],
  [ENOMETHOD, "unsupported"],
  [ESERVICESTARTFAILURE, "array-fault"],
  [ENOTAUTHENTICATED, "auth"],
  [EZFS_BUSY, "busy"],
  [EZFS_EXISTS, "exists"],
  [EZFS_NOENT, "not-found"],
]);

/**
 * What the texts behind EFAULT and EINVAL mean; the first that matches counts. The samples:
 * `Failed to create dataset: cannot create 'tank/vm-1': dataset already exists`,
 * `cannot create 'tank/big': out of space`, `cannot destroy 'tank/vm-2@s2': dataset is busy`,
 * `cannot rollback to 'tank/vm-1@s1': more recent snapshots or bookmarks exist`,
 * `Associated target iqn.2005-10.org.freenas.ctl:t1 is in use.`,
 * `Failed to clone snapshot: Snapshot tank/vm-1@zz not found`,
 * `(sqlite3.IntegrityError) FOREIGN KEY constraint failed`.
 */
const CODE_BY_TEXT: readonly (readonly [RegExp, ErrorCode])[] = [
  [/Property does not exist/, "array-fault"],
  [/more than 80%|out of space|greater than available space/, "no-space"],
  [
    /more recent snapshots|has children|dependent clones|following (clones|holds)/,
    "has-dependents",
  ],
  [/\bin use\b|already used by/, "in-use"],
  [/already (exists|being used)|must be unique|UNIQUE constraint failed/, "exists"],
  [/is busy/, "busy"],
  [/not found|does not exist|must be a block device|FOREIGN KEY constraint failed/, "not-found"],
];

/** A field of a request that carries what a user gave, and what its refusal is. */
interface UserField {
  readonly field: RegExp;
  readonly code: "invalid" | "config";
  /** The storage's option that the value is from. */
  readonly option?: string;
}

/**
 * The fields of our writes whose values are a user's: sizes, names of volumes and snapshots, options. The
 * same field is named by the method's own checks (`pool_dataset_create.name`) or by the model that it was
 * parsed with (`data.PoolDatasetCreateVolume.name`).
 */
const USER_FIELDS: readonly UserField[] = [
  { field: inNewZvol("volsize"), code: "invalid" },
  { field: /^pool_dataset_update\.volsize$/, code: "invalid" },
  { field: inNewZvol("name"), code: "invalid" },
  { field: /^(snapshot_create|data\.PoolSnapshotCreateWithName)\.name$/, code: "invalid" },
  { field: inNewZvol("volblocksize"), code: "config", option: "tnb-zvol-blocksize" },
  { field: inNewZvol("compression"), code: "config", option: "tnb-compression" },
  { field: /^iscsi_extent_create\.blocksize$/, code: "config", option: "tnb-extent-blocksize" },
];

function inNewZvol(field: string): RegExp {
  return new RegExp(`^(pool_dataset_create|data\\.PoolDatasetCreateVolume)\\.${field}(\\.|$)`);
}

/** What is refused is that the field is there, or its type: both are of our making, whosever the value is. */
const SHAPE =
  /^(Field required|Field was not expected|Extra inputs are not permitted|attribute required|Not an? |This field is |Input should be an? )/;

/** Whose value the array refused; undefined for one of our own. */
function userFieldOf({ text, field }: Omit<Finding, "errno">): UserField | undefined {
  if (field === undefined || SHAPE.test(text)) return undefined;
  return USER_FIELDS.find((one) => one.field.test(field));
}

/** What a text of the array means, or undefined. */
function codeOfText(text: string): ErrorCode | undefined {
  return CODE_BY_TEXT.find(([pattern]) => pattern.test(text))?.[1];
}

/** The code for a number and the words that came with it. */
function codeOf(errno: number | undefined, text: string, field: string | undefined): ErrorCode {
  // The snapshot has clones: 25.x asks for "defer", 26 says EBUSY in its validation.
  if (field === "options.defer") return "has-dependents";
  if (errno === EBUSY && /following (clones|holds)/.test(text)) return "has-dependents";
  if (errno === EBUSY && text === "Rate Limit Exceeded") return "rate-limited";
  if (errno === EACCES && text === "Session is expired") return "auth";
  const known = errno === undefined ? undefined : CODE_BY_ERRNO.get(errno);
  return known ?? codeOfText(text) ?? userFieldOf({ text, field })?.code ?? "array-fault";
}

/** Turns the `error` of a JSON-RPC answer into ours. Pure; whatever comes, it answers. */
export function fromRpcError(error: unknown, context: ErrorContext): ArrayError {
  const object = asObject(error);
  const rpcCode = asNumber(object?.["code"]) ?? 0;
  const text = asText(object?.["message"]) ?? "no reason given";
  const base = { outcome: "answered" as const, method: context.method, rpcCode };
  switch (rpcCode) {
    case -32602:
      return fromValidation(asObject(object?.["data"]), context, text);
    case -32001:
      return fromCallError(asObject(object?.["data"]), context, text);
    case -32601:
      return new ArrayError(
        "unsupported",
        `${doingOf(context)}: this release of TrueNAS has no method "${context.method}"`,
        base,
      );
    case -32000:
      return new ArrayError("busy", `${doingOf(context)}: too many calls at once`, base);
    case -32603:
      // It ran, and its result was lost on the way out.
      return new ArrayError("array-fault", `${doingOf(context)}: ${oneLine(text)}`, {
        ...base,
        outcome: "unknown",
      });
    default:
      return new ArrayError("array-fault", `${doingOf(context)}: ${oneLine(text)}`, base);
  }
}

/** -32602: `data.error` is always EINVAL, the telling numbers are in the triples of `data.extra`. */
function fromValidation(
  data: Readonly<Record<string, unknown>> | undefined,
  context: ErrorContext,
  fallback: string,
): ArrayError {
  const findings = findingsOf(data?.["extra"]);
  // Where a request may have several shapes, each is found wanting: what a user gave tells most.
  const first = findings.find((finding) => finding.errno !== EINVAL) ??
    findings.find((finding) => userFieldOf(finding) !== undefined) ?? findings[0];
  const reason = stripPrefix(asText(data?.["reason"]) ?? fallback);
  const words = oneLine(findings.length === 0 ? reason : findings.map(sentence).join("; "));
  const code = first === undefined ? "array-fault" : codeOf(first.errno, first.text, first.field);
  const option = first && userFieldOf(first)?.option;
  return new ArrayError(
    code,
    `${doingOf(context)}: ${words}`,
    {
      outcome: "answered",
      method: context.method,
      rpcCode: -32602,
      reason,
      findings,
      errno: first?.errno ?? EINVAL,
      ...(first?.field ? { field: first.field } : {}),
      ...(code === "config" && option !== undefined
        ? { hint: `Set ${option} of the storage to a value that this TrueNAS takes` }
        : {}),
    },
  );
}

/** -32001: `data.error` is the number, and `reason` begins with its name in brackets. */
function fromCallError(
  data: Readonly<Record<string, unknown>> | undefined,
  context: ErrorContext,
  fallback: string,
): ArrayError {
  const raw = asText(data?.["reason"]) ?? fallback;
  return fromNumber(
    asNumber(data?.["error"]),
    raw,
    asText(asObject(data?.["trace"])?.["class"]),
    context,
  );
}

function fromNumber(
  errno: number | undefined,
  raw: string,
  trace: string | undefined,
  context: ErrorContext,
): ArrayError {
  const reason = stripPrefix(raw);
  let code = codeOf(errno, reason, undefined);
  if (trace === "MatchNotFound") code = "not-found";
  return new ArrayError(code, `${doingOf(context)}: ${oneLine(reason)}`, {
    outcome: "answered",
    method: context.method,
    rpcCode: -32001,
    reason,
    ...(errno === undefined ? {} : { errno }),
    ...(errno === EACCES && code === "denied" ? rightsHintOf(context.method) : {}),
    ...(errno === ESERVICESTARTFAILURE
      ? { hint: "The change is saved on the array, but its service did not take it over" }
      : {}),
  });
}

function rightsHintOf(method: string): { hint?: string } {
  const hint = rightsHint(method);
  return hint === undefined ? {} : { hint };
}

/** Turns a failed job (a row of `core.get_jobs`) into our error: number from `exc_info`, words from `error`. */
export function fromFailedJob(job: unknown, context: ErrorContext): ArrayError {
  const row = asObject(job);
  const exception = asObject(row?.["exc_info"]);
  return fromNumber(
    asNumber(exception?.["errno"]),
    asText(row?.["error"]) ?? `the job ended as ${asText(row?.["state"]) ?? "nothing known"}`,
    asText(exception?.["type"]),
    context,
  );
}

function findingsOf(extra: unknown): Finding[] {
  if (!Array.isArray(extra)) return [];
  return extra.filter(Array.isArray).map((triple: unknown[]) => ({
    field: asText(triple[0]),
    text: asText(triple[1]) ?? "",
    errno: asNumber(triple[2]) ?? EFAULT,
  }));
}

/** A finding without a field, or with one that repeats the method, needs no name in front. */
function sentence(finding: Finding): string {
  const words = oneLine(finding.text);
  return finding.field ? `${finding.field}: ${words}` : words;
}

/** `[EFAULT] Failed to ...` without the name in brackets. */
function stripPrefix(reason: string): string {
  return reason.replace(/^\[E[A-Z0-9_]+\] (None: )?/, "").trim();
}

/** One line without a full stop, at most 500 characters: the array's texts can hold whole tracebacks. */
function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim().replace(/\.$/, "");
  return line.length > 500 ? `${line.slice(0, 500)}…` : line;
}

function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as Readonly<Record<string, unknown>>
    : undefined;
}

const asNumber = (value: unknown) => typeof value === "number" ? value : undefined;
const asText = (value: unknown) => typeof value === "string" ? value : undefined;
