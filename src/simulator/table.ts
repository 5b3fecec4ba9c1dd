/** A database table of the array: rows by id; ids grow and are never used again. */

import type { JsonObject } from "./json.ts";

export class Table {
  private readonly rows = new Map<number, JsonObject>();
  private lastId = 0;

  insert(row: JsonObject): JsonObject & { id: number } {
    this.lastId += 1;
    const stored = { id: this.lastId, ...row };
    this.rows.set(this.lastId, stored);
    return stored;
  }

  get(id: number): JsonObject | undefined {
    return this.rows.get(id);
  }

  /** Replaces the named fields. */
  patch(id: number, fields: JsonObject): JsonObject {
    const row = { ...this.rows.get(id), ...fields };
    this.rows.set(id, row);
    return row;
  }

  delete(id: number): boolean {
    return this.rows.delete(id);
  }

  all(): JsonObject[] {
    return [...this.rows.values()];
  }

  find(test: (row: JsonObject) => boolean): JsonObject | undefined {
    for (const row of this.rows.values()) if (test(row)) return row;
    return undefined;
  }

  get size(): number {
    return this.rows.size;
  }
}
