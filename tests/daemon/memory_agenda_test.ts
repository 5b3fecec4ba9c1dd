import { assert, assertEquals } from "@std/assert";
import {
  type Agenda,
  decideNext,
  MEMORY_TIMING,
  type Step,
} from "../../src/daemon/memory_agenda.ts";

const QUIET: Agenda = {
  timing: MEMORY_TIMING,
  jitter: 0.5,
  lastMs: 100_000,
  all: { endMs: 100_000, tookMs: 50 },
  failures: 0,
  allSinceMs: undefined,
  ownSinceMs: undefined,
  toldSinceMs: undefined,
  storm: 0,
  urgent: false,
  paths: 0,
  wholeOnly: false,
};

const CASES: readonly [string, Partial<Agenda>, Step][] = [
  ["at first everything is read", { all: undefined, lastMs: undefined }, {
    what: "all",
    atMs: 100_000,
  }],
  ["then once a minute", {}, { what: "all", atMs: 160_000 }],
  ["not in step with the other nodes", { jitter: 0 }, { what: "all", atMs: 154_000 }],
  [
    "less often when it is dear",
    { all: { endMs: 100_000, tookMs: 10_000 } },
    { what: "all", atMs: 300_000 },
  ],
  [
    "what we wrote to is read after a moment",
    { ownSinceMs: 101_000, paths: 1 },
    { what: "some", atMs: 101_200 },
  ],
  [
    "at once when somebody waits",
    { ownSinceMs: 99_990, paths: 1, urgent: true },
    { what: "some", atMs: 100_000 },
  ],
  [
    "so is what events told of",
    { toldSinceMs: 99_990, paths: 1, urgent: true },
    { what: "some", atMs: 100_000 },
  ],
  [
    "many paths are cheaper with everything",
    { ownSinceMs: 101_000, paths: 4 },
    { what: "all", atMs: 101_200 },
  ],
  [
    "unless everything is much",
    { ownSinceMs: 101_000, paths: 4, all: { endMs: 100_000, tookMs: 1_000 } },
    { what: "some", atMs: 101_200 },
  ],
  [
    "a path that cannot be read alone is read with everything",
    { ownSinceMs: 101_000, paths: 1, wholeOnly: true },
    { what: "all", atMs: 101_200 },
  ],
  [
    "an event waits for those that follow it",
    { toldSinceMs: 110_000, paths: 1 },
    { what: "some", atMs: 111_000 },
  ],
  [
    "in a storm of events reads are far apart",
    { toldSinceMs: 100_100, paths: 1, storm: 4 },
    { what: "some", atMs: 108_000 },
  ],
  [
    "however long it lasts, not too far",
    { toldSinceMs: 100_100, paths: 1, storm: 10 },
    { what: "some", atMs: 115_000 },
  ],
  [
    "events about many paths of a large storage cost one twentieth of the time",
    { toldSinceMs: 100_100, paths: 100, all: { endMs: 100_000, tookMs: 1_500 } },
    { what: "all", atMs: 130_000 },
  ],
  ["after a failure it is tried again", { failures: 1 }, { what: "all", atMs: 100_500 }],
  ["less and less often", { failures: 20 }, { what: "all", atMs: 130_000 }],
  ["at once for somebody who waits", { failures: 20, urgent: true }, {
    what: "all",
    atMs: 100_000,
  }],
  [
    "after a reconnection everything is read soon",
    { allSinceMs: 120_000 },
    { what: "all", atMs: 120_250 },
  ],
];

for (const [name, change, expected] of CASES) {
  Deno.test(name, () => assertEquals(decideNext({ ...QUIET, ...change }, 100_000), expected));
}

Deno.test("32 nodes read little in ten minutes in which something changes every 100 ms", () => {
  let reads = 0;
  for (let node = 0; node < 32; node++) {
    let nowMs = 0;
    let agenda: Agenda = { ...QUIET, all: { endMs: 0, tookMs: 50 }, lastMs: 0, jitter: node / 32 };
    while (nowMs < 600_000) {
      const told = { ...agenda, toldSinceMs: nowMs + 100, paths: 40 };
      const step = decideNext(told, nowMs);
      nowMs = Math.max(nowMs, step.atMs) + 50;
      reads++;
      agenda = {
        ...agenda,
        all: { endMs: nowMs, tookMs: 50 },
        lastMs: nowMs,
        storm: Math.min(agenda.storm + 1, 10),
      };
    }
  }
  const perSecond = reads / 600;
  assert(perSecond < 4, `${perSecond.toFixed(1)} reads of everything a second`);
});
