/**
 * The strict validator of the releases' newer models: types are never converted, unknown keys are
 * refused, every fault is reported at once, in the wording of the library that the server uses.
 */

import type { Json, JsonObject } from "../json.ts";
import { copy, isObject, pythonRepr } from "../json.ts";
import type { Triple } from "../errors.ts";
import { fieldCheck, modelCheck, ownLimits } from "./checks.ts";
import { ENUM_NAMES, FIELD_ORDERS } from "./orders.ts";
import type { ModelTable, Schema } from "./tables.ts";

/** Strings are limited to this many characters unless the field says otherwise. */
const LONG_STRING = 1024;

const FAILED = Symbol("failed");
type Checked = Json | typeof FAILED;

/** Collects the faults of one set of arguments. */
export class Validator {
  readonly triples: Triple[] = [];

  constructor(private readonly table: ModelTable) {}

  /** The value with defaults filled in; faults are added to {@link triples}. */
  check(schema: Schema, value: Json, at: string, field = ""): Checked {
    if (schema.$ref !== undefined) {
      const name = modelName(schema.$ref);
      return this.model(name, this.resolve(name), value, at);
    }
    if (schema.oneOf !== undefined) return this.tagged(schema.oneOf, value, at);
    if (schema.anyOf !== undefined) return this.union(schema.anyOf, value, at, field);
    if (schema.enum !== undefined || schema.const !== undefined) {
      const choices = schema.enum ?? [schema.const as Json];
      // The real check compares without converting: "512" is not 512, and true is not 1.
      if (choices.some((choice) => choice === value)) return value;
      return this.fail(at, choicesText(choices, field));
    }
    switch (schema.type) {
      case "integer":
        return Number.isInteger(value) ? this.range(schema, value as number, at) : this.fail(
          at,
          "Input should be a valid integer",
        );
      case "number":
        return typeof value === "number" ? value : this.fail(at, "Input should be a valid number");
      case "boolean":
        return typeof value === "boolean"
          ? value
          : this.fail(at, "Input should be a valid boolean");
      case "string":
        return this.text(schema, value, at);
      case "null":
        return value === null ? null : this.fail(at, "Input should be None");
      case "array":
        return this.list(schema, value, at, field);
      case "object":
        return this.plainObject(schema, value, at);
      default:
        return value;
    }
  }

  private fail(at: string, message: string): typeof FAILED {
    this.triples.push([at, message, 22]);
    return FAILED;
  }

  private resolve(name: string): Schema {
    const schema = this.table.models.get(name);
    if (schema === undefined) throw new Error(`Cannot find model "${name}": not in the table`);
    return schema;
  }

  private range(schema: Schema, value: number, at: string): Checked {
    if (schema.minimum !== undefined && value < schema.minimum) {
      return this.fail(at, `Input should be greater than or equal to ${schema.minimum}`);
    }
    if (schema.maximum !== undefined && value > schema.maximum) {
      return this.fail(at, `Input should be less than or equal to ${schema.maximum}`);
    }
    if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) {
      return this.fail(at, `Input should be greater than ${schema.exclusiveMinimum}`);
    }
    if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum) {
      return this.fail(at, `Input should be less than ${schema.exclusiveMaximum}`);
    }
    return value;
  }

  private text(schema: Schema, value: Json, at: string): Checked {
    if (typeof value !== "string") return this.fail(at, "Input should be a valid string");
    const length = [...value].length;
    const most = schema.maxLength ?? LONG_STRING;
    if (schema.minLength !== undefined && length < schema.minLength) {
      return this.fail(at, `String should have at least ${characters(schema.minLength)}`);
    }
    if (length > most) return this.fail(at, `String should have at most ${characters(most)}`);
    return value;
  }

  private list(schema: Schema, value: Json, at: string, field: string): Checked {
    if (!Array.isArray(value)) return this.fail(at, "Input should be a valid list");
    const before = this.triples.length;
    const items = value.map((item, index) =>
      schema.items === undefined ? item : this.check(schema.items, item, `${at}.${index}`, field)
    );
    if (this.triples.length > before) return FAILED;
    if (schema.uniqueItems && new Set(items.map((i) => JSON.stringify(i))).size < items.length) {
      return this.fail(at, "Value error, Items are not unique");
    }
    return items as Json[];
  }

  private plainObject(schema: Schema, value: Json, at: string): Checked {
    if (!isObject(value)) return this.fail(at, "Input should be a valid dictionary");
    const extra = schema.additionalProperties;
    if (typeof extra !== "object") return copy(value);
    const before = this.triples.length;
    for (const [key, item] of Object.entries(value)) this.check(extra, item, `${at}.${key}`);
    return this.triples.length > before ? FAILED : copy(value);
  }

  /** An optional field's plain form carries no label; real alternatives are named in the place. */
  private union(choices: readonly Schema[], value: Json, at: string, field: string): Checked {
    const real = choices.filter((choice) => choice.type !== "null");
    if (real.length < choices.length && value === null) return null;
    const only = real[0];
    if (real.length === 1 && only !== undefined) return this.check(only, value, at, field);
    const triples: Triple[] = [];
    for (const choice of real) {
      const trial = new Validator(this.table);
      const result = trial.check(choice, value, `${at}.${label(choice)}`, field);
      if (result !== FAILED && trial.triples.length === 0) return result;
      triples.push(...trial.triples);
    }
    this.triples.push(...triples);
    return FAILED;
  }

  /** A union whose member is chosen by one field. */
  private tagged(choices: readonly Schema[], value: Json, at: string): Checked {
    const members = choices.flatMap((choice) => {
      const name = modelName(choice.$ref ?? "");
      return tagsOf(this.resolve(name)).map(({ field, tag }) => ({ name, field, tag }));
    });
    const field = members[0]?.field ?? "";
    if (!isObject(value)) {
      return this.fail(at, "Input should be a valid dictionary or object to extract fields from");
    }
    const tag = value[field];
    if (tag === undefined) {
      return this.fail(at, `Unable to extract tag using discriminator '${field}'`);
    }
    const member = members.find((candidate) => candidate.tag === tag);
    if (member === undefined) {
      const expected = members.map(({ tag }) => memberText(tag, field)).join(", ");
      return this.fail(
        at,
        `Input tag '${
          typeof tag === "string" ? tag : pythonRepr(tag)
        }' found using '${field}' does not match any of the expected tags: ${expected}`,
      );
    }
    return this.model(member.name, this.resolve(member.name), value, `${at}.${member.tag}`);
  }

  private model(name: string, schema: Schema, value: Json, at: string): Checked {
    if (!isObject(value)) {
      return this.fail(at, `Input should be a valid dictionary or instance of ${name}`);
    }
    const properties = schema.properties ?? {};
    const required = new Set(schema.required ?? []);
    const before = this.triples.length;
    const result: JsonObject = {};
    for (const field of fieldOrder(name, schema)) {
      const declared = properties[field];
      if (declared === undefined) continue;
      const spec = without(declared, ownLimits(name, field));
      const given = value[field];
      const here = `${at}.${field}`;
      if (given === undefined) {
        if (required.has(field)) this.fail(here, "Field required");
        else if (spec.default !== undefined) result[field] = copy(spec.default);
        continue;
      }
      // A create model's field without default may be left out but not be wrong in two ways.
      const optional = required.size > 0 && !required.has(field) && spec.default === undefined;
      const checked = optional
        ? this.leftOut(spec, given, here, field)
        : this.check(spec, given, here, field);
      if (checked === FAILED) continue;
      const fault = fieldCheck(name, field, checked);
      if (fault === undefined) result[field] = checked;
      else this.fail(here, fault);
    }
    for (const key of Object.keys(value)) {
      if (key in properties) continue;
      if (schema.additionalProperties === false) {
        this.fail(`${at}.${key}`, "Extra inputs are not permitted");
      }
    }
    if (this.triples.length > before) return FAILED;
    const fault = modelCheck(name, result);
    return fault === undefined ? result : this.fail(at, fault);
  }

  private leftOut(spec: Schema, value: Json, at: string, field: string): Checked {
    const trial = new Validator(this.table);
    const result = trial.check(spec, value, `${at}.${label(spec)}`, field);
    if (result !== FAILED) return result;
    this.triples.push(...trial.triples);
    return this.fail(
      `${at}.is-instance[_NotRequired]`,
      "Input should be an instance of _NotRequired",
    );
  }
}

