/** JSON-RPC 2.0 as the array speaks it: reading what comes in one frame. */

/** An answer or a notification of the server. */
export type Message =
  | { readonly kind: "result"; readonly id: number | null; readonly result: unknown }
  | { readonly kind: "error"; readonly id: number | null; readonly error: unknown }
  | { readonly kind: "notification"; readonly method: string; readonly params: unknown };

/** Reads one frame; undefined when it is none of ours. */
export function parseMessage(text: string): Message | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const message = value as Readonly<Record<string, unknown>>;
  const { id, method } = message;
  if (typeof method === "string" && id === undefined) {
    return { kind: "notification", method, params: message["params"] };
  }
  if (typeof id !== "number" && id !== null) return undefined;
  if ("error" in message && message["error"] !== null && message["error"] !== undefined) {
    return { kind: "error", id, error: message["error"] };
  }
  return "result" in message ? { kind: "result", id, result: message["result"] } : undefined;
}
