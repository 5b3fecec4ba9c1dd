/** From the positional parameters of a request to checked arguments, or every fault in them. */

import type { Json } from "../json.ts";
import { copy } from "../json.ts";
import { PythonError, ValidationErrors } from "../errors.ts";
import type { Triple } from "../errors.ts";
import type { Release } from "../release.ts";
import { filterFault } from "../filters.ts";
import { LegacyValidator, NOT_PROVIDED } from "./legacy.ts";
import { failed, Validator } from "./pydantic.ts";
import type { MethodModel, ModelTable } from "./tables.ts";

/** Services whose `create`, `update` and `delete` go through the general wrappers. */
const CRUD_CLASS: Readonly<Record<string, string>> = { "iscsi.extent": "SharingTaskService" };

/** @throws ValidationErrors, or the TypeError of the wrappers when the number of them is wrong. */
export function checkedArguments(
  model: MethodModel,
  params: readonly Json[],
  table: ModelTable,
  release: Release,
): Json[] {
  wrapperArguments(model, params, release);
  if (params.length > model.params.length) {
    throw new ValidationErrors([[
      "",
      `Too many arguments (expected ${model.params.length}, found ${params.length})`,
      22,
    ]]);
  }
  const triples: Triple[] = [];
  const result = model.legacy
    ? legacyArguments(model, params, table, triples)
    : strictArguments(model, params, table, triples);
  if (triples.length > 0) throw new ValidationErrors(triples);
  return result;
}

function strictArguments(
  model: MethodModel,
  params: readonly Json[],
  table: ModelTable,
  triples: Triple[],
): Json[] {
  return model.params.map((schema, index) => {
    const name = model.names[index] ?? `arg${index}`;
    const given = params[index];
    if (given === undefined) {
      if (index < model.min) triples.push([name, "Field required", 22]);
      else if (schema.default !== undefined) return copy(schema.default);
      else if (schema.$ref !== undefined) return withDefaults(schema, table, name);
      return null;
    }
    const validator = new Validator(table);
    const value = validator.check(schema, given, name, name);
    triples.push(...validator.triples);
    if (failed(value)) return null;
    const fault = isFilters(name) ? filterFault(value) : undefined;
    if (fault !== undefined) triples.push([name, `Value error, ${fault}`, 22]);
    return value;
  });
}

function withDefaults(schema: { $ref?: string }, table: ModelTable, name: string): Json {
  const value = new Validator(table).check(schema, {}, name);
  return failed(value) ? null : value;
}

function legacyArguments(
  model: MethodModel,
  params: readonly Json[],
  table: ModelTable,
  triples: Triple[],
): Json[] {
  return model.params.map((schema, index) => {
    const name = model.names[index] ?? `arg${index}`;
    const validator = new LegacyValidator(table, model.method.endsWith(".update"));
    const given = params[index] ?? (index < params.length ? null : NOT_PROVIDED);
    const value = validator.check(schema, given, name, index < model.min);
    triples.push(...validator.triples);
    const fault = isFilters(name) && validator.triples.length === 0
      ? filterFault(value)
      : undefined;
    if (fault !== undefined) triples.push([name, fault, 22]);
    return value;
  });
}

function isFilters(name: string): boolean {
  return name === "filters" || name === "query-filters" || name === "query_filters";
}

/** The general create/update/delete take fixed positions, and fail as Python does on a wrong count. */
function wrapperArguments(model: MethodModel, params: readonly Json[], release: Release): void {
  const dot = model.method.lastIndexOf(".");
  const service = model.method.slice(0, dot);
  const verb = model.method.slice(dot + 1);
  const single = service.endsWith(".global");
  const wanted = verb === "create"
    ? ["data"]
    : verb === "delete"
    ? ["id_"]
    : verb === "update"
    ? (single ? ["data"] : ["id_", "data"])
    : undefined;
  if (wanted === undefined || service.startsWith("zfs.resource")) return;
  const owner = CRUD_CLASS[service] ?? (single ? "ConfigService" : "CRUDService");
  const missing = wanted.slice(params.length);
  if (missing.length > 0) {
    const names = missing.map((name) => `'${name}'`).join(" and ");
    throw new PythonError(
      "TypeError",
      `${owner}.${verb}() missing ${missing.length} required positional argument${
        missing.length === 1 ? "" : "s"
      }: ${names}`,
    );
  }
  if (verb === "delete" || params.length <= wanted.length) return;
  // self, app, audit callback and, since 25.10, the message id come before the caller's own.
  const hidden = release.major === 2504 ? 3 : 4;
  throw new PythonError(
    "TypeError",
    `${owner}.${verb}() takes ${hidden + wanted.length} positional arguments but ${
      hidden + params.length
    } were given`,
  );
}
