/** A process of PVE that calls the shim, and times its calls from inside. */
import { type Child, firstLine, startChild } from "./child.ts";
import type { Stage } from "./stage.ts";
import { within } from "./timing.ts";

const FOLDER = new URL("./", import.meta.url).pathname;
const STAND_INS = new URL("../../tests/pve/lib", import.meta.url).pathname;

/** Times of calls, and what the last one gave. */
export interface Calls {
  readonly ms: readonly number[];
  /** Of a list. */
  readonly rows?: number;
  /** Of everything else; a list, as Perl returns one. */
  readonly result?: readonly unknown[];
}

/** What one task of a burst went through. */
export interface Task {
  readonly volname?: string;
  readonly error?: string;
  readonly waitMs?: number;
  readonly holdMs?: number;
}

/** What a burst came to on one node. */
export interface Burst {
  readonly tasks: readonly Task[];
  /** Epoch seconds. */
  readonly endedAt: number;
}

/** A method with its arguments after storage and section. */
export type Call = readonly [method: string, ...args: unknown[]];

/** Longer than the longest burst: an order that takes more has come to nothing. */
const ORDER_MS = 300_000;

/** `perl -T` with the shim loaded. */
export class Shim implements AsyncDisposable {
  private constructor(readonly child: Child) {}

  static async start(stage: Stage, node = "pve1"): Promise<Shim> {
    const args = ["-T", "-I", STAND_INS, `${FOLDER}shim.pl`, stage.program(node)];
    const shim = new Shim(startChild("/usr/bin/perl", [...args, stage.root(node)]));
    await shim.#order({ do: "setup", config: stage.config });
    return shim;
  }

  /** Calls a method so many times. @throws Error as the shim died. */
  async call([method, ...args]: Call, runs = 1): Promise<Calls> {
    return await this.#order({ do: "call", method, args, runs }) as Calls;
  }

  /** Calls one after the other; the time of all in ms. */
  async together(calls: readonly Call[]): Promise<number> {
    const { ms } = await this.#order({ do: "together", calls }) as Calls;
    return ms[0] ?? 0;
  }

  /** Allocations at once, each by a process of its own that begins at `at` (epoch seconds). */
  async burst(count: number, locks: string, at: number, args: readonly unknown[]): Promise<Burst> {
    return await this.#order({ do: "burst", count, locks, at, args }) as Burst;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.child.end();
  }

  async #order(order: Record<string, unknown>): Promise<unknown> {
    await this.child.write(`${JSON.stringify(order)}\n`);
    const what = String(order["method"] ?? order["do"]);
    const answer = JSON.parse(await within(ORDER_MS, what, firstLine(this.child)));
    if (typeof answer.error === "string") {
      throw new Error(`${what}: ${answer.error.trim()}`);
    }
    return answer;
  }
}
