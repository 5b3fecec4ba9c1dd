/** JSON-RPC 2.0 messages: what is one, and what the server says to what is not. */

import type { Json } from "./json.ts";
import { isObject } from "./json.ts";
import { RpcError } from "./errors.ts";

/** A valid request; without an id it is a notification, which is never answered. */
export interface Message {
  readonly method: string;
  readonly params: Json[];
  readonly id: Json | undefined;
}

/** A message that is none; `id` is what the answer carries. */
export class BadMessage extends RpcError {
  constructor(code: number, message: string, readonly id: Json = null) {
    super(code, message);
  }
}

/** @throws BadMessage */
export function parseMessage(text: string): Message {
  let value: Json;
  try {
    value = JSON.parse(text);
  } catch {
    throw new BadMessage(-32700, pythonFault(text));
  }
  if (Array.isArray(value)) {
    throw new BadMessage(-32700, "Batch messages are not supported at this time");
  }
  if (!isObject(value)) throw new BadMessage(-32700, "Invalid Message Format");
  const { id, method, params } = value;
  const idFits = id === undefined || id === null || typeof id === "string" || Number.isInteger(id);
  // Even an id that is refused comes back in the answer.
  const bad = (message: string) => new BadMessage(-32600, message, id ?? null);
  if (value.jsonrpc === undefined) throw bad("Missing 'jsonrpc' member");
  if (value.jsonrpc !== "2.0") {
    throw bad("'jsonrpc' member must be of type string and must be exactly '2.0'");
  }
  if (!idFits) throw bad("'id' member must be of type null, string or number");
  if (method === undefined) throw bad("Missing 'method' member");
  if (typeof method !== "string" || method === "") {
    throw bad("'method' member must be of type string");
  }
  if (params !== undefined && !Array.isArray(params)) {
    throw bad("'params' member must be of type array");
  }
  return { method, params: params ?? [], id };
}

/** Where and how Python's parser gives up; the place is that of the end or of the first odd character. */
function pythonFault(text: string): string {
  let end = text.length;
  // The shortest prefix that cannot be continued would need a parser; what is cut off ends at the end.
  const odd = /[^\s\w"'{}[\]:,.+\-\\/]/.exec(text);
  if (odd !== null) end = odd.index;
  const before = text.slice(0, end);
  const line = before.split("\n").length;
  const column = end - (before.lastIndexOf("\n") + 1) + 1;
  return `Expecting value: line ${line} column ${column} (char ${end})`;
}
