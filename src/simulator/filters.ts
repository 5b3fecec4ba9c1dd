/**
 * The query engine: `query-filters` and `query-options` over rows, as every `x.query` applies them.
 */

import type { Json, JsonObject } from "./json.ts";
import { isObject } from "./json.ts";
import { matchNotFound, PythonError } from "./errors.ts";

/** The options of a query; all are optional. */
export interface QueryOptions {
  select?: Json[];
  order_by?: string[];
  count?: boolean;
  get?: boolean;
  limit?: number;
  offset?: number;
  force_sql_filters?: boolean;
  extra?: JsonObject;
}

type Operator = (value: Json, wanted: Json) => boolean;

const same = (a: Json, b: Json) => a === b || JSON.stringify(a) === JSON.stringify(b);
const less = (a: Json, b: Json) => a !== null && b !== null && a < b;
const within = (list: Json, item: Json) =>
  typeof list === "string"
    ? typeof item === "string" && list.includes(item)
    : Array.isArray(list) && list.some((entry) => same(entry, item));

const OPERATORS: Readonly<Record<string, Operator>> = {
  "=": same,
  "!=": (a, b) => !same(a, b),
  ">": (a, b) => less(b, a),
  ">=": (a, b) => less(b, a) || same(a, b),
  "<": less,
  "<=": (a, b) => less(a, b) || same(a, b),
  "~": (a, b) => typeof a === "string" && new RegExp(`^(?:${b})`).test(a),
  "in": (a, b) => within(b, a),
  "nin": (a, b) => !within(b, a),
  "rin": (a, b) => within(a, b),
  "rnin": (a, b) => a !== null && !within(a, b),
  "^": (a, b) => typeof a === "string" && a.startsWith(String(b)),
  "!^": (a, b) => typeof a === "string" && !a.startsWith(String(b)),
  "$": (a, b) => typeof a === "string" && a.endsWith(String(b)),
  "!$": (a, b) => typeof a === "string" && !a.endsWith(String(b)),
};

/** What is wrong with a list of filters, as the server words it; undefined when nothing is. */
export function filterFault(filters: Json, depth = 0): string | undefined {
  if (!Array.isArray(filters)) return undefined;
  if (depth > 3) return "Filter depth exceeds maximum of 3";
  for (const filter of filters) {
    if (!Array.isArray(filter)) return `Invalid filter ${JSON.stringify(filter)}`;
    if (filter.length === 2) {
      const [op, value] = filter;
      if (op !== "OR") return `Invalid operation: ${op}`;
      const branches = Array.isArray(value) ? value : [];
      for (const branch of branches) {
        const list = Array.isArray(branch) && Array.isArray(branch[0]) ? branch : [branch ?? null];
        const fault = filterFault(list, depth + 1);
        if (fault !== undefined) return fault;
      }
    } else if (filter.length === 3) {
      if (operatorOf(filter[1]) === undefined) return `Invalid operation: ${filter[1]}`;
    } else return `Invalid filter ${JSON.stringify(filter)}`;
  }
  return undefined;
}

function operatorOf(name: Json | undefined): { run: Operator; folded: boolean } | undefined {
  if (typeof name !== "string") return undefined;
  const folded = name.length > 1 && name.startsWith("C");
  const run = OPERATORS[folded ? name.slice(1) : name];
  return run === undefined ? undefined : { run, folded };
}

/** The value at a dotted path; `\.` is a dot inside a key. Undefined when there is none. */
export function valueAt(row: Json, path: string): Json | undefined {
  let value: Json | undefined = row;
  for (const key of splitPath(path)) {
    if (isObject(value)) value = value[key];
    else if (Array.isArray(value) && /^\d+$/.test(key)) value = value[Number(key)];
    else return undefined;
  }
  return value;
}

function splitPath(path: string): string[] {
  if (!path.includes("\\")) return path.split(".");
  return path.split(/(?<!\\)\./).map((part) => part.replaceAll("\\.", "."));
}

type Predicate = (row: JsonObject) => boolean;

