/** When an operation that was stopped is looked at again, and what the administrator is told of it. Pure. */
import { JOURNAL_FOLDER } from "../volumes/journal.ts";
import type { Recovered } from "../volumes/recover/recover.ts";
import { failureKind } from "./back_off.ts";

/** What is known of one entry of the journal. Times are monotonic, in milliseconds. */
export interface AgendaItem {
  /** Failures that are not the connection's. */
  readonly failures: number;
  /** Looks that did not end it, of whatever kind. */
  readonly looks: number;
  /** Infinity for one that is given up: until the daemon is started again. */
  readonly nextMs: number;
  /** What was said of it last, by its kind: nothing is said twice in a row. */
  readonly said: string | undefined;
}

/** One line for the log. */
export interface Say {
  readonly level: "error" | "warning";
  readonly text: string;
}

/** Failures after which it is given up: by then two hours have passed. */
export const MOST_FAILURES = 12;

/** A wait that ends by time alone is looked at in every pass at first ... */
const PATIENT_AFTER = 20;
/** ... and seldom later, as when a guest must be stopped before. */
const PATIENT_MS = 300_000;

const FIRST_MS = 30_000;
const LONGEST_MS = 900_000;

/** Whether it is the connection that failed, and not what was tried: such a failure never leads to giving up. */
function isConnection(found: Recovered): boolean {
  const code = found.error?.code;
  if (code === undefined || code === "not-found" || code === "array-fault") return false;
  return ["unreachable", "timeout", "auth", "tls", "config", "rate-limited", "busy"].includes(code);
}

/** What follows from a look; undefined when the entry has ended. */
export function afterLook(
  before: AgendaItem | undefined,
  found: Recovered,
  nowMs: number,
): { readonly item: AgendaItem; readonly say?: Say } | undefined {
  const { outcome } = found;
  if (outcome === "undone" || outcome === "finished" || outcome === "closed") return undefined;
  const failures = before?.failures ?? 0;
  const looks = (before?.looks ?? 0) + 1;
  const said = before?.said;
  const later = (ms: number) => nowMs + ms;
  if (outcome === "running") return { item: { failures, looks: 0, nextMs: nowMs, said } };
  if (outcome === "waits") {
    return {
      item: { failures, looks, nextMs: later(looks > PATIENT_AFTER ? PATIENT_MS : 0), said },
    };
  }
  const what = `${found.op} of "${found.zvol}", which was stopped,`;
  const told = (kind: string, say: Say, nextMs: number, count = failures) => ({
    item: { failures: count, looks, nextMs, said: kind },
    ...(said === kind ? {} : { say }),
  });
  if (outcome === "foreign") {
    return told("foreign", {
      level: "warning",
      text: [`${what} is left as it is: ${found.why}`, found.remedy]
        .filter((part) => part !== undefined).join("; "),
    }, later(LONGEST_MS));
  }
  const pause = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(looks - 1, 10));
  if (isConnection(found)) {
    const kind = `connection ${failureKind(found.error?.code ?? "internal")}`;
    return told(kind, {
      level: "warning",
      text: `${what} cannot be seen to yet: ${found.why}`,
    }, later(pause));
  }
  const count = failures + 1;
  if (count >= MOST_FAILURES) {
    return told(
      "given up",
      {
        level: "error",
        text: `${what} is given up after ${count} tries: ${found.why}; ` +
          `look at it on the array, then remove ${JOURNAL_FOLDER}/${found.id}.json`,
      },
      Infinity,
      count,
    );
  }
  return told(
    `failed ${found.error?.code}`,
    {
      level: "warning",
      text: `${what} cannot be ended, and is tried again: ${found.why}`,
    },
    later(pause),
    count,
  );
}
