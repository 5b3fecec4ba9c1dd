import { assert, assertEquals } from "@std/assert";
import { failureKind, pauseMs } from "../../src/daemon/back_off.ts";
import {
  decideUpkeep,
  isReboot,
  LINK_TIMES,
  type UpSession,
  waitForSession,
} from "../../src/daemon/link_state.ts";

Deno.test("an array that is away is tried after a quarter of a second, then ever more rarely, at least every 30 s", () => {
  const longest = [0, 1, 2, 3, 4, 5, 6, 7, 8, 100].map((before) =>
    pauseMs({ kind: "away", before, random: 1 })
  );
  assertEquals(longest, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  for (const [index, pause] of longest.entries()) {
    assertEquals(pauseMs({ kind: "away", before: index, random: 0 }), pause / 2);
  }
});

Deno.test("what refuses us is not asked again within a minute, nor less than every six", () => {
  for (const code of ["auth", "config", "tls", "denied", "unsupported"] as const) {
    assertEquals(failureKind(code), "refused");
  }
  for (let before = 0; before < 50; before++) {
    for (const random of [0, 0.5, 0.999]) {
      const pause = pauseMs({ kind: "refused", before, random });
      assert(pause >= 60_000 && pause <= 375_000, String(pause));
    }
  }
});

Deno.test("a lock-out is waited out: as long as is known, else a whole window", () => {
  assertEquals(failureKind("rate-limited"), "locked");
  assertEquals(pauseMs({ kind: "locked", before: 9, random: 0, allowedInMs: 4_200 }), 4_200);
  assert(pauseMs({ kind: "locked", before: 0, random: 0.99, allowedInMs: 4_200 }) <= 5_200);
  assertEquals(pauseMs({ kind: "locked", before: 9, random: 0 }), 60_000);
});

Deno.test("a request waits when that makes sense, and is told the reason at once when not", () => {
  const wait = (failedTries: number, nextInMs: number, takesMs: number, leftMs: number) =>
    waitForSession({ failedTries, nextInMs, takesMs, leftMs }, LINK_TIMES);
  // Nothing has failed yet: as long as the request has.
  assertEquals(wait(0, 0, 0, 45_000), 45_000);
  // Just lost: the first try comes at once.
  assertEquals(wait(0, 200, 1_000, 45_000), 45_000);
  // The next try would end after the deadline.
  assertEquals(wait(1, 400, 700, 1_000), 0);
  assertEquals(wait(1, 400, 500, 1_000), 1_000);
  // Known to be away: nobody waits long, whatever time he has.
  assertEquals(wait(3, 1_000, 10, 45_000), 5_000);
  assertEquals(wait(8, 29_000, 10, 45_000), 0);
  // A try under way that does not end.
  assertEquals(wait(8, 0, 0, 45_000), 5_000);
});

Deno.test("a session is asked when it was silent for a minute, and closed when nobody needs it", () => {
  const up = (change: Partial<UpSession>) =>
    decideUpkeep({
      nowMs: 1_000_000,
      answeredMs: 1_000_000,
      askedMs: 0,
      usedMs: 1_000_000,
      isKept: false,
      ...change,
    }, LINK_TIMES);
  assertEquals(up({}), { do: "wait", ms: 60_000 });
  assertEquals(up({ answeredMs: 940_000 }), { do: "ask" });
  // Asked, but not answered: not again at once.
  assertEquals(up({ answeredMs: 900_000, askedMs: 990_000 }), { do: "wait", ms: 50_000 });
  assertEquals(up({ usedMs: 400_000 }), { do: "close" });
  assertEquals(up({ usedMs: 410_000 }), { do: "wait", ms: 10_000 });
  assertEquals(up({ usedMs: 0, isKept: true }), { do: "wait", ms: 60_000 });
});

Deno.test("another boot id is a reboot, and so is every new session where there is none", () => {
  assertEquals(
    [
      isReboot(undefined, "a"),
      isReboot(undefined, undefined),
      isReboot({ bootId: "a" }, "a"),
      isReboot({ bootId: "a" }, "b"),
      isReboot({ bootId: "a" }, undefined),
      isReboot({ bootId: undefined }, "a"),
      isReboot({ bootId: undefined }, undefined),
    ],
    [false, false, false, true, true, true, true],
  );
});
