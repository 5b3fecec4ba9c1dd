/** What the daemon counts: requests, calls on arrays, and the last failures. All of it is bounded. */
import type { Host } from "../host/host.ts";
import type { ArrayCall } from "../pve/hook.ts";
import { KNOWN_METHODS } from "./methods.ts";
import { type DaemonState, failureDocument } from "./state.ts";

/** Upper bounds in seconds: from an answer out of memory to a write that waits for a reload. */
export const LATENCY_BUCKETS: readonly number[] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];

/** Failures that are remembered. */
const MOST_ERRORS = 20;

/** Methods of arrays that are counted apart; tnblock uses some forty. */
const MOST_ARRAY_METHODS = 100;

/** What is counted beyond that, and for methods that nobody knows. */
const OTHER = "other";

const METHODS: ReadonlySet<string> = new Set(KNOWN_METHODS);

/** A request that has been answered. */
export interface AnsweredRequest {
  readonly method: string;
  readonly storage: string;
  /** From the moment that it was taken. */
  readonly ms: number;
  /** What it failed with. */
  readonly error?: { readonly code: string; readonly message: string; readonly hint?: string };
}

interface MethodCount {
  count: number;
  seconds: number;
  readonly failed: Map<string, number>;
  /** One more than there are bounds; not cumulative. */
  readonly buckets: number[];
}

interface CallCount {
  count: number;
  failed: number;
  seconds: number;
}

type Failure = {
  -readonly [K in keyof DaemonState["errors"][number]]: DaemonState["errors"][number][K];
};

/** Counts since the daemon's start. */
export class Counters {
  readonly #clock: Pick<Host, "now">;
  readonly #requests = new Map<string, MethodCount>();
  readonly #calls = new Map<string, CallCount>();
  #errors: Failure[] = [];

  constructor(clock: Pick<Host, "now">) {
    this.#clock = clock;
  }

  /** A request has been answered. */
  answered({ method, storage, ms, error }: AnsweredRequest): void {
    const known = METHODS.has(method) ? method : OTHER;
    const counted = this.#requests.get(known) ??
      { count: 0, seconds: 0, failed: new Map(), buckets: [...LATENCY_BUCKETS, Infinity].fill(0) };
    this.#requests.set(known, counted);
    counted.count++;
    counted.seconds += ms / 1000;
    const bucket = LATENCY_BUCKETS.findIndex((bound) => ms / 1000 <= bound);
    const index = bucket < 0 ? LATENCY_BUCKETS.length : bucket;
    counted.buckets[index] = (counted.buckets[index] ?? 0) + 1;
    if (error === undefined) return;
    counted.failed.set(error.code, (counted.failed.get(error.code) ?? 0) + 1);
    this.#remember({ method: known, storage: storage.slice(0, 100), ...failureDocument(error) });
  }

  /** A call on an array has ended. */
  called({ method, ms, done }: ArrayCall): void {
    const isKnown = this.#calls.has(method) || this.#calls.size < MOST_ARRAY_METHODS;
    const name = isKnown ? method : OTHER;
    const counted = this.#calls.get(name) ?? { count: 0, failed: 0, seconds: 0 };
    this.#calls.set(name, counted);
    counted.count++;
    counted.seconds += ms / 1000;
    if (!done) counted.failed++;
  }

  /** What was counted so far. */
  state(): Pick<DaemonState, "latencyBuckets" | "arrayCalls" | "errors"> & {
    readonly requests: Omit<DaemonState["requests"], "underWay">;
  } {
    const byMethod = sorted(this.#requests).map(([method, { count, seconds, failed, buckets }]) => {
      let sum = 0;
      return {
        method,
        count,
        failed: Object.fromEntries(sorted(failed)),
        seconds: { sum: seconds, buckets: buckets.map((own) => sum += own) },
      };
    });
    const all = (numbers: readonly number[]) => numbers.reduce((sum, number) => sum + number, 0);
    return {
      latencyBuckets: [...LATENCY_BUCKETS],
      requests: {
        total: all(byMethod.map(({ count }) => count)),
        failed: all(byMethod.flatMap(({ failed }) => Object.values(failed))),
        byMethod,
      },
      arrayCalls: sorted(this.#calls).map(([method, counted]) => ({ method, ...counted })),
      errors: this.#errors.map((error) => ({ ...error })),
    };
  }

  /** The same failure every ten seconds does not push out the others. */
  #remember(error: Omit<Failure, "at" | "count">): void {
    const same = this.#errors.find((one) =>
      one.method === error.method && one.storage === error.storage && one.code === error.code &&
      one.message === error.message
    );
    const at = new Date(this.#clock.now()).toISOString();
    const others = this.#errors.filter((one) => one !== same);
    this.#errors = [...others, { ...error, at, count: (same?.count ?? 0) + 1 }].slice(-MOST_ERRORS);
  }
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([a], [b]) => a < b ? -1 : 1);
}
