/**
 * The assertions of `@std/assert` that this project uses, over `node:assert/strict`.
 * `deno.json` maps `@std/assert` to this file; where JSR can be reached, map it to the real one.
 */
import nodeAssert from "node:assert/strict";

/** node takes undefined for "no message"; its types say so only in some versions. */
const given = (message: string | undefined) => message as string;

/** Fails unless `condition` is truthy. */
export function assert(condition: unknown, message?: string): asserts condition {
  nodeAssert.ok(condition, given(message));
}

/** Fails unless both values are deeply and strictly equal. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  nodeAssert.deepStrictEqual(actual, expected, given(message));
}

/** Fails when both values are deeply and strictly equal. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  nodeAssert.notDeepStrictEqual(actual, expected, given(message));
}

/** Fails unless both values are the same (`Object.is`). */
export function assertStrictEquals<T>(actual: T, expected: T, message?: string): void {
  nodeAssert.strictEqual(actual, expected, given(message));
}

/** Fails unless `actual` is neither null nor undefined. */
export function assertExists<T>(actual: T, message?: string): asserts actual is NonNullable<T> {
  nodeAssert.ok(actual !== null && actual !== undefined, message ?? "expected a value");
}

/** Fails unless `text` contains `part`. */
export function assertStringIncludes(text: string, part: string, message?: string): void {
  // The message costs more than the look where the text is long: it is made only when it is told.
  if (text.includes(part)) return;
  fail(message ?? `expected ${JSON.stringify(text)} to include ${JSON.stringify(part)}`);
}

/** Fails unless `text` matches `pattern`. */
export function assertMatch(text: string, pattern: RegExp, message?: string): void {
  nodeAssert.match(text, pattern, given(message));
}

/** Fails unless every own property of `expected` is found, equal, in `actual`. */
export function assertObjectMatch(actual: object, expected: object, message?: string): void {
  nodeAssert.partialDeepStrictEqual(actual, expected, given(message));
}

/** Fails unless `value` is an instance of `type`. */
export function assertInstanceOf<T>(
  value: unknown,
  type: new (...args: never[]) => T,
): asserts value is T {
  nodeAssert.ok(value instanceof type, `expected an instance of ${type.name}`);
}

/** Fails unless `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, part?: string): unknown {
  try {
    fn();
  } catch (error) {
    if (part !== undefined) assertStringIncludes(String(error), part);
    return error;
  }
  return fail("expected the function to throw");
}

/** Fails unless the promise is rejected; returns the reason. */
export async function assertRejects(fn: () => Promise<unknown>, part?: string): Promise<unknown> {
  try {
    await fn();
  } catch (error) {
    if (part !== undefined) assertStringIncludes(String(error), part);
    return error;
  }
  return fail("expected the promise to be rejected");
}

/** Fails always. */
export function fail(message: string): never {
  nodeAssert.fail(message);
}
