/**
 * From path, query string and body of a REST request to the positional parameters of a method, as
 * `Resource.do` of `middlewared/restful.py` does it.
 */

import type { Json, JsonObject } from "./json.ts";
import { isObject } from "./json.ts";
import type { Place } from "./rest_routes.ts";

/** A request that cannot be understood: 400 with these words. */
export class BadRequest extends Error {
  constructor(message: string, readonly errno?: number) {
    super(message);
  }
}

const OPERATORS: Readonly<Record<string, string>> = {
  eq: "=",
  neq: "!=",
  gt: ">",
  lt: "<",
  gte: ">=",
  lte: "<=",
  regex: "~",
};

/** @throws BadRequest */
export function restArguments(
  place: Place,
  verb: string,
  search: URLSearchParams,
  body: string,
): Json[] {
  const { route, id } = place;
  const data = body === "" ? undefined : parsed(body);
  if (verb === "GET" && route.filterable) {
    if (id !== undefined) {
      const extra = Object.fromEntries(
        [...search].filter(([key]) => key.startsWith("extra."))
          .map(([key, value]) => [key.slice("extra.".length), loose(value)]),
      );
      return [[["id", "=", numeric(id)]], { get: true, force_sql_filters: true, extra }];
    }
    const fromSearch = filterArguments(search);
    if (fromSearch.length > 0) return fromSearch;
  }
  const args = bodyArguments(place, verb, data);
  if (route.item) args.unshift(numeric(id ?? ""));
  return args;
}

function parsed(body: string): Json {
  try {
    return JSON.parse(body);
  } catch (error) {
    throw new BadRequest(`json parse error: ${error instanceof Error ? error.message : ""}`, 22);
  }
}

function bodyArguments(place: Place, verb: string, data: Json | undefined): Json[] {
  const { model, item } = place.route;
  if (data === undefined) return [];
  const names = item ? model.names.slice(1) : model.names;
  const empty = data === null || data === false || data === "" || data === 0 ||
    (typeof data === "object" && Object.keys(data).length === 0);
  if (names.length === 0 && (verb === "GET" || verb === "DELETE") && empty) return [];
  if (names.length <= 1) return [data];
  if (!isObject(data)) {
    throw new BadRequest("Endpoint accepts multiple params, object/dict expected.");
  }
  const given: JsonObject = { ...data };
  for (const kind of ["filters", "options"]) {
    const old = given[`query-${kind}`];
    if (old === undefined || names.includes(`query-${kind}`) || !names.includes(kind)) continue;
    delete given[`query-${kind}`];
    given[kind] = old;
  }
  const args: Json[] = [];
  for (const [index, name] of names.entries()) {
    const value = given[name];
    if (value !== undefined) args.push(value);
    else if (index + (item ? 1 : 0) < model.min) {
      throw new BadRequest(`${name} attribute expected.`);
    }
    delete given[name];
  }
  const left = Object.keys(given);
  if (left.length > 0) {
    throw new BadRequest(`The following attributes are not expected: ${left.join(", ")}`);
  }
  return args;
}

/** `?name__in=a&limit=5&extra.x=true` as filters and options; nothing when there are none. */
function filterArguments(search: URLSearchParams): Json[] {
  const filters: Json[] = [];
  const options: JsonObject = {};
  const extra: JsonObject = {};
  for (const [key, value] of search) {
    if (key === "limit" || key === "offset" || key === "count") options[key] = word(value);
    else if (key === "sort") options.sort = value.split(",").map(word);
    else if (key.startsWith("extra.")) extra[key.slice("extra.".length)] = loose(value);
    else {
      const [field = "", operator = "="] = key.includes("__") ? key.split("__", 2) : [key];
      filters.push([field, OPERATORS[operator] ?? operator, word(value)]);
    }
  }
  if (Object.keys(extra).length > 0) options.extra = extra;
  return filters.length > 0 || Object.keys(options).length > 0 ? [filters, options] : [];
}

const numeric = (text: string): Json => /^\d+$/.test(text) ? Number(text) : text;

function word(text: string): Json {
  switch (text.toLowerCase()) {
    case "true":
      return true;
    case "false":
      return false;
    case "null":
      return null;
    default:
      return numeric(text);
  }
}

function loose(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
