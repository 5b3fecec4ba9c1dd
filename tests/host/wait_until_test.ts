import { assertEquals, assertRejects } from "@std/assert";
import { waitUntil } from "../../src/host/wait_until.ts";

/** A clock that jumps over every pause. */
function jumpingClock() {
  let now = 0;
  const pauses: number[] = [];
  return {
    pauses,
    monotonicMs: () => now,
    wait(ms: number, signal?: AbortSignal) {
      signal?.throwIfAborted();
      pauses.push(ms);
      now += ms;
      return Promise.resolve();
    },
  };
}

Deno.test("the first look comes at once", async () => {
  const clock = jumpingClock();
  const found = await waitUntil(clock, { deadlineMs: 1000 }, () => Promise.resolve("there"));
  assertEquals(found, { value: "there", attempts: 1, ms: 0 });
  assertEquals(clock.pauses, []);
});

Deno.test("looks come less and less often, and the result says what they took", async () => {
  const clock = jumpingClock();
  const found = await waitUntil(
    clock,
    { deadlineMs: 10_000 },
    (attempt) => Promise.resolve(attempt === 8 ? attempt : undefined),
  );
  assertEquals(clock.pauses, [10, 25, 50, 100, 250, 250, 250]);
  assertEquals(found, { value: 8, attempts: 8, ms: 935 });
});

Deno.test("the last look is at the deadline, then the wait is over", async () => {
  const clock = jumpingClock();
  const at: number[] = [];
  const found = await waitUntil(clock, { deadlineMs: 60 }, () => {
    at.push(clock.monotonicMs());
    return Promise.resolve(undefined);
  });
  assertEquals(found, undefined);
  assertEquals(at, [0, 10, 35, 60]);
});

Deno.test("an abort ends the wait with its reason", async () => {
  const clock = jumpingClock();
  const controller = new AbortController();
  await assertRejects(
    () =>
      waitUntil(clock, { deadlineMs: 1000, signal: controller.signal }, () => {
        controller.abort(new Error("caller is gone"));
        return Promise.resolve(undefined);
      }),
    "caller is gone",
  );
});
