/** What every service method receives, and the steps that they share. */

import type { Json, JsonObject } from "../json.ts";
import { isObject } from "../json.ts";
import { CallError, notFound, PythonError } from "../errors.ts";
import type { QueryOptions } from "../filters.ts";
import { query } from "../filters.ts";
import type { Dialect } from "../release.ts";
import type { Session } from "../session.ts";
import type { Sim } from "../sim.ts";
import type { Table } from "../table.ts";
import type { ServiceName } from "../world.ts";

/** One call on its way through a method. */
export interface Call {
  readonly sim: Sim;
  readonly session: Session;
  readonly method: string;
  readonly dialect: Dialect;
  readonly messageId: Json;
  /** Runs another method with the rights of this call's user, as `core.bulk` does. */
  invoke(method: string, params: Json[]): Promise<Json>;
  /** Tells how far a job is; nothing outside a job. */
  progress(percent: number, description?: string): void;
}

/** A method: checked arguments in, result out. */
export type Handler = (call: Call, args: Json[]) => Json | Promise<Json>;
export type Methods = Record<string, Handler>;

export function object(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

/** Lets other calls run between a check and the write that trusts it, as the real server does. */
export function yieldToOthers(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Reloads a service after a write; on 26 the work of a closed connection ends before it. */
export async function reload(call: Call, service: ServiceName): Promise<void> {
  if (call.sim.release.major >= 2600 && call.session.closed) {
    throw new CallError("Connection closed", 110);
  }
  await call.sim.reloads.reload(service);
}

/** Sends the event of a changed row. 25.04 sends iSCSI rows without their fields. */
export function announce(
  call: Call,
  msg: "added" | "changed" | "removed",
  service: string,
  id: number | string,
  fields?: JsonObject,
): void {
  const bare = msg === "removed" ||
    (call.sim.release.major === 2504 && service.startsWith("iscsi."));
  call.sim.emit({
    msg,
    collection: `${service}.query`,
    id,
    ...(bare || fields === undefined ? {} : { fields }),
  });
}

/** What the general `query`, `get_instance` and the error texts need to know of a table. */
export interface Rows {
  readonly service: string;
  /** The class name that stands in "X 7 does not exist". */
  readonly noun: string;
  table(call: Call): Table;
  /** The row as the API shows it. */
  entry(call: Call, row: JsonObject, extra: JsonObject, single: boolean): JsonObject;
  /** Real columns, which `force_sql_filters` may name. */
  readonly columns: readonly string[];
}

/** The row of an id. @throws InstanceNotFound */
export function rowOf(rows: Rows, call: Call, id: Json | undefined): JsonObject {
  const row = typeof id === "number" ? rows.table(call).get(id) : undefined;
  if (row === undefined) throw notFound(`${rows.noun} ${id} does not exist`);
  return row;
}

/** `query` and `get_instance` of a table. */
export function reading(rows: Rows): Methods {
  return {
    [`${rows.service}.query`]: (call, [filters, given]) => {
      const options = object(given) as QueryOptions;
      const extra = object(options.extra);
      const all = rows.table(call).all();
      if (options.force_sql_filters) {
        // Filtered by columns first, then dressed: the columns need not be in the answer.
        const { select: _select, get: _get, count: _count, ...first } = options;
        const hits = query(all, filters ?? [], { ...first }, rows.columns) as JsonObject[];
        return query(hits.map((row) => rows.entry(call, row, extra, false)), [], {
          ...(options.select ? { select: options.select } : {}),
          ...(options.get ? { get: true } : {}),
          ...(options.count ? { count: true } : {}),
        });
      }
      return query(all.map((row) => rows.entry(call, row, extra, false)), filters ?? [], options);
    },
    [`${rows.service}.get_instance`]: (call, [id, options]) =>
      rows.entry(call, rowOf(rows, call, id), object(object(options).extra), true),
  };
}

/** The text of a broken foreign key or unique column, as the database layer words it. */
export function integrityError(fault: string, sql: string, parameters: string): PythonError {
  return new PythonError(
    "IntegrityError",
    `(sqlite3.IntegrityError) ${fault}\n[SQL: ${sql}]\n[parameters: ${parameters}]\n(Background on this error at: https://sqlalche.me/e/14/gkpj)`,
  );
}

/** The lowest number from `from` on that is not taken. */
export function lowestFree(taken: Iterable<number>, from: number): number {
  const used = new Set(taken);
  let number = from;
  while (used.has(number)) number += 1;
  return number;
}

/** Numbers of the rows whose field has a value. */
export function having(table: Table, field: string, value: Json): JsonObject[] {
  return table.all().filter((row) => row[field] === value);
}
