/**
 * The older validation library that 25.04 still used for pool, dataset, snapshot, service and core
 * methods: lenient where the new one is strict (a text of digits is an integer, a number is a text),
 * and with a wording of its own.
 */

import type { Json, JsonObject } from "../json.ts";
import { copy, isObject } from "../json.ts";
import type { Triple } from "../errors.ts";
import type { ModelTable, Schema } from "./tables.ts";

const MISSING: unique symbol = Symbol("missing");
type Given = Json | typeof MISSING;

/** Names of list items that are objects, where the library gave them one. */
const ITEM_NAMES: Readonly<Record<string, string>> = {
  "pool_dataset_create.user_properties": "user_property",
};

/** A fault of the value itself; its parent prefixes the place. */
class Fault extends Error {}

export class LegacyValidator {
  readonly triples: Triple[] = [];

  /** @param partial an update: what is absent stays absent, defaults are not filled in. */
  constructor(private readonly table: ModelTable, private readonly partial = false) {}

  /** The converted value; faults are added to {@link triples}, and then the result means nothing. */
  check(schema: Schema, value: Given, at: string, required = true): Json {
    try {
      return this.clean(schema, value, at, required);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.triples.push([at, error.message, 22]);
      return null;
    }
  }

  private clean(given: Schema, value: Given, at: string, required: boolean): Json {
    const schema = given.$ref === undefined ? given : {
      ...this.table.models.get(given.$ref.slice(given.$ref.lastIndexOf("/") + 1)),
      ...(given.default === undefined ? {} : { default: given.default }),
    };
    if (value === MISSING) {
      if (schema.default !== undefined) return copy(schema.default);
      if (schema.properties !== undefined) return this.object(schema, {}, at);
      if (!required) return null;
      throw new Fault("attribute required");
    }
    if (schema.anyOf !== undefined) return this.either(schema.anyOf, value, at);
    const types = typeof schema.type === "string" ? [schema.type] : schema.type ?? [];
    if (value === null) {
      if (types.length === 0 || types.includes("null")) return null;
      throw new Fault("null not allowed");
    }
    if (types.includes("string")) return this.text(schema, value, types.includes("integer"));
    if (types.includes("integer")) return integer(value);
    if (types.includes("boolean")) {
      if (typeof value !== "boolean") throw new Fault("Not a boolean");
      return value;
    }
    if (types.includes("array")) return this.list(schema, value, at);
    if (types.includes("object")) return this.object(schema, value, at);
    return value;
  }

  /** "X or INHERIT", and the optional forms of models that both libraries share. */
  private either(choices: readonly Schema[], value: Json, at: string): Json {
    if (value === null && choices.some((choice) => choice.type === "null")) return null;
    const inherit = choices.some((choice) => choice.enum?.includes("INHERIT"));
    if (inherit && value === "INHERIT") return value;
    const own = choices.find((choice) => choice.type !== "null" && choice.enum?.[0] !== "INHERIT");
    return own === undefined ? value : this.clean(own, value, at, true);
  }

  private text(schema: Schema, value: Json, numbersToo: boolean): Json {
    if (numbersToo && typeof value === "number") return value;
    const text = Number.isInteger(value) ? String(value) : value;
    if (typeof text !== "string") throw new Fault("Not a string");
    if (schema.enum !== undefined && !schema.enum.includes(text)) {
      throw new Fault(`Invalid choice: ${text}`);
    }
    if (text.length > 1024) throw new Fault("Value greater than 1024 not allowed");
    return text;
  }

  private list(schema: Schema, value: Json, at: string): Json {
    if (!Array.isArray(value)) throw new Fault("Not a list");
    const items = schema.items;
    if (items === undefined || Object.keys(items).length === 0) return copy(value);
    const name = ITEM_NAMES[at];
    return value.map((item, index) =>
      this.check(items, item, `${at}.${index}${name === undefined ? "" : `.${name}`}`)
    );
  }

  private object(schema: Schema, value: Json, at: string): Json {
    if (!isObject(value)) throw new Fault("A dict was expected");
    const properties = schema.properties ?? {};
    const result: JsonObject = {};
    for (const [key, item] of Object.entries(value)) {
      const spec = properties[key];
      if (spec !== undefined) {
        result[key] = this.check(spec, item, `${at}.${key}`);
        this.property(at, key, result[key]);
      } else if (schema.additionalProperties === false) {
        this.triples.push([`${at}.${key}`, "Field was not expected", 22]);
      } else result[key] = copy(item);
    }
    // Items of lists are whole, also in an update.
    const fill = !this.partial || /\.\d+$/.test(at);
    for (const [key, spec] of Object.entries(properties)) {
      if (key in value || !fill) continue;
      if (schema.required?.includes(key)) this.check(spec, MISSING, `${at}.${key}`);
      else if (spec.default !== undefined) result[key] = copy(spec.default);
    }
    return result;
  }

  private property(at: string, key: string, value: Json | undefined): void {
    if (key !== "key" || !at.includes("user_propert")) return;
    if (typeof value === "string" && !value.includes(":")) {
      this.triples.push([`${at}.${key}`, "Value does not match '.*:.*' pattern", 22]);
    }
  }
}

function integer(value: Json): Json {
  if (typeof value === "string" && /^\d+$/.test(value)) return Number(value);
  if (!Number.isInteger(value)) throw new Fault("Not an integer");
  return value;
}

/** Stands for a parameter that was not given. */
export const NOT_PROVIDED: typeof MISSING = MISSING;
