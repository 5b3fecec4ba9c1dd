/** What the resource files share: sending a read or a write, and checking the answer's shape. */
import * as v from "valibot";
import { type Caller, READ_DEADLINE_MS, type Wait, WRITE_DEADLINE_MS } from "./caller.ts";
import { ArrayError } from "./errors.ts";

/** What is asked of the array: a method with its parameters, and what for. */
export interface Request {
  readonly method: string;
  readonly params: readonly unknown[];
  /** The beginning of every error: `Cannot read zvol "tank/pve/vm-1"`. */
  readonly doing: string;
}

/** Sends a read and checks the answer. */
export async function read<T>(
  caller: Caller,
  request: Request,
  schema: v.GenericSchema<unknown, T>,
  wait: Wait = {},
): Promise<T> {
  const answer = await caller.call(request.method, request.params, {
    ...wait,
    // Whoever has more time than a read takes does not want to spend it on one that hangs.
    deadlineMs: Math.min(READ_DEADLINE_MS, wait.deadlineMs ?? READ_DEADLINE_MS),
    lane: "read",
    doing: request.doing,
  });
  return checked(schema, answer, request);
}

/** Sends a write and checks the answer. */
export async function write<T>(
  caller: Caller,
  request: Request,
  schema: v.GenericSchema<unknown, T>,
  wait: Wait = {},
): Promise<T> {
  const answer = await caller.call(request.method, request.params, {
    deadlineMs: WRITE_DEADLINE_MS,
    ...wait,
    lane: "write",
    doing: request.doing,
  });
  return checked(schema, answer, request);
}

/** An answer that must have a shape; the array is at fault when it has not. */
export function checked<T>(
  schema: v.GenericSchema<unknown, T>,
  answer: unknown,
  request: Request,
): T {
  const parsed = v.safeParse(schema, answer);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  const where = v.getDotPath(issue);
  throw new ArrayError(
    "array-fault",
    `${request.doing}: TrueNAS answered "${request.method}" with something else than expected` +
      (where === null ? "" : ` (at ${where}: expected ${issue.expected ?? "another value"})`),
    { outcome: "answered", method: request.method },
  );
}

/** For writes whose result says nothing: mostly `true`, or null. One that answers with the row has {@link bag}. */
export const anything = v.unknown();

/**
 * An object whose entries are looked at later: it is passed on as it came, because copying and
 * checking each property of 10,000 volumes takes longer than parsing their JSON.
 */
export const bag = v.custom<Readonly<Record<string, unknown>>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
);

/** The answer of a query. */
export function rows<T>(row: v.GenericSchema<unknown, T>): v.GenericSchema<unknown, T[]> {
  return v.array(row);
}

/**
 * Options for tables that live in the array's database: filters are put into SQL, and no look at
 * every row's zvol is taken for `locked` (one internal call a row otherwise).
 */
export const DATABASE_QUERY = {
  force_sql_filters: true,
  extra: { retrieve_locked_info: false },
} as const;

/** `zvol/<dataset>`, as extents and namespaces name a zvol; a blank is written as `+`. */
export function devicePath(zvol: string): string {
  return `zvol/${zvol.replaceAll(" ", "+")}`;
}

/** The dataset path of a device path, or undefined when it names no zvol (a file). */
export function zvolOfDevicePath(path: string | null | undefined): string | undefined {
  if (path === null || path === undefined || !path.startsWith("zvol/")) return undefined;
  return path.slice("zvol/".length).replaceAll("+", " ");
}
