/**
 * A caller for tests without a network: calls are expected one by one, and every request and answer
 * must pass the array's own JSON Schema of the dialect. Fails on an unexpected call, and on an
 * expected one that did not come.
 */
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { assert, assertEquals } from "@std/assert";
import type { Caller, CallOptions } from "../../src/truenas/caller.ts";
import { parseRelease, type Release } from "../../src/truenas/dialect.ts";

const RELEASES = {
  "25.04": ["25.04.2.6", "current", "v25_04_2"],
  "25.10": ["25.10.6", "v25.10.0", "v25_10_0"],
  "26": ["26.0.0-BETA.3", "v26.0.0", "v26_0_0"],
} as const;

/** The lines of releases that tests run against. */
export type Line = keyof typeof RELEASES;
export const LINES = Object.keys(RELEASES) as Line[];

/** An answer of which only matters that it is an object: the row that was written. */
export const UNUSED = Symbol("unused");

interface Expected {
  readonly method: string;
  readonly params: readonly unknown[];
  readonly answer: unknown;
}

const ajv = new Ajv2020({ strict: false, validateFormats: false });
const compiled = new Map<string, ValidateFunction>();

function schema(folder: string, method: string): ValidateFunction {
  const path = `${folder}/${method}.json`;
  const known = compiled.get(path);
  if (known !== undefined) return known;
  const url = new URL(`../fixtures/truenas/schema/${path}`, import.meta.url);
  const made = ajv.compile(JSON.parse(Deno.readTextFileSync(url)));
  compiled.set(path, made);
  return made;
}

/** A table of calls that are expected. */
export class CallTable implements Caller {
  readonly release: Release;
  /** The options of each call, in order. */
  readonly options: (CallOptions | undefined)[] = [];
  readonly #folder: string;
  readonly #expected: Expected[] = [];

  constructor(line: Line) {
    const [text, dialect, folder] = RELEASES[line];
    this.release = parseRelease(text, dialect);
    this.#folder = folder;
  }

  /** Expects a call; an `Error` as answer is thrown. */
  expect(method: string, params: readonly unknown[], answer: unknown): this {
    const validate = schema(this.#folder, method);
    const pair = answer instanceof Error || answer === UNUSED
      ? { params }
      : { params, result: answer };
    assert(validate(pair), `${method}: ${JSON.stringify(validate.errors?.slice(0, 3))}`);
    this.#expected.push({ method, params, answer });
    return this;
  }

  async call(
    method: string,
    params: readonly unknown[],
    options?: CallOptions,
  ): Promise<unknown> {
    await Promise.resolve();
    this.options.push(options);
    const index = this.#expected.findIndex((call) =>
      call.method === method && JSON.stringify(call.params) === JSON.stringify(params)
    );
    if (index === -1) {
      assertEquals<unknown>(
        { method, params },
        this.#expected.map(({ method, params }) => ({
          method,
          params,
        })),
      );
    }
    const [call] = this.#expected.splice(index, 1);
    if (call?.answer instanceof Error) throw call.answer;
    return call?.answer === UNUSED ? {} : call?.answer;
  }

  callJob(method: string, params: readonly unknown[], options?: CallOptions): Promise<unknown> {
    return this.call(method, params, options);
  }

  /** Fails when a call that was expected did not come. */
  done(): void {
    assertEquals(this.#expected.map((call) => call.method), []);
  }
}