/** Whether a checked value is one. */
export function failed(value: Checked): value is typeof FAILED {
  return value === FAILED;
}

function modelName(ref: string): string {
  return ref.slice(ref.lastIndexOf("/") + 1);
}

function characters(count: number): string {
  return `${count} character${count === 1 ? "" : "s"}`;
}

function without(schema: Schema, limits: readonly ("minLength" | "maxLength")[]): Schema {
  if (limits.length === 0) return schema;
  const entries = Object.entries(schema).filter(([key]) =>
    !(limits as readonly string[]).includes(key)
  );
  return {
    ...Object.fromEntries(entries),
    maxLength: limits.includes("maxLength") ? 1e6 : LONG_STRING,
  };
}

function fieldOrder(name: string, schema: Schema): string[] {
  const first = FIELD_ORDERS[name] ?? schema.required ?? [];
  return [...new Set([...first, ...Object.keys(schema.properties ?? {})])];
}

/** How a member of a union is named in the place of a fault. */
function label(schema: Schema): string {
  if (schema.$ref !== undefined) return modelName(schema.$ref);
  const choices = schema.enum ?? (schema.const === undefined ? undefined : [schema.const]);
  if (choices !== undefined) return `literal[${choices.map((c) => pythonRepr(c)).join(",")}]`;
  switch (schema.type) {
    case "integer":
      return schema.minimum === undefined && schema.maximum === undefined
        ? "int"
        : "constrained-int";
    case "number":
      return "float";
    case "boolean":
      return "bool";
    case "string":
      return "str";
    case "array":
      return "list";
    default:
      return "dict";
  }
}

/** The values of the field by which a tagged model is chosen. */
function tagsOf(schema: Schema): { field: string; tag: Json }[] {
  for (const field of [...schema.required ?? [], ...Object.keys(schema.properties ?? {})]) {
    const spec = schema.properties?.[field];
    const chooses = spec?.const !== undefined || TAGS.includes(field);
    const tags = spec?.enum ?? (spec?.const === undefined ? undefined : [spec.const]);
    if (chooses && tags !== undefined) return tags.map((tag) => ({ field, tag }));
  }
  return [];
}

/** Choosing fields that have more than one value in some member. */
const TAGS = ["addr_trtype"];

function memberText(value: Json, field: string): string {
  const name = ENUM_NAMES[field];
  return name === undefined ? pythonRepr(value) : `<${name}.${value}: ${pythonRepr(value)}>`;
}

function choicesText(choices: readonly Json[], field: string): string {
  const texts = choices.map((choice) => memberText(choice, field));
  const last = texts.at(-1) ?? "";
  return `Input should be ${
    texts.length < 2 ? last : `${texts.slice(0, -1).join(", ")} or ${last}`
  }`;
}
