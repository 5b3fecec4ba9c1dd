/** Faults on demand: what a test asked to go wrong, by method and by the number of the call. */

import type { Json } from "./json.ts";

export interface Fault {
  /**
   * The API method; or `reload.iscsitarget`, `reload.nvmet` (only `error` and `delay`): a reload;
   * or `event.<collection>` (only `delay` and `cut`): a notification.
   */
  readonly method: string;
  /** Which call of the method, counted from 1 at the setting of the faults; absent: every call. */
  readonly nth?: number;
  /**
   * `error`: refuse with `errno` without doing it. `drop-reply`: do it, never answer.
   * `done-then-drop`: do it, then cut the connection. `cut`: cut the connection first, do nothing.
   * `delay`: wait `ms`, then do it. `hold`: wait until the faults are set anew without one that
   * holds this method, then do it. `result`: answer `result` without doing it. `expire`: forget the
   * login of this connection first: this call and all after it are refused with 207, those that run go
   * on (`plugins/auth.py`, `_app_on_message`).
   */
  readonly do:
    | "error"
    | "drop-reply"
    | "done-then-drop"
    | "cut"
    | "delay"
    | "hold"
    | "result"
    | "expire";
  readonly errno?: number;
  readonly message?: string;
  readonly ms?: number;
  readonly result?: Json;
}

const ACTIONS = [
  "error",
  "drop-reply",
  "done-then-drop",
  "cut",
  "delay",
  "hold",
  "result",
  "expire",
];

/** @throws Error that says which entry is wrong. */
export function parseFaults(value: unknown): Fault[] {
  if (!Array.isArray(value)) throw new Error("Cannot set faults: a list is expected");
  return value.map((entry, index) => {
    if (typeof entry?.method !== "string" || !ACTIONS.includes(entry.do)) {
      throw new Error(
        `Cannot set fault ${index}: "method" and one of ${ACTIONS.join(", ")} as "do" are expected`,
      );
    }
    return entry as Fault;
  });
}

export class Faults {
  private list: Fault[] = [];
  private readonly calls = new Map<string, number>();
  /** Methods of which a call is being held, each with how many. */
  private readonly holding = new Map<string, number>();
  private changed = Promise.withResolvers<void>();

  /** Replaces the list and counts anew. */
  set(faults: readonly Fault[]): void {
    this.list = [...faults];
    this.calls.clear();
    this.tellChange();
  }

  /** Resolves when a call of the method is being held. */
  async held(method: string): Promise<void> {
    while (!this.holding.has(method)) await this.changed.promise;
  }

  /** Holds a call of the method back for as long as a fault of the list says so. */
  async hold(method: string): Promise<void> {
    this.holding.set(method, (this.holding.get(method) ?? 0) + 1);
    this.tellChange();
    while (this.list.some((fault) => fault.method === method && fault.do === "hold")) {
      await this.changed.promise;
    }
    const left = (this.holding.get(method) ?? 0) - 1;
    if (left > 0) this.holding.set(method, left);
    else this.holding.delete(method);
  }

  private tellChange(): void {
    this.changed.resolve();
    this.changed = Promise.withResolvers();
  }

  /** Counts one call and tells the fault that is meant for it. */
  next(method: string): Fault | undefined {
    const count = (this.calls.get(method) ?? 0) + 1;
    this.calls.set(method, count);
    return this.list.find((fault) =>
      fault.method === method && (fault.nth === undefined || fault.nth === count)
    );
  }
}
