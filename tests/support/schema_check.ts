/**
 * Checks what goes over the simulated API against the published models of the dialect: requests (an
 * unknown key must fail, as on a real server) and successful results.
 */

import { existsSync, readFileSync } from "node:fs";
import type { ValidateFunction } from "ajv/dist/2020.js";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { Exchange } from "../../src/simulator/simulator.ts";

const FOLDER = new URL("../fixtures/truenas/schema/", import.meta.url);

/** One validator for all tests of a process: compiling is the dear part. */
const compiled = new Map<string, ValidateFunction | undefined>();
/** The published schemas are not ours to judge, and what is used a few times is not worth polishing. */
const ajv = new Ajv2020({
  strict: false,
  allErrors: false,
  validateFormats: false,
  validateSchema: false,
  meta: false,
  code: { optimize: false },
});
const jobs = new Map<string, Set<string>>();

function validator(dialect: string, method: string): ValidateFunction | undefined {
  const key = `${dialect}/${method}.json`;
  if (!compiled.has(key)) {
    const file = new URL(key, FOLDER);
    compiled.set(
      key,
      existsSync(file) ? ajv.compile(JSON.parse(readFileSync(file, "utf8"))) : undefined,
    );
  }
  return compiled.get(key);
}

function isJob(dialect: string, method: string): boolean {
  let known = jobs.get(dialect);
  if (known === undefined) {
    const index = JSON.parse(readFileSync(new URL(`${dialect}/index.json`, FOLDER), "utf8"));
    const entries = Object.entries(index.methods as Record<string, { job?: boolean }>);
    known = new Set(entries.filter(([, entry]) => entry.job).map(([name]) => name));
    jobs.set(dialect, known);
  }
  return known.has(method);
}

/**
 * 25.04 does not hold its own results to these models: the recorded server leaves `children` out when
 * they were not asked for, and adds `snapshots` when they were.
 */
function looser(dialect: string, params: Record<string, unknown> | undefined): boolean {
  if (dialect !== "v25_04_2" || params === undefined) return false;
  return params.missingProperty === "children" ||
    params.additionalProperty === "snapshots" || params.additionalProperty === "snapshot_count";
}

export interface SchemaChecker {
  /** Give this to `startSimulator`. */
  readonly onExchange: (exchange: Exchange) => void;
  /** Everything that broke a schema: of requests and of results. */
  problems(): string[];
  /** Only what the simulator itself did wrong. */
  resultProblems(): string[];
}

/**
 * A checker for one test.
 *
 * @example
 * const schema = schemaChecker();
 * const simulator = await startSimulator({ onExchange: schema.onExchange });
 * // ...
 * assertEquals(schema.problems(), []);
 */
export function schemaChecker(): SchemaChecker {
  const requests: string[] = [];
  const results: string[] = [];
  const look = (exchange: Exchange, part: "params" | "result", into: string[]) => {
    const validate = validator(exchange.dialect, exchange.method);
    if (validate === undefined || validate({ [part]: exchange[part] })) return;
    const [fault] = validate.errors ?? [];
    if (part === "result" && looser(exchange.dialect, fault?.params)) return;
    into.push(
      `${exchange.dialect} ${exchange.method} ${part}${
        fault?.instancePath ?? ""
      }: ${fault?.message} ${JSON.stringify(fault?.params)}`,
    );
  };
  return {
    onExchange: (exchange) => {
      look(exchange, "params", requests);
      if (exchange.error !== undefined) return;
      // A job method answers with the job's number, which the schema does not describe.
      if (isJob(exchange.dialect, exchange.method) && exchange.job) {
        if (!Number.isInteger(exchange.result)) results.push(`${exchange.method}: no job id`);
        return;
      }
      look(exchange, "result", results);
    },
    problems: () => [...requests, ...results],
    resultProblems: () => results,
  };
}
