import { assertEquals, assertRejects } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { TnblockError } from "../../src/common/error.ts";
import type { Host } from "../../src/host/host.ts";
import { onceUnused } from "../../src/volumes/once_unused.ts";
import { LastingUse } from "../../src/volumes/lasting_use.ts";
import type { Storage } from "../../src/volumes/storage.ts";

/** A storage whose clock goes on only by waiting. */
function storage(deadlineMs = 60_000): { storage: Storage; waited: () => number } {
  let now = 0;
  const host = {
    monotonicMs: () => now,
    wait: (ms: number) => Promise.resolve(void (now += ms)),
  } as unknown as Host;
  const deadline = new Deadline(host, deadlineMs);
  return { storage: { host, deadline } as unknown as Storage, waited: () => now };
}

const inUse = () => Promise.reject(new TnblockError("in-use", "Cannot let go"));

Deno.test("onceUnused() repeats what is in use until it is not", async () => {
  let tries = 0;
  const work = () => ++tries < 5 ? inUse() : Promise.resolve("done");
  assertEquals(await onceUnused(storage().storage, 5000, work), "done");
  assertEquals(tries, 5);
});

Deno.test("onceUnused() gives up when its time is over, and at the caller's deadline", async () => {
  for (const [ms, deadlineMs] of [[1000, 60_000], [60_000, 1000]] as const) {
    const place = storage(deadlineMs);
    await assertRejects(() => onceUnused(place.storage, ms, inUse), "Cannot let go");
    assertEquals([place.waited() > 500, place.waited() <= 1000], [true, true]);
  }
});

Deno.test("onceUnused() repeats no other failure, and no use that does not end by itself", async () => {
  for (const error of [new TnblockError("busy", "Cannot"), new LastingUse("Cannot")]) {
    let tries = 0;
    const work = () => {
      tries++;
      return Promise.reject(error);
    };
    await assertRejects(() => onceUnused(storage().storage, 5000, work), "Cannot");
    assertEquals(tries, 1);
  }
});
