/** The JSON values that travel over the simulated API, and small helpers for reading them. */

export type Json = null | boolean | number | string | Json[] | JsonObject;
/** A JSON object; a row of a simulated table is one. */
export interface JsonObject {
  [key: string]: Json;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A copy that shares nothing with the original. */
export function copy<T extends Json>(value: T): T {
  return structuredClone(value);
}

/** `{"$date": ms}` of whole seconds, the API's form of a point in time. */
export function date(seconds: number): JsonObject {
  return { $date: Math.floor(seconds) * 1000 };
}

const BIG = "\u0001big:";

/**
 * A 64-bit number that does not fit a JavaScript number. It is carried as marked text and becomes a
 * bare number on the wire, because the real array sends such numbers (`guid`) unquoted.
 */
export function bigNumber(digits: string): string {
  return BIG + digits;
}

/** JSON text for the wire, with {@link bigNumber} values unquoted. */
export function wireText(value: unknown): string {
  const text = JSON.stringify(value);
  return text.includes("\\u0001big:") ? text.replace(/"\\u0001big:(\d+)"/g, "$1") : text;
}

/** How Python prints a value inside the texts of the real server. */
export function pythonRepr(value: Json | undefined): string {
  if (value === undefined || value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") {
    const body = value.replace(/\\/g, "\\\\").replace(/\n/g, "\\n");
    return value.includes("'") && !value.includes('"')
      ? `"${body}"`
      : `'${body.replace(/'/g, "\\'")}'`;
  }
  if (Array.isArray(value)) return `[${value.map(pythonRepr).join(", ")}]`;
  return `{${
    Object.entries(value).map(([k, v]) => `${pythonRepr(k)}: ${pythonRepr(v)}`).join(", ")
  }}`;
}
