/**
 * Whether the answer of a query is the answer to it. Filters travel in the body of a GET, which a
 * proxy in between may drop without a word: the array then answers with everything it has, and the
 * first row would pass for the one that was asked for. So every row is held against the filters that
 * it can be held against, and its fields against `select`. Pure.
 */

/** What is wrong with the rows, as the rest of a sentence; undefined when nothing is. */
export function notAsked(rows: unknown, filters: unknown, options: unknown): string | undefined {
  if (!Array.isArray(rows)) return undefined;
  const select = (options as { select?: unknown } | undefined)?.select;
  const selected = Array.isArray(select) ? new Set(select.map(headOf)) : undefined;
  const wanted = Array.isArray(filters) ? filters : [];
  for (const row of rows) {
    if (typeof row !== "object" || row === null) return "a row is no object";
    for (const field of selected === undefined ? [] : Object.keys(row)) {
      if (!selected?.has(field)) return `a row has the field "${field}", which was not asked for`;
    }
    if (!wanted.every((filter) => mayPass(row as Row, filter))) {
      return "a row does not pass the filters";
    }
  }
  return undefined;
}

type Row = Readonly<Record<string, unknown>>;

/** `a.b` selects within `a`; `["a", "b"]` selects `a` under the name `b`. */
function headOf(entry: unknown): string {
  if (Array.isArray(entry)) return String(entry[1]);
  return String(entry).split(".")[0] ?? "";
}

/** False only when the row certainly does not pass: what it does not have cannot be judged. */
function mayPass(row: Row, filter: unknown): boolean {
  if (!Array.isArray(filter)) return true;
  const [field, operator, value] = filter as unknown[];
  if (filter.length === 2) {
    return field !== "OR" || !Array.isArray(operator) ||
      operator.some((branch) =>
        Array.isArray(branch) && Array.isArray(branch[0])
          ? branch.every((part) => mayPass(row, part))
          : mayPass(row, branch)
      );
  }
  const have = typeof field === "string" ? valueAt(row, field) : undefined;
  if (have === undefined) return true;
  switch (operator) {
    case "=":
      return typeof value === "object" || have === value;
    case "in":
      return !Array.isArray(value) || typeof have === "object" || value.includes(have);
    case "^":
      return typeof have !== "string" || have.startsWith(String(value));
    default:
      return true;
  }
}

/** The value at a dotted path (`subsys.id`), or undefined. */
function valueAt(row: Row, path: string): unknown {
  let value: unknown = row;
  for (const key of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Row)[key];
  }
  return value;
}
