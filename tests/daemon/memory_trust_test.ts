import { assertEquals } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { classOf, type Contact, decideTrust, type Trust } from "../../src/daemon/memory_trust.ts";

const away = new TnblockError("unreachable", "Cannot connect");
const gone = new TnblockError("not-found", "there is no such dataset");

const READ: Contact = {
  startedMs: 0,
  readMs: 100_000,
  heardMs: undefined,
  followed: true,
  periodMs: 60_000,
  failing: undefined,
  fault: undefined,
  kept: false,
};

const CASES: readonly [string, Partial<Contact>, number, Trust][] = [
  ["with events a memory is of now", {}, 150_000, { kind: "good", ageMs: 0 }],
  ["without events it is as old as its read", { followed: false }, 150_000, {
    kind: "good",
    ageMs: 50_000,
  }],
  ["with events it is of the array's last word", { heardMs: 130_000 }, 150_000, {
    kind: "good",
    ageMs: 20_000,
  }],
  ["a silent array is believed for a minute", { heardMs: 130_000 }, 190_000, {
    kind: "good",
    ageMs: 60_000,
  }],
  ["and no longer, whether its line has been found dead or not", { heardMs: 130_000 }, 190_001, {
    kind: "none",
    why: undefined,
  }],
  [
    "silence ends a memory that is not told of changes as well",
    { heardMs: 130_000, followed: false },
    190_001,
    { kind: "none", why: undefined },
  ],
  [
    "a new session does not make up for what was missed since the last word on the one before",
    { heardMs: 199_000, failing: { sinceMs: 130_000, error: away } },
    190_001,
    { kind: "none", why: away },
  ],
  [
    "after the link went down it ages",
    { failing: { sinceMs: 140_000, error: away } },
    160_000,
    { kind: "good", ageMs: 20_000 },
  ],
  [
    "a minute after that it is no answer any more, and the reason is the link's",
    { failing: { sinceMs: 140_000, error: away } },
    200_001,
    { kind: "none", why: away },
  ],
  [
    "without events it lasts a minute after the first read that failed",
    { followed: false, failing: { sinceMs: 160_000, error: away } },
    219_000,
    { kind: "good", ageMs: 119_000 },
  ],
  [
    "a read of everything that is overdue for long makes it no answer",
    {},
    100_000 + 2 * 60_000 + 60_001,
    { kind: "none", why: undefined },
  ],
  [
    "a dear read is due later",
    { periodMs: 600_000 },
    100_000 + 1_000_000,
    { kind: "good", ageMs: 0 },
  ],
  ["what the array itself says counts at once", { fault: gone }, 100_001, {
    kind: "none",
    why: gone,
  }],
  ["nothing read is no answer", { readMs: undefined }, 1, { kind: "none", why: undefined }],
  [
    "nothing read because the array is away has that reason",
    { readMs: undefined, failing: { sinceMs: 0, error: away } },
    1,
    { kind: "none", why: away },
  ],
  ["what was kept is shown at the start", { readMs: undefined, kept: true }, 60_000, {
    kind: "kept",
  }],
  [
    "and no longer than a minute",
    { readMs: undefined, kept: true, failing: { sinceMs: 0, error: away } },
    60_001,
    { kind: "none", why: away },
  ],
];

for (const [name, change, nowMs, expected] of CASES) {
  Deno.test(name, () => assertEquals(decideTrust({ ...READ, ...change }, nowMs), expected));
}

Deno.test("failures are of the network, of the configuration, or neither", () => {
  const kinds = (["unreachable", "timeout", "auth", "tls", "not-found", "internal"] as const)
    .map((code) => classOf(new TnblockError(code, "x")));
  assertEquals(kinds, [
    "connectivity",
    "connectivity",
    "configuration",
    "configuration",
    "configuration",
    "unknown",
  ]);
});