function predicate(filter: Json): Predicate {
  if (!Array.isArray(filter)) return () => false;
  if (filter.length === 2) {
    const branches = (Array.isArray(filter[1]) ? filter[1] : []).map((branch) =>
      Array.isArray(branch) && Array.isArray(branch[0]) ? all(branch) : predicate(branch)
    );
    return (row) => branches.some((branch) => branch(row));
  }
  const operator = operatorOf(filter[1]);
  const path = String(filter[0]);
  const wanted = filter[2] ?? null;
  if (operator === undefined) return () => false;
  const fold = (value: Json): Json =>
    operator.folded && typeof value === "string" ? value.toLowerCase() : value;
  const member = operator.run === OPERATORS.in && Array.isArray(wanted) && wanted.length > 8 &&
      wanted.every((item) => typeof item !== "object" || item === null)
    ? new Set<Json>(wanted)
    : undefined;
  return (row) => {
    // A field that a row does not have is silently no hit.
    const value = path in row ? row[path] : valueAt(row, path);
    if (value === undefined) return false;
    return member?.has(value) ?? operator.run(fold(value), fold(wanted));
  };
}

function all(filters: Json[]): Predicate {
  const parts = filters.map(predicate);
  return (row) => parts.every((part) => part(row));
}

/** The rows that pass all filters, in their order. */
export function filtered(rows: readonly JsonObject[], filters: Json): JsonObject[] {
  return rows.filter(all(Array.isArray(filters) ? filters : []));
}

/**
 * Filters, then orders, counts, cuts and selects.
 *
 * @param columns the real columns, which alone may be filtered with `force_sql_filters`.
 * @throws MatchNotFound for `get` without a hit.
 */
export function query(
  rows: readonly JsonObject[],
  filters: Json,
  options: QueryOptions = {},
  columns?: readonly string[],
): Json {
  if (options.force_sql_filters && columns !== undefined) refuseOthers(filters, columns);
  let hits = filtered(rows, filters);
  if (options.count) return hits.length;
  for (const key of [...(options.order_by ?? [])].reverse()) hits = ordered(hits, key);
  if (options.get) {
    const first = hits[0];
    if (first === undefined) throw matchNotFound();
    return selected(first, options.select);
  }
  const from = options.offset ?? 0;
  hits = hits.slice(from, options.limit ? from + options.limit : undefined);
  return options.select?.length ? hits.map((row) => selected(row, options.select)) : hits;
}

function refuseOthers(filters: Json, columns: readonly string[]): void {
  for (const filter of Array.isArray(filters) ? filters : []) {
    if (!Array.isArray(filter)) continue;
    if (filter.length === 2) {
      refuseOthers(
        (Array.isArray(filter[1]) ? filter[1] : []).flatMap((branch) =>
          Array.isArray(branch) && Array.isArray(branch[0]) ? branch : [branch]
        ),
        columns,
      );
    } else if (!columns.includes(String(filter[0]))) {
      throw new PythonError("KeyError", `'${filter[0]}'`);
    }
  }
}

function ordered(rows: JsonObject[], key: string): JsonObject[] {
  const nulls = /^nulls_(first|last):/.exec(key);
  let path = nulls ? key.slice(nulls[0].length) : key;
  const sign = path.startsWith("-") ? -1 : 1;
  path = path.replace(/^-/, "");
  const nullRank = nulls?.[1] === "last" ? 1 : -1;
  return [...rows].sort((a, b) => {
    const x = valueAt(a, path) ?? null;
    const y = valueAt(b, path) ?? null;
    if (x === null || y === null) return x === y ? 0 : (x === null ? nullRank : -nullRank);
    return x === y ? 0 : (x < y ? -sign : sign);
  });
}

function selected(row: JsonObject, select: Json[] | undefined): JsonObject {
  if (!select?.length) return row;
  const result: JsonObject = {};
  for (const item of select) {
    const [path, name] = Array.isArray(item) ? [String(item[0]), String(item[1])] : [String(item)];
    const value = valueAt(row, path);
    if (value === undefined) continue;
    if (name !== undefined) result[name] = value;
    else place(result, splitPath(path), value);
  }
  return result;
}

function place(target: JsonObject, path: string[], value: Json): void {
  let here = target;
  for (const key of path.slice(0, -1)) {
    const next = here[key];
    if (isObject(next)) here = next;
    else here = here[key] = {};
  }
  here[path.at(-1) ?? ""] = value;
}
