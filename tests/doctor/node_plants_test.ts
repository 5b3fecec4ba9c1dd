import { assertEquals } from "@std/assert";
import { Healthy } from "./healthy.ts";
import { journalEntry } from "./plant_values.ts";
import { NODE_PLANTS } from "./node_plants.ts";
import { testPlants } from "./planted.ts";

testPlants(NODE_PLANTS);

Deno.test("without a daemon an operation that was stopped is told from the journal itself", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  await healthy.stopDaemon();
  const entry = journalEntry(Date.now() - 3_600_000);
  await healthy.write(`/var/lib/tnblock/journal/${entry.id}.json`, JSON.stringify(entry));
  const { results } = await healthy.look({ ids: ["journal"] });
  assertEquals(results.flatMap(({ findings }) => findings.map(({ text }) => text)), [
    'alloc of "vm-1-disk-0" on storage "san" is not ended, and no daemon runs that would end it',
  ]);
});
