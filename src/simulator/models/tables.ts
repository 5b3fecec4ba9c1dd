/**
 * The model tables: for each dialect, every method with its parameters, roles and job marks, and the
 * models its parameters name. They are condensed from the models that TrueNAS publishes for its API
 * (one JSON object a line: a model or a method); what a schema cannot say is in `orders.ts` and
 * `checks.ts`.
 */

import type { Json } from "../json.ts";
import type { Dialect } from "../release.ts";
import v25_04_2 from "./v25_04_2.jsonl" with { type: "text" };
import v25_10_0 from "./v25_10_0.jsonl" with { type: "text" };
import v26_0_0 from "./v26_0_0.jsonl" with { type: "text" };

/** The part of JSON Schema that the tables use. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: Json;
  readonly enum?: readonly Json[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly required?: readonly string[];
  readonly default?: Json;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMaximum?: number;
  readonly exclusiveMinimum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly uniqueItems?: boolean;
}

/** One method of a dialect. */
export interface MethodModel {
  readonly method: string;
  readonly params: readonly Schema[];
  readonly names: readonly string[];
  /** How many parameters must be given. */
  readonly min: number;
  /** Roles of which any one suffices. */
  readonly roles?: readonly string[];
  /** Every role that includes one of them. */
  readonly granted?: readonly string[];
  readonly job?: boolean;
  /** Checked by the validation library that 25.04 still used beside the new one. */
  readonly legacy?: boolean;
  /** May be called without a login. */
  readonly open?: boolean;
  /** Jobs of the same lock run one after another; `{params[N]}` stands for a parameter. */
  readonly lock?: string;
}

export interface ModelTable {
  readonly methods: ReadonlyMap<string, MethodModel>;
  readonly models: ReadonlyMap<string, Schema>;
}

const TEXTS: Record<Dialect, string> = { v25_04_2, v25_10_0, v26_0_0 };
const tables = new Map<Dialect, ModelTable>();

/** The table of a dialect, read once. */
export function modelTable(dialect: Dialect): ModelTable {
  const known = tables.get(dialect);
  if (known !== undefined) return known;
  const methods = new Map<string, MethodModel>();
  const models = new Map<string, Schema>();
  for (const line of TEXTS[dialect].split("\n")) {
    if (line === "") continue;
    const entry = JSON.parse(line);
    if ("model" in entry) models.set(entry.model, entry.schema);
    else methods.set(entry.method, entry);
  }
  const table = { methods, models };
  tables.set(dialect, table);
  return table;
}
