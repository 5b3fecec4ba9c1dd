/** What was stopped on one array is told by nothing that is seen on another. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { afterLook } from "../../../src/daemon/recovery_agenda.ts";
import { isSameArray } from "../../../src/volumes/array_place.ts";
import { JOURNAL_FOLDER } from "../../../src/volumes/journal.ts";
import { supersede } from "../../../src/volumes/journaled.ts";
import { recoverStorage } from "../../../src/volumes/recover/recover.ts";
import { linuxHost } from "../../../src/host/linux.ts";
import { openEntries, openPlace, recover } from "../../support/mortal.ts";
import { Place, TRANSPORTS } from "../../support/place.ts";
import { ALLOC, both, kill, outcomes, own } from "./support.ts";

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: what was stopped on one array waits for it while the storage is another's, a replica`, async () => {
    await using place = await Place.start(transport, { release: "25.10" });
    await using replica = await Place.start(transport, { release: "25.10" });
    await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
    // The administrator points the storage at the other array, of the same dataset, with its key.
    await place.writeSecrets({ "tnb-api-key": replica.simulator.ready.apiKey });
    const host = linuxHost({ root: place.directory });
    const storage = await openPlace(replica, undefined, { host });
    try {
      const [found] = await recoverStorage(storage, { settleMs: 0 });
      assert(found !== undefined);
      assertEquals(found.outcome, "foreign");
      assertStringIncludes(found.why, String(place.simulator.ready.port));
      // Said once.
      const said = afterLook(undefined, found, 0);
      assertEquals(said?.say?.level, "warning");
      assertEquals(afterLook(said?.item, found, 1)?.say, undefined);
      // What is repeated there does not end it either.
      await supersede(storage, "vm-100-disk-0", ["alloc"]);
    } finally {
      await storage.close();
    }
    assertEquals((await openEntries(place)).length, 1);
    // And back again.
    await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey });
    assertEquals(outcomes(await recover(place)), ["undone"]);
    assertEquals([await own(place), await openEntries(place)], [[], []]);
  });
}

/** Rewrites what an entry keeps of its place. */
async function rewrite(place: Place, kept: Record<string, unknown> | undefined): Promise<void> {
  for (const { place: was, ...entry } of await openEntries(place)) {
    const text = JSON.stringify({ ...entry, ...(kept && { place: { ...was, ...kept } }) });
    await Deno.writeTextFile(`${place.directory}${JOURNAL_FOLDER}/${entry.id}.json`, text);
  }
}

both(
  "what was stopped in another target or subsystem of the array is left alone",
  async (place) => {
    await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
    await rewrite(place, { target: "another" });
    assertEquals(outcomes(await recover(place)), ["foreign"]);
    assertEquals([(await own(place)).length, (await openEntries(place)).length], [1, 1]);
  },
);

both("an entry of an earlier version, which keeps no place, is recovered", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: 2, when: "after" });
  await rewrite(place, undefined);
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
});

Deno.test("an array is the same with a second host, and another with other hosts or another port", () => {
  const at = (hosts: readonly string[], port = 443) => ({ hosts, port, target: "t" });
  assertEquals(isSameArray(at(["a"]), at(["b", "a"])), true);
  assertEquals(isSameArray(at(["a", "b"]), at(["b"])), true);
  assertEquals(isSameArray(at(["a"]), at(["b"])), false);
  assertEquals(isSameArray(at(["a"]), at(["a"], 8443)), false);
});
